// Makes this package's errors from what fetch rejects with.

import { ConnectFailedError, ConnectionLostError, type TransportError } from "../errors.js";

/** System calls before which nothing of a request can have been sent. */
const CONNECTING: readonly unknown[] = ["connect", "getaddrinfo"];

/**
 * The error to throw for a rejection of fetch.
 *
 * Whether the request was sent is said on the safe side: false only where no connection was made at all.
 */
export function transportError(error: unknown, url: string): TransportError {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  const reason = describe(cause);
  return wasConnecting(cause)
    ? new ConnectFailedError(`cannot connect to ${url}: ${reason}`, false, { cause: error })
    : new ConnectionLostError(`the connection to ${url} broke before the answer was whole: ${reason}`, true, {
        cause: error,
      });
}

function wasConnecting(cause: unknown): boolean {
  if (cause instanceof AggregateError) {
    return cause.errors.length > 0 && cause.errors.every(wasConnecting);
  }
  return CONNECTING.includes(member(cause, "syscall")) || member(cause, "code") === "UND_ERR_CONNECT_TIMEOUT";
}

function describe(cause: unknown): string {
  if (cause instanceof AggregateError && cause.message === "") {
    return cause.errors.map(describe).join(", ");
  }
  return cause instanceof Error ? cause.message || cause.name : String(cause);
}

function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
