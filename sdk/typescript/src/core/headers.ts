// Checks text that becomes a header, so that no header is smuggled in.

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[!-~]([ -~\t]*[!-~])?$/;

/** Those of the headers that are given, checked as by {@link checkedHeaders}. */
export function givenHeaders(headers: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const given = Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return checkedHeaders(Object.fromEntries(given));
}

/**
 * The same headers, by lower-case name.
 *
 * @throws TypeError where a name is not an RFC 9110 token, or a value is empty or not printable ASCII.
 */
export function checkedHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  const checked: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!NAME.test(name)) {
      throw new TypeError(`${JSON.stringify(name)} is not a header name`);
    }
    if (!VALUE.test(value)) {
      throw new TypeError(
        `${name} is ${JSON.stringify(value)}, which a header cannot carry: printable ASCII is needed`,
      );
    }
    checked[name.toLowerCase()] = value;
  }
  return checked;
}
