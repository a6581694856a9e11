// One request to the gateway and the answer to it, as values.

import type { ImageProgress } from "../types.js";

/** A body that is not JSON. */
export interface Upload {
  /** How long it is, where that is known. */
  readonly sizeBytes: number | undefined;
  /** Whether it cannot be read a second time. */
  readonly once: boolean;
  /** Begins to read it, for one attempt. */
  readonly read: () => Reading;
}

/** One pass over an upload. */
export interface Reading {
  /** What to give to fetch. */
  readonly body: Uint8Array | ReadableStream<Uint8Array>;
  /** Why it could not be read to its end, or undefined. */
  readonly failure: () => unknown;
  /** Closes what was opened for it. */
  readonly close: () => Promise<void>;
}

/** A request, and how to read the answer to it. */
export interface Call<T> {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Beneath the base URL, with a leading slash. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON text, or something else whose content type is among the headers. */
  readonly body?: string | Upload;
  /** Is told of the steps in an answer of events, which the headers have to ask for; the last event is the answer. */
  readonly onProgress?: ((step: ImageProgress) => void) | undefined;
  /** What the caller of this one call asks for. */
  readonly httpTimeoutMs: number | undefined;
  /** What applies where neither the call nor the client says. */
  readonly defaultHttpTimeoutMs: number;
  /** What applies where the client says less, but not where the call does. */
  readonly leastHttpTimeoutMs?: number;
  readonly signal: AbortSignal | undefined;
  /** The statuses whose body is a result. */
  readonly resultStatuses: readonly number[];
  /** Whether it does nothing and is no error when it has been done before. */
  readonly idempotent?: boolean;
  /** Whether the body of a result is bytes: `read` is given them then. */
  readonly raw?: boolean;
  /** Makes the result from the parsed JSON (null where the answer is 204, or 202 without a body); throws a `DecodeError`. */
  readonly read: (value: unknown, headers: Headers) => T;
}

/** An answer, whole. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** Whether sending it twice does no more than sending it once. */
export function isRepeatable(call: Call<unknown>): boolean {
  return call.method === "GET" || call.idempotent === true || isKeyed(call);
}

/** The header of an idempotency key. */
export const IDEMPOTENCY_KEY = "idempotency-key";

/** Whether it has an idempotency key: the gateway then does it once, however often it is sent. */
export function isKeyed(call: Call<unknown>): boolean {
  return IDEMPOTENCY_KEY in call.headers;
}

/** Whether there is no second attempt, whatever the first one came to: its body is gone. */
export function isSentOnce(call: Call<unknown>): boolean {
  return typeof call.body === "object" && call.body.once;
}
