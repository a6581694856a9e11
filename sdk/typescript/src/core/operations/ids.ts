// Ids in paths.

/** An id as a segment of a path; a TypeError where it is no string, a RangeError where it would lead to another path. */
export function segment(id: unknown): string {
  if (typeof id !== "string") {
    throw new TypeError(`id is a string, not ${id === null ? "null" : typeof id}`);
  }
  if (["", ".", ".."].includes(id)) {
    throw new RangeError(`id is ${JSON.stringify(id)}, which is no id`);
  }
  return encodeURIComponent(id);
}
