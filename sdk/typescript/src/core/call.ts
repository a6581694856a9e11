// One request to the gateway and the answer to it, as values.

/** A request, and how to read the answer to it. */
export interface Call<T> {
  readonly method: "GET" | "POST";
  /** Beneath the base URL, with a leading slash. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON text. */
  readonly body?: string;
  /** What the caller of this one call asks for. */
  readonly httpTimeoutMs: number | undefined;
  /** What applies where neither the call nor the client says. */
  readonly defaultHttpTimeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** The statuses whose body is a result. */
  readonly resultStatuses: readonly number[];
  /** Makes the result from the parsed JSON; throws a `DecodeError`. */
  readonly read: (value: unknown) => T;
}

/** An answer, whole. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** Whether sending it twice does no more than sending it once. */
export function isRepeatable(call: Call<unknown>): boolean {
  return call.method === "GET";
}
