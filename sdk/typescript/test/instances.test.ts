// Instances: what each verb sends, what it makes of the answer, on the client and on the instance itself.

import { describe, expect } from "vitest";
import {
  ConflictError,
  ConnectionLostError,
  type ExecOptions,
  type FaaSClient,
  type Instance,
  NotFoundError,
  QuotaExceededError,
  ResponseFormatError,
  SandboxLostError,
} from "../src/index.js";
import { test } from "./fixture.js";
import { execution, instance, problem, rejection } from "./stub.js";

type Change = "stop" | "start" | "pause" | "resume" | "setTimeout" | "update";

/** Each verb that changes an instance: its options, and the method, the rest of the path and the body that it sends. */
const CHANGES: [Change, object | undefined, string, string, object][] = [
  ["stop", undefined, "POST", "/stop", {}],
  ["stop", { graceMs: 0 }, "POST", "/stop", { grace_ms: 0 }],
  ["start", undefined, "POST", "/start", {}],
  ["pause", undefined, "POST", "/pause", {}],
  ["resume", undefined, "POST", "/resume", {}],
  ["setTimeout", { ttlMs: 5 }, "POST", "/timeout", { ttl_ms: 5 }],
  ["setTimeout", { ttlMs: null }, "POST", "/timeout", { ttl_ms: null }],
  ["setTimeout", { idleTimeoutMs: null, ttlMs: undefined }, "POST", "/timeout", { idle_timeout_ms: null }],
  ["setTimeout", {}, "POST", "/timeout", {}],
  ["update", { memoryMb: 64 }, "PATCH", "", { memory_mb: 64 }],
  ["update", { cpuCores: 0.25, pidsLimit: 9 }, "PATCH", "", { cpu_cores: 0.25, pids_limit: 9 }],
];

/** A verb by its name. */
function verb(of: object, name: string): (...given: unknown[]) => Promise<Instance> {
  const verbs = of as Record<string, (...given: unknown[]) => Promise<Instance>>;
  return async (...given) => verbs[name]?.apply(of, given) as Promise<Instance>;
}

test("create sends what is given and nothing else", async ({ client, stub }) => {
  stub.replies({ status: 201, json: instance() });
  const created = await client.instances.create({ image: "host" });
  expect(stub.seen[0]).toMatchObject({ method: "POST", path: "/api/v1/instances", json: { image: "host" } });
  expect([created.id, created.name, created.status]).toEqual(["ins-1", null, "running"]);
  await client.instances.create();
  expect(stub.seen[1]?.json).toEqual({});
});

test("every option of create reaches its member", async ({ client, stub }) => {
  stub.replies({ status: 201, json: instance() });
  await client.instances.create({
    image: "alpine",
    name: "mine",
    runtime: "docker",
    envVars: { A: "1" },
    workingDir: "/srv",
    user: "nobody",
    files: [{ path: "/a", content: new Uint8Array([255]), mode: 0o700 }],
    memoryMb: 64,
    cpuCores: 0.5,
    pidsLimit: 32,
    diskMb: 16,
    network: "egress",
    ttlMs: 1000,
    idleTimeoutMs: 500,
    onTimeout: "pause",
    autoResume: true,
    command: ["serve", "-p", "80"],
    main: true,
    restart: "on_failure",
    labels: { job: "7" },
    idempotencyKey: "k-1",
    httpTimeoutMs: 5000,
  });
  expect(stub.seen[0]?.headers["idempotency-key"]).toBe("k-1");
  expect(stub.seen[0]?.json).toEqual({
    image: "alpine",
    name: "mine",
    runtime: "docker",
    env_vars: { A: "1" },
    working_dir: "/srv",
    user: "nobody",
    files: [{ path: "/a", content_base64: "/w==", mode: "0700" }],
    memory_mb: 64,
    cpu_cores: 0.5,
    pids_limit: 32,
    disk_mb: 16,
    network: "egress",
    ttl_ms: 1000,
    idle_timeout_ms: 500,
    on_timeout: "pause",
    auto_resume: true,
    command: ["serve", "-p", "80"],
    main: true,
    restart: "on_failure",
    labels: { job: "7" },
  });
});

test("every member of an instance is read", async ({ client, stub }) => {
  stub.replies({ json: instance({ name: "mine", status_reason: "out of memory", disk_mb: 8, ttl_ms: 1, newer: 1 }) });
  const { info } = await client.instances.get("ins-1");
  expect(stub.seen[0]).toMatchObject({ method: "GET", path: "/api/v1/instances/ins-1" });
  expect(info).toEqual({
    id: "ins-1",
    name: "mine",
    image: "host",
    runtime: "native",
    status: "running",
    statusReason: "out of memory",
    createdAt: "2026-01-02T03:04:05.678Z",
    cpuCores: 0.5,
    memoryMb: 128,
    pidsLimit: 64,
    diskMb: 8,
    network: "none",
    main: null,
    labels: {},
    parentId: null,
    snapshotId: null,
    ttlMs: 1,
    idleTimeoutMs: null,
    expiresAt: null,
    onTimeout: "delete",
    autoResume: false,
  });
});

