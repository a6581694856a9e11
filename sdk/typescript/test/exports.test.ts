// The names that users import: taking one away is a breaking change.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as sdk from "../src/index.js";

test("the package exports exactly these values", () => {
  expect(Object.keys(sdk).sort()).toEqual(
    `APIError ConflictError ConnectFailedError ConnectionLostError ExecuteResult Execution ExecutionTimeoutError FaaSClient
     FaaSError ForbiddenError GoneError ImageUnavailableError Instance InsufficientStorageError InternalError
     InvalidRequestError MethodNotAllowedError NotFoundError OverloadedError PayloadTooLargeError QuotaExceededError
     RangeNotSatisfiableError RateLimitedError RequestTimeoutError ResponseFormatError RuntimeUnavailableError
     SandboxLostError Terminal TransportError TransportTimeoutError UnauthorizedError UnsupportedError
     UnsupportedMediaTypeError VERSION`
      .split(/\s+/)
      .sort(),
  );
});

test("the client has these verbs", () => {
  expect(Object.getOwnPropertyNames(sdk.FaaSClient.prototype).sort()).toEqual([
    "capabilities",
    "constructor",
    "events",
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

/** The verbs of an object, or of what a class makes. */
function verbs(of: object): string[] {
  return Object.getOwnPropertyNames(of)
    .filter((name) => name !== "constructor")
    .sort();
}

test("instances, executions, files and terminals have these verbs", () => {
  const { instances, executions } = new sdk.FaaSClient({ baseUrl: "http://127.0.0.1:1" });
  const changes = `delete exec executions logs metrics pause pty resume setTimeout start stop stream update`.split(" ");
  expect(verbs(Object.getPrototypeOf(instances))).toEqual(["create", "files", "get", "list", ...changes].sort());
  expect(verbs(sdk.Instance.prototype)).toEqual(["id", "info", "main", "name", "refresh", "status", ...changes].sort());
  const shared = ["cancel", "input", "signal", "stream"];
  expect(verbs(Object.getPrototypeOf(executions))).toEqual(["get", ...shared].sort());
  expect(verbs(sdk.Execution.prototype)).toEqual(
    ["exitCode", "id", "info", "output", "refresh", "status", "wait", ...shared].sort(),
  );
  expect(verbs(Object.getPrototypeOf(instances.files("ins-1")))).toEqual(
    `downloadTar list mkdir move open read readText remove stat uploadTar watch write writeStream`.split(" "),
  );
  expect(verbs(sdk.Terminal.prototype)).toEqual(
    ["close", "end", "executionId", "gaps", "offset", "read", "reattach", "resize", "write"].sort(),
  );
});

test("the version is that of the package", () => {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  expect(sdk.VERSION).toBe(manifest.version);
});
