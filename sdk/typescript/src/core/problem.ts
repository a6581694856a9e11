// Makes the error from an answer that is not a result.

import { APIError, BY_CODE } from "../errors.js";
import type { ExecuteResult, FieldError } from "../types.js";
import type { Answer } from "./call.js";
import { DecodeError, type Members } from "./decode.js";
import { readExecution } from "./operations/execute.js";

/** How many characters of a foreign body are quoted. */
const EXCERPT = 300;

/**
 * The error for an answer, of the class of its code.
 *
 * Lenient where `decode` is strict: whatever the body, the status and as much as can be read are reported.
 */
export function apiError(answer: Answer): APIError {
  const body = jsonObject(answer.body);
  const code = text(body, "code");
  const Class = BY_CODE.get(code ?? "") ?? APIError;
  return new Class({
    status: answer.status,
    code,
    title: text(body, "title"),
    detail: text(body, "detail") || describeForeign(answer),
    requestId: text(body, "request_id") ?? answer.headers.get("x-request-id"),
    retryable: body.retryable === true,
    errors: fieldErrors(body.errors),
    retryAfterMs: retryAfterMs(answer.headers.get("retry-after")),
    execution: execution(body.execution),
    firstOffset: offset(body.first_offset),
    nextOffset: offset(body.next_offset),
  });
}

/** Whether something with a member `type` that says what it is is an error. */
export function isProblem({ raw }: Members): boolean {
  return raw.type === "error";
}

/** The milliseconds in a `Retry-After` header. Its other form, a date, is not one the gateway sends. */
export function retryAfterMs(header: string | null): number | null {
  return header !== null && /^\d+(\.\d+)?$/.test(header) ? Number(header) * 1000 : null;
}

function jsonObject(body: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch {
    // not JSON: the caller quotes the body as it is
  }
  return {};
}

function text(body: Readonly<Record<string, unknown>>, name: string): string | null {
  const value = body[name];
  return typeof value === "string" ? value : null;
}

function offset(value: unknown): number | null {
  return Number.isInteger(value) ? (value as number) : null;
}

function fieldErrors(value: unknown): FieldError[] {
  if (!Array.isArray(value)) {
    return [];
  }
  return value
    .filter((entry: unknown): entry is Record<string, unknown> => typeof entry === "object" && entry !== null)
    .map((entry) => ({ pointer: text(entry, "pointer") ?? "", message: text(entry, "message") ?? "" }));
}

function execution(value: unknown): ExecuteResult | null {
  if (value === undefined || value === null) {
    return null;
  }
  try {
    return readExecution(value);
  } catch (error) {
    if (error instanceof DecodeError) {
      return null;
    }
    throw error;
  }
}

function describeForeign(answer: Answer): string {
  const kind = answer.headers.get("content-type") ?? "no content type";
  const words = answer.body
    .slice(0, 4 * EXCERPT)
    .replace(/\s+/g, " ")
    .trim();
  return words === ""
    ? `the answer has no body (${kind})`
    : `the answer is not a gateway's (${kind}): ${words.slice(0, EXCERPT)}`;
}