describe("a change is one request, and its answer the instance as it is then", () => {
  test.for(CHANGES)("%s %o", async ([name, options, method, rest, body], { client, stub }) => {
    stub.replies({ json: instance({ status: "stopped" }) });
    const told = await verb(client.instances, name)("ins-1", ...(options === undefined ? [] : [options]));
    expect(told.status).toBe("stopped");
    stub.replies({ json: instance() }, { json: instance({ status: "stopped" }) });
    const found = await client.instances.get("ins-1");
    expect(await verb(found, name)(...(options === undefined ? [] : [options]))).toBe(found);
    expect(found.status).toBe("stopped");
    for (const seen of [stub.seen[0], stub.seen[2]]) {
      expect(seen).toMatchObject({ method, path: `/api/v1/instances/ins-1${rest}` });
      expect(seen?.json).toEqual(body);
    }
  });
});

test("an instance can be asked for once more", async ({ client, stub }) => {
  stub.replies({ json: instance() }, { json: instance({ status: "paused" }) });
  const found = await client.instances.get("ins-1");
  expect(await found.refresh()).toBe(found);
  expect(found.status).toBe("paused");
});

test("exec sends the command with its options and gives what execute gives", async ({ client, stub }) => {
  stub.replies({ json: execution({ exit_code: 3 }) });
  expect((await client.instances.exec("ins-1", "exit 3")).exitCode).toBe(3);
  expect(stub.seen[0]).toMatchObject({ method: "POST", path: "/api/v1/instances/ins-1/exec" });
  expect(stub.seen[0]?.json).toEqual({ command: "exit 3" });
  stub.replies({ json: instance() }, { json: execution() });
  const found = await client.instances.get("ins-1");
  const options: ExecOptions = {
    envVars: { A: "1" },
    workingDir: "/srv",
    user: "1:1",
    stdin: new Uint8Array([0]),
    files: { a: "b" },
    secrets: { token: "s3cret" },
    timeoutMs: 1000,
    maxOutputBytes: 4096,
    labels: { job: "7" },
    requestId: "my-id",
    idempotencyKey: "k-1",
  };
  await found.exec(["cat"], options);
  expect(stub.seen[2]?.json).toEqual({
    command: ["cat"],
    env_vars: { A: "1" },
    working_dir: "/srv",
    user: "1:1",
    stdin_base64: "AA==",
    files: [{ path: "a", content: "b" }],
    secrets: { token: "s3cret" },
    timeout_ms: 1000,
    max_output_bytes: 4096,
    labels: { job: "7" },
  });
  expect(stub.seen[2]?.headers).toMatchObject({ "x-request-id": "my-id", "idempotency-key": "k-1" });
});

test("delete has no result", async ({ client, stub }) => {
  for (const status of [202, 204]) {
    stub.replies({ status });
    expect(await client.instances.delete("ins-1")).toBeUndefined();
  }
  expect(stub.seen[0]).toMatchObject({ method: "DELETE", path: "/api/v1/instances/ins-1", raw: "" });
});

test("a deletion is sent again where the connection breaks, and nothing else without a key", async ({
  client,
  stub,
}) => {
  stub.replies({ cutAfter: -1 }, { status: 204 });
  await client.instances.delete("ins-1");
  expect(stub.seen.length).toBe(2);
  const calls: ((client: FaaSClient) => Promise<unknown>)[] = [
    ({ instances }) => instances.create(),
    ({ instances }) => instances.stop("ins-1"),
    ({ instances }) => instances.exec("ins-1", "true"),
  ];
  for (const call of calls) {
    stub.seen.length = 0;
    stub.replies({ cutAfter: -1 });
    expect(await rejection(call(client))).toBeInstanceOf(ConnectionLostError);
    expect(stub.seen.length).toBe(1);
  }
  stub.replies({ cutAfter: -1 }, { status: 201, json: instance() });
  expect((await client.instances.create({ idempotencyKey: "k-1" })).id).toBe("ins-1");
});

