// Decides whether a failed attempt is followed by another, and after which wait.

import {
  APIError,
  ConnectFailedError,
  ConnectionLostError,
  ExecutionTimeoutError,
  OverloadedError,
  TransportTimeoutError,
} from "../errors.js";
import type { RetryPolicy } from "../options.js";
import { type Call, isKeyed, isRepeatable, isSentOnce } from "./call.js";

/** A policy with every member known. */
export interface Retry {
  readonly maxRetries: number;
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
  readonly maxRetryAfterMs: number;
}

/** Statuses of a proxy or of a gateway that is starting or going; safe to repeat for a GET, or with an idempotency key. */
const GATEWAY_STATUSES: readonly number[] = [502, 503, 504];

/**
 * The policy with its defaults.
 *
 * @throws RangeError where a member is negative or not a number.
 */
export function retryOf(policy: RetryPolicy = {}): Retry {
  const retry: Retry = {
    maxRetries: policy.maxRetries ?? 2,
    initialBackoffMs: policy.initialBackoffMs ?? 200,
    maxBackoffMs: policy.maxBackoffMs ?? 5_000,
    maxRetryAfterMs: policy.maxRetryAfterMs ?? 30_000,
  };
  for (const [name, value] of Object.entries(retry)) {
    if (!(value >= 0)) {
      throw new RangeError(`retry.${name} is ${value}, which is not a number from 0 on`);
    }
  }
  return retry;
}

/**
 * Milliseconds to wait before the next attempt, or null when there is none.
 *
 * @param attempt which attempt failed, from 0.
 * @param fraction a random number from 0 to 1, for the random half of the wait.
 */
export function retryWaitMs(
  retry: Retry,
  call: Call<unknown>,
  error: unknown,
  attempt: number,
  fraction: number,
): number | null {
  if (attempt >= retry.maxRetries || isSentOnce(call) || !mayRepeat(call, error)) {
    return null;
  }
  const asked = error instanceof APIError ? error.retryAfterMs : null;
  if (asked !== null) {
    return asked <= retry.maxRetryAfterMs ? asked : null;
  }
  const backoff = Math.min(retry.initialBackoffMs * 2 ** attempt, retry.maxBackoffMs);
  return backoff / 2 + (backoff / 2) * fraction;
}

/**
 * A stream's silence, whose gateway says something all the time, as the loss of its connection that it is. Not where the
 * caller chose how long it may be.
 */
export function asLost(error: unknown, call: Call<unknown>): unknown {
  if (error instanceof TransportTimeoutError && call.httpTimeoutMs === undefined) {
    return new ConnectionLostError(error.message, error.requestSent, { cause: error });
  }
  return error;
}

function mayRepeat(call: Call<unknown>, error: unknown): boolean {
  if (error instanceof ConnectFailedError || error instanceof OverloadedError) {
    return true;
  }
  if (error instanceof ConnectionLostError) {
    return isRepeatable(call);
  }
  if (error instanceof ExecutionTimeoutError) {
    return false;
  }
  if (error instanceof APIError) {
    // The first attempt, whose answer was lost, is still running there.
    if (error.status === 409) {
      return isKeyed(call) && error.retryable;
    }
    return error.status === 429
      ? error.retryAfterMs !== null
      : isRepeatable(call) && GATEWAY_STATUSES.includes(error.status);
  }
  return false;
}
