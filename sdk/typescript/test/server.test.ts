// What the gateway says of itself.

import { describe, expect } from "vitest";
import { APIError, ResponseFormatError } from "../src/index.js";
import { test } from "./fixture.js";
import { problem, rejection } from "./stub.js";

const YES = { supported: true, detail: "cgroup v1" };
const NO = { supported: false, detail: "no quota here" };
const CAPABILITIES = {
  default_runtime: "native",
  default_image: "host",
  runtimes: {
    native: {
      available: true,
      reason: null,
      features: { network_egress: NO },
      limits: { memory: YES, cpu: YES, pids: YES, disk: NO },
    },
  },
};
const HEALTH = {
  status: "degraded",
  version: "0.1.0",
  uptime_ms: 5,
  runtimes: { docker: { available: false, reason: "no socket", unenforced_limits: ["disk: no quota"] } },
  store: { kind: "postgresql", available: false, reason: "it cannot be reached" },
  docker: false,
  firecracker: false,
};
const VERSION = { version: "0.1.0", api: "1", guest_protocol: 1, guest_agent: "sha256:00" };

test("capabilities", async ({ client, stub }) => {
  stub.replies({ json: CAPABILITIES });
  expect(await client.capabilities()).toEqual({
    defaultRuntime: "native",
    defaultImage: "host",
    runtimes: CAPABILITIES.runtimes,
  });
  expect(stub.seen[0]).toMatchObject({ method: "GET", path: "/api/v1/capabilities", raw: "" });
});

test("health", async ({ client, stub }) => {
  stub.replies({ json: HEALTH });
  expect(await client.health()).toEqual({
    status: "degraded",
    version: "0.1.0",
    uptimeMs: 5,
    runtimes: { docker: { available: false, reason: "no socket", unenforcedLimits: ["disk: no quota"] } },
    store: { kind: "postgresql", available: false, reason: "it cannot be reached" },
    docker: false,
    firecracker: false,
  });
  expect(stub.seen[0]?.path).toBe("/health");
});

test("an unhealthy gateway is a result and a problem is not", async ({ client, stub }) => {
  const headers = { "content-type": "application/json" };
  stub.replies({ status: 503, json: { ...HEALTH, status: "unhealthy" }, headers });
  expect((await client.health()).status).toBe("unhealthy");
  stub.replies({ status: 503, json: problem(503, "overloaded") });
  expect(await rejection(client.health())).toBeInstanceOf(APIError);
});

test("version", async ({ client, stub }) => {
  stub.replies({ json: VERSION });
  expect(await client.version()).toEqual({
    version: "0.1.0",
    api: "1",
    guestProtocol: 1,
    guestAgent: "sha256:00",
  });
  expect(stub.seen[0]?.path).toBe("/version");
});

test("leaks", async ({ client, stub }) => {
  const leak = { runtime: "native", kind: "cgroup", name: "/sys/fs/cgroup/x" };
  stub.replies({ json: [leak] });
  expect(await client.leaks()).toEqual([leak]);
  expect(stub.seen[0]).toMatchObject({ method: "GET", path: "/api/v1/admin/leaks" });
});

test("an option that these calls do not have is refused", async ({ client }) => {
  await expect(client.health({ timeoutMs: 1 } as object)).rejects.toThrow("no option timeoutMs");
});

describe("an answer of another shape is refused with the place", () => {
  const cases: ["health" | "capabilities" | "leaks" | "version", object, string][] = [
    ["health", { ...HEALTH, runtimes: [] }, "/runtimes is an array, not an object"],
    ["health", { ...HEALTH, runtimes: { x: {} } }, "/runtimes/x/available is missing"],
    ["capabilities", { ...CAPABILITIES, default_image: null }, "/default_image is null, not a string"],
    ["leaks", {}, "the body is an object, not an array"],
    ["leaks", [{ runtime: "native", kind: "cgroup" }], "/0/name is missing"],
    ["version", { ...VERSION, guest_protocol: 1.5 }, "/guest_protocol is a number, not a whole number"],
  ];
  test.for(cases)("%s %o", async ([verb, json, words], { client, stub }) => {
    stub.replies({ json });
    const error = await rejection(client[verb]());
    expect(error).toBeInstanceOf(ResponseFormatError);
    expect(error).toMatchObject({ message: expect.stringContaining(words) });
  });
});
