// Typed reading of parsed JSON: each member has the type the contract gives it, or the answer is refused.

/** The JSON is not what the contract says; the message names the place. */
export class DecodeError extends Error {
  override readonly name = "DecodeError";
}

/** What is made of a document where events were asked for. */
export function noDocument(): never {
  throw new DecodeError("the answer is one document and no stream of events");
}

/** The members of one JSON object. Members that nobody asks for are no error. */
export class Members {
  readonly raw: Readonly<Record<string, unknown>>;
  readonly #at: string;

  constructor(value: unknown, at = "") {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new DecodeError(`${at || "the body"} is ${kind(value)}, not an object`);
    }
    this.raw = value as Record<string, unknown>;
    this.#at = at;
  }

  /** A string. */
  string(name: string): string {
    const value = this.#present(name);
    if (typeof value !== "string") {
      throw this.#wrong(name, value, "a string");
    }
    return value;
  }

  /** A string, or null where it is null or absent. */
  optionalString(name: string): string | null {
    return (this.raw[name] ?? null) === null ? null : this.string(name);
  }

  /** A whole number. */
  integer(name: string): number {
    const value = this.#present(name);
    if (!Number.isInteger(value)) {
      throw this.#wrong(name, value, "a whole number");
    }
    return value as number;
  }

  /** A whole number, or null where it is null or absent. */
  optionalInteger(name: string): number | null {
    return (this.raw[name] ?? null) === null ? null : this.integer(name);
  }

  /** A number. */
  number(name: string): number {
    const value = this.#present(name);
    if (typeof value !== "number") {
      throw this.#wrong(name, value, "a number");
    }
    return value;
  }

  /** True or false. */
  boolean(name: string): boolean {
    const value = this.#present(name);
    if (typeof value !== "boolean") {
      throw this.#wrong(name, value, "a boolean");
    }
    return value;
  }

  /** An object. */
  child(name: string): Members {
    return new Members(this.#present(name), this.#where(name));
  }

  /** An object whose members are all alike. */
  map<T>(name: string, read: (members: Members) => T): Record<string, T> {
    const inner = this.child(name);
    return Object.fromEntries(Object.keys(inner.raw).map((key) => [key, read(inner.child(key))]));
  }

  /** An array of objects. */
  children(name: string): Members[] {
    return each(this.#present(name), this.#where(name));
  }

  /** An object of strings. */
  stringMap(name: string): Record<string, string> {
    const inner = this.child(name);
    return Object.fromEntries(Object.keys(inner.raw).map((key) => [key, inner.string(key)]));
  }

  /** An array of strings. */
  strings(name: string): string[] {
    const values = this.#present(name);
    if (!Array.isArray(values)) {
      throw this.#wrong(name, values, "an array");
    }
    return values.map((value: unknown, index) => {
      if (typeof value !== "string") {
        throw this.#wrong(`${name}/${index}`, value, "a string");
      }
      return value;
    });
  }

  /** A string, or an array of strings. */
  words(name: string): string | string[] {
    return typeof this.raw[name] === "string" ? this.string(name) : this.strings(name);
  }

  /** An object, or null where it is null or absent. */
  optionalChild(name: string): Members | null {
    return (this.raw[name] ?? null) === null ? null : this.child(name);
  }

  #present(name: string): unknown {
    if (!Object.hasOwn(this.raw, name)) {
      throw new DecodeError(`${this.#where(name)} is missing`);
    }
    return this.raw[name];
  }

  #wrong(name: string, value: unknown, described: string): DecodeError {
    return new DecodeError(`${this.#where(name)} is ${kind(value)}, not ${described}`);
  }

  #where(name: string): string {
    return `${this.#at}/${name}`;
  }
}

/** An array of objects. */
export function each(value: unknown, at = ""): Members[] {
  if (!Array.isArray(value)) {
    throw new DecodeError(`${at || "the body"} is ${kind(value)}, not an array`);
  }
  return value.map((entry: unknown, index) => new Members(entry, `${at}/${index}`));
}

function kind(value: unknown): string {
  if (value === null) {
    return "null";
  }
  if (Array.isArray(value)) {
    return "an array";
  }
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}
