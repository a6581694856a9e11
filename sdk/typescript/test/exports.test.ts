// The names that users import: taking one away is a breaking change.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as sdk from "../src/index.js";

test("the package exports exactly these values", () => {
  expect(Object.keys(sdk).sort()).toEqual(
    `APIError ConflictError ConnectFailedError ConnectionLostError ExecuteResult ExecutionTimeoutError FaaSClient
     FaaSError ForbiddenError GoneError ImageUnavailableError Instance InsufficientStorageError InternalError
     InvalidRequestError MethodNotAllowedError NotFoundError OverloadedError PayloadTooLargeError QuotaExceededError
     RangeNotSatisfiableError RateLimitedError RequestTimeoutError ResponseFormatError RuntimeUnavailableError
     SandboxLostError TransportError TransportTimeoutError UnauthorizedError UnsupportedError
     UnsupportedMediaTypeError VERSION`
      .split(/\s+/)
      .sort(),
  );
});

test("the client has these verbs", () => {
  expect(Object.getOwnPropertyNames(sdk.FaaSClient.prototype).sort()).toEqual([
    "capabilities",
    "constructor",
    "execute",
    "health",
    "leaks",
    "stream",
    "version",
  ]);
  const { images } = new sdk.FaaSClient({ baseUrl: "http://127.0.0.1:1" });
  expect(Object.getOwnPropertyNames(Object.getPrototypeOf(images)).sort()).toEqual([
    "constructor",
    "import",
    "list",
    "pull",
    "remove",
  ]);
});

test("instances and the client's member have these verbs", () => {
  const { instances } = new sdk.FaaSClient({ baseUrl: "http://127.0.0.1:1" });
  const changes = ["delete", "exec", "metrics", "pause", "resume", "setTimeout", "start", "stop", "update"];
  expect(Object.getOwnPropertyNames(Object.getPrototypeOf(instances)).sort()).toEqual(
    ["constructor", "create", "get", "list", ...changes].sort(),
  );
  expect(Object.getOwnPropertyNames(sdk.Instance.prototype).sort()).toEqual(
    ["constructor", "id", "info", "name", "refresh", "status", ...changes].sort(),
  );
});

test("the version is that of the package", () => {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  expect(sdk.VERSION).toBe(manifest.version);
});
