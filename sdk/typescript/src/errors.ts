// Everything that a call can throw, as one tree:
//
//   FaaSError
//     TransportError              no answer came; `requestSent` tells whether the command may have run
//       ConnectFailedError        the gateway could not be reached; nothing was sent
//       ConnectionLostError       the connection broke before the whole answer was there
//       TransportTimeoutError     no answer within the HTTP timeout
//     ResponseFormatError         an answer came that is not the gateway's
//     APIError                    the gateway refused or failed; one subclass for each `code`
//
// A command that exits with another code than 0 throws nothing: that is a result.

import type { ExecuteResult, FieldError } from "./types.js";

/** The root of all errors of this package. */
export class FaaSError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No answer came. */
export class TransportError extends FaaSError {
  /** Whether the request may have reached the gateway, so that the command may have run. */
  readonly requestSent: boolean;

  constructor(message: string, requestSent: boolean, options?: ErrorOptions) {
    super(message, options);
    this.requestSent = requestSent;
  }
}

/** The gateway could not be reached; nothing was sent. */
export class ConnectFailedError extends TransportError {}

/** The connection broke before the whole answer was there. The command may have run. */
export class ConnectionLostError extends TransportError {}

/** No answer within the HTTP timeout. The command may have run. */
export class TransportTimeoutError extends TransportError {}

/** An answer came that is not the gateway's: another program listens there, or a proxy stands between. */
export class ResponseFormatError extends FaaSError {
  /** The HTTP status of that answer. */
  readonly status: number;

  constructor(message: string, status: number, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

/** The gateway's error answer (`application/problem+json`, RFC 9457), read. */
export interface Problem {
  readonly status: number;
  readonly code: string | null;
  readonly title: string | null;
  readonly detail: string;
  readonly requestId: string | null;
  readonly retryable: boolean;
  readonly errors: readonly FieldError[];
  readonly retryAfterMs: number | null;
  readonly execution: ExecuteResult | null;
  readonly firstOffset: number | null;
  readonly nextOffset: number | null;
}

/** The gateway answered with an error. */
export class APIError extends FaaSError {
  /** The HTTP status. */
  readonly status: number;
  /** What a program decides by; null where the answer did not come from the gateway (a proxy's error page). */
  readonly code: string | null;
  /** The code in words, or null. */
  readonly title: string | null;
  /** What happened this time and what to do about it. */
  readonly detail: string;
  /** The id of the request, as in the gateway's log, or null. */
  readonly requestId: string | null;
  /** Whether the gateway says that the same request may succeed later without a change. */
  readonly retryable: boolean;
  /** The members of the request that are not valid. */
  readonly errors: readonly FieldError[];
  /** How many milliseconds the gateway asks to wait, or null. */
  readonly retryAfterMs: number | null;

  constructor(problem: Problem) {
    super(describe(problem));
    this.status = problem.status;
    this.code = problem.code;
    this.title = problem.title;
    this.detail = problem.detail;
    this.requestId = problem.requestId;
    this.retryable = problem.retryable;
    this.errors = problem.errors;
    this.retryAfterMs = problem.retryAfterMs;
  }
}

function describe(problem: Problem): string {
  // With one field alone the detail is its message.
  const further = problem.errors.filter((error) => !problem.detail.includes(error.message));
  const fields = further.map((error) => `; ${error.pointer || "body"}: ${error.message}`).join("");
  const request = problem.requestId === null ? "" : ` [request ${problem.requestId}]`;
  return `${problem.code ?? "no code"} (${problem.status}): ${problem.detail}${fields}${request}`;
}

/** `invalid_request`: the request cannot be parsed (400), or is parsed and not valid (422). */
export class InvalidRequestError extends APIError {}

/** `unauthorized`: no valid credentials. */
export class UnauthorizedError extends APIError {}

/** `forbidden`: valid credentials that do not allow this. */
export class ForbiddenError extends APIError {}

/** `not_found`: no such route or resource. */
export class NotFoundError extends APIError {}

/** `method_not_allowed`: the route exists, not with this method. */
export class MethodNotAllowedError extends APIError {}

/** `request_timeout`: the request arrived too slowly. */
export class RequestTimeoutError extends APIError {}

/** `conflict`: the resource's state does not allow this. */
export class ConflictError extends APIError {}

/** `gone`: what was asked for is no longer held. */
export class GoneError extends APIError {
  /** The first offset of output that is still held, or the first event; null where the gateway did not say. */
  readonly firstOffset: number | null;

  constructor(problem: Problem) {
    super(problem);
    this.firstOffset = problem.firstOffset;
  }
}

/** `payload_too_large`: the body is larger than the gateway takes. */
export class PayloadTooLargeError extends APIError {}

/** `unsupported_media_type`: the content type is not one the route takes. */
export class UnsupportedMediaTypeError extends APIError {}

/** `range_not_satisfiable`: the range asked for lies outside the content. */
export class RangeNotSatisfiableError extends APIError {
  /** The offset after the last byte of output, where output was asked for; null where the gateway did not say. */
  readonly nextOffset: number | null;

  constructor(problem: Problem) {
    super(problem);
    this.nextOffset = problem.nextOffset;
  }
}

/** `rate_limited`: too many requests in too short a time. */
export class RateLimitedError extends APIError {}

/** `quota_exceeded`: a quota is used up. */
export class QuotaExceededError extends APIError {}

/** `runtime_unavailable`: the runtime asked for cannot be used on the gateway's host. */
export class RuntimeUnavailableError extends APIError {}

/** `unsupported`: this gateway, or the runtime asked for, does not do this. */
export class UnsupportedError extends APIError {}

/** `overloaded`: more work than the gateway takes at once. Nothing was run. */
export class OverloadedError extends APIError {}

/** `image_unavailable`: the image cannot be had. */
export class ImageUnavailableError extends APIError {}

/** `sandbox_lost`: the sandbox died under the execution. */
export class SandboxLostError extends APIError {}

/** `insufficient_storage`: the gateway's host has no room left. */
export class InsufficientStorageError extends APIError {}

/** `internal`: a fault of the gateway. */
export class InternalError extends APIError {}

/** `execution_timeout`: the command was still running at its timeout and was killed. */
export class ExecutionTimeoutError extends APIError {
  /** What it had done until then, output included, or null where the gateway did not say. */
  readonly execution: ExecuteResult | null;

  constructor(problem: Problem) {
    super(problem);
    this.execution = problem.execution;
  }
}

/** The class for each code of the contract. A code that is not here is thrown as {@link APIError} itself. */
export const BY_CODE: ReadonlyMap<string, new (problem: Problem) => APIError> = new Map([
  ["invalid_request", InvalidRequestError],
  ["unauthorized", UnauthorizedError],
  ["forbidden", ForbiddenError],
  ["not_found", NotFoundError],
  ["method_not_allowed", MethodNotAllowedError],
  ["request_timeout", RequestTimeoutError],
  ["conflict", ConflictError],
  ["gone", GoneError],
  ["payload_too_large", PayloadTooLargeError],
  ["unsupported_media_type", UnsupportedMediaTypeError],
  ["range_not_satisfiable", RangeNotSatisfiableError],
  ["rate_limited", RateLimitedError],
  ["quota_exceeded", QuotaExceededError],
  ["runtime_unavailable", RuntimeUnavailableError],
  ["unsupported", UnsupportedError],
  ["overloaded", OverloadedError],
  ["image_unavailable", ImageUnavailableError],
  ["sandbox_lost", SandboxLostError],
  ["insufficient_storage", InsufficientStorageError],
  ["execution_timeout", ExecutionTimeoutError],
  ["internal", InternalError],
]);