test("metrics", async ({ client, stub }) => {
  stub.replies({
    json: { instance_id: "ins-1", status: "stopped", cpu_us: 1, memory_limit_bytes: 4, pids_limit: 6, pids: null },
  });
  expect(await client.instances.metrics("ins-1")).toEqual({
    instanceId: "ins-1",
    status: "stopped",
    cpuUs: 1,
    memoryBytes: null,
    memoryPeakBytes: null,
    memoryLimitBytes: 4,
    pids: null,
    pidsLimit: 6,
    diskBytes: null,
    networkReceivedBytes: null,
    networkSentBytes: null,
  });
  expect(stub.seen[0]?.path).toBe("/api/v1/instances/ins-1/metrics");
});

test("a list of several pages is one list, asked for by status and labels", async ({ client, stub }) => {
  stub.replies(
    { json: [instance({ id: "ins-1" })], headers: { "x-next-cursor": "1f-ins-1" } },
    { json: [instance({ id: "ins-2" }), instance({ id: "ins-3" })] },
  );
  const found = await client.instances.list({ status: ["running", "paused"], labels: { a: "b c", d: "e=f" } });
  expect(found.map(({ id }) => id)).toEqual(["ins-1", "ins-2", "ins-3"]);
  const asked = "status=running%2Cpaused&label=a%3Db+c%2Cd%3De%3Df";
  expect(stub.seen.map(({ path }) => path.split("?")[1])).toEqual([asked, `${asked}&cursor=1f-ins-1`]);
  await client.instances.list({ status: "failed", labels: {}, limit: 3 });
  expect(stub.seen[2]?.path.split("?")[1]).toBe("status=failed&limit=3");
});

test("what would divide a label of a filter is part of it", async ({ client, stub }) => {
  for (const [labels, sent] of [
    [{ "a,b": "c" }, "a\\,b=c"],
    [{ a: "b,c" }, "a=b\\,c"],
    [{ "a=b": "c=d" }, "a\\=b=c=d"],
    [{ "\\": "\\," }, "\\\\=\\\\\\,"],
  ] as const) {
    stub.replies({ json: [] });
    await client.instances.list({ labels });
    expect(new URLSearchParams(stub.seen.at(-1)?.path.split("?")[1]).getAll("label")).toEqual([sent]);
  }
});

test("what cannot be asked for is refused before anything is sent", async ({ client, stub }) => {
  for (const id of ["", ".", ".."]) {
    await expect(client.instances.get(id)).rejects.toThrow("which is no id");
  }
  await expect(client.instances.get(7 as never)).rejects.toThrow("id is a string, not number");
  await expect(client.instances.create({ imgae: "host" } as object)).rejects.toThrow("no option imgae");
  await expect(client.instances.exec("ins-1", "x", { memoryMb: 1 } as object)).rejects.toThrow("no option memoryMb");
  await expect(client.instances.update("ins-1", { cpuCores: Number.NaN })).rejects.toThrow(RangeError);
  expect(stub.seen).toEqual([]);
  stub.replies({ json: instance() });
  await client.instances.pause("a/../b?c#d e");
  expect(stub.seen[0]?.path).toBe("/api/v1/instances/a%2F..%2Fb%3Fc%23d%20e/pause");
});

describe("a refusal has its class", () => {
  const cases: [number, string, new (...given: never[]) => Error][] = [
    [404, "not_found", NotFoundError],
    [409, "conflict", ConflictError],
    [429, "quota_exceeded", QuotaExceededError],
    [502, "sandbox_lost", SandboxLostError],
  ];
  test.for(cases)("%i %s", async ([status, code, kind], { client, stub }) => {
    stub.replies({ status, json: problem(status, code) });
    expect(await rejection(client.instances.exec("ins-1", "true"))).toBeInstanceOf(kind);
    expect(stub.seen.length).toBe(1);
  });
});

describe("an instance that is not the contract's is refused with the place", () => {
  const cases: [unknown, string][] = [
    [[], "the body is an array, not an object"],
    [instance({ id: 1 }), "/id is a number, not a string"],
    [instance({ cpu_cores: "1" }), "/cpu_cores is a string, not a number"],
    [instance({ labels: { a: 1 } }), "/labels/a is a number, not a string"],
  ];
  test.for(cases)("%o", async ([json, words], { client, stub }) => {
    stub.replies({ json });
    const error = await rejection(client.instances.get("ins-1"));
    expect(error).toBeInstanceOf(ResponseFormatError);
    expect(error).toMatchObject({ message: expect.stringContaining(words) });
  });
});

test("an instance is deleted at the end of its block", async ({ client, stub }) => {
  stub.replies({ status: 201, json: instance() }, { json: execution() }, { status: 204 });
  {
    await using created = await client.instances.create();
    await created.exec("true");
  }
  expect(stub.seen[2]).toMatchObject({ method: "DELETE", path: "/api/v1/instances/ins-1" });
});
