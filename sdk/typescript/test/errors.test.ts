// Every error of the contract becomes an error of its class; errors of others are not hidden either.

import { describe, expect } from "vitest";
import { BY_CODE } from "../src/errors.js";
import * as sdk from "../src/index.js";

import { test } from "./fixture.js";
import { execution, problem, rejection } from "./stub.js";

/** Every export by name. */
const EXPORTS = new Map<string, unknown>(Object.entries(sdk));

const CODES: [number, string, string][] = [
  [400, "invalid_request", "InvalidRequestError"],
  [422, "invalid_request", "InvalidRequestError"],
  [401, "unauthorized", "UnauthorizedError"],
  [403, "forbidden", "ForbiddenError"],
  [404, "not_found", "NotFoundError"],
  [405, "method_not_allowed", "MethodNotAllowedError"],
  [408, "request_timeout", "RequestTimeoutError"],
  [409, "conflict", "ConflictError"],
  [410, "gone", "GoneError"],
  [413, "payload_too_large", "PayloadTooLargeError"],
  [415, "unsupported_media_type", "UnsupportedMediaTypeError"],
  [416, "range_not_satisfiable", "RangeNotSatisfiableError"],
  [429, "rate_limited", "RateLimitedError"],
  [429, "quota_exceeded", "QuotaExceededError"],
  [501, "runtime_unavailable", "RuntimeUnavailableError"],
  [501, "unsupported", "UnsupportedError"],
  [503, "overloaded", "OverloadedError"],
  [502, "image_unavailable", "ImageUnavailableError"],
  [502, "sandbox_lost", "SandboxLostError"],
  [507, "insufficient_storage", "InsufficientStorageError"],
  [504, "execution_timeout", "ExecutionTimeoutError"],
  [500, "internal", "InternalError"],
];

describe("each code has its class", () => {
  test.for(CODES)("%i %s", async ([status, code, name], { client, stub }) => {
    stub.replies({ status, json: problem(status, code, { retryable: true }) });
    const error = await rejection(client.execute("x"));
    expect(error).toBeInstanceOf(EXPORTS.get(name));
    expect(error).toBeInstanceOf(sdk.APIError);
    expect(error).toMatchObject({
      name,
      status,
      code,
      title: code.replaceAll("_", " "),
      detail: `this is ${code}`,
      requestId: "req-9",
      retryable: true,
      message: `${code} (${status}): this is ${code} [request req-9]`,
    });
  });
});

test("a field's message is said once", async ({ client, stub }) => {
  const errors = [
    { pointer: "/image", message: "this is invalid_request" },
    { pointer: "", message: "and more" },
  ];
  stub.replies({ status: 422, json: problem(422, "invalid_request", { errors }) });
  const error = await rejection(client.execute("x"));
  expect(error).toMatchObject({
    message: "invalid_request (422): this is invalid_request; body: and more [request req-9]",
  });
});

test("the table of classes is whole", () => {
  expect(new Set(BY_CODE.keys())).toEqual(new Set(CODES.map(([, code]) => code)));
});

test("the members that are not valid are named", async ({ client, stub }) => {
  const errors = [{ pointer: "/memory_mb", message: "must be at least 1" }];
  stub.replies({ status: 422, json: problem(422, "invalid_request", { errors }) });
  const error = await rejection(client.execute("x", { memoryMb: 0 }));
  expect(error).toMatchObject({ errors, message: expect.stringContaining("/memory_mb: must be at least 1") });
});

test("a timeout carries the execution so far", async ({ client, stub }) => {
  const so_far = execution({ stdout: "half", exit_code: 137, signal: "SIGKILL" });
  stub.replies({ status: 504, json: problem(504, "execution_timeout", { execution: so_far }) });
  const error = (await rejection(client.execute("x", { timeoutMs: 1 }))) as sdk.ExecutionTimeoutError;
  expect(error.execution?.stdout).toBe("half");
});

test("a timeout without a readable execution is still a timeout", async ({ client, stub }) => {
  stub.replies({ status: 504, json: problem(504, "execution_timeout", { execution: { stdout: 3 } }) });
  const error = (await rejection(client.execute("x"))) as sdk.ExecutionTimeoutError;
  expect(error).toBeInstanceOf(sdk.ExecutionTimeoutError);
  expect(error.execution).toBeNull();
});

test("a code of a newer gateway is an APIError", async ({ client, stub }) => {
  stub.replies({ status: 418, json: problem(418, "teapot") });
  expect(await rejection(client.execute("x"))).toMatchObject({ name: "APIError", code: "teapot" });
});

describe("an error of a proxy is told with status and an excerpt", () => {
  const cases: [number, string | Uint8Array, string, string][] = [
    [502, "<html>\n<h1>502 Bad Gateway</h1>\n</html>", "text/html", "502 Bad Gateway"],
    [502, "", "text/html", "the answer has no body (text/html)"],
    [500, new Uint8Array([255, 254, 110, 111]), "application/octet-stream", "no"],
    [500, "[1, 2]", "application/json", "[1, 2]"],
    [500, '{"code": 7, "errors": "x", "execution": []}', "application/json", '"code": 7'],
    [404, "[".repeat(100_000), "application/json", "[[["],
  ];
  test.for(cases)("%i %s", async ([status, body, kind, words], { client, stub }) => {
    stub.replies({ status, body, headers: { "content-type": kind } });
    const error = (await rejection(client.execute("x"))) as sdk.APIError;
    expect(error).toMatchObject({ name: "APIError", status, code: null, requestId: "req-h" });
    expect(error.detail).toContain(words);
    expect(error.detail.length).toBeLessThan(500);
  });
});

test("a problem with status 200 is no result", async ({ client, stub }) => {
  stub.replies({ json: problem(500, "internal"), headers: { "content-type": "application/problem+json" } });
  await expect(client.execute("x")).rejects.toThrow("internal");
});
