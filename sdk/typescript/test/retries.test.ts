// What is tried again and what never is: a command that may have run is sent once.

import { createServer } from "node:net";
import { describe, expect, vi } from "vitest";
import { execute } from "../src/core/operations/execute.js";
import { version } from "../src/core/operations/server.js";
import { retryAfterMs } from "../src/core/problem.js";
import { retryOf, retryWaitMs } from "../src/core/retry.js";
import {
  ConnectFailedError,
  ConnectionLostError,
  FaaSClient,
  FaaSError,
  OverloadedError,
  RateLimitedError,
  type TransportError,
  TransportTimeoutError,
} from "../src/index.js";
import { transportError } from "../src/transport/failure.js";
import { QUICK, test } from "./fixture.js";
import { execution, problem, type Reply, rejection, StubGateway } from "./stub.js";

const HEALTH = {
  status: "healthy",
  version: "1",
  uptime_ms: 1,
  runtimes: {},
  store: { kind: "sqlite", available: true, reason: null },
  docker: false,
  firecracker: false,
};
const RUNNING: Reply = { status: 409, json: problem(409, "conflict", { retryable: true }) };
const NEVER = new Promise<void>(() => {});

function overloaded(headers: Record<string, string> = {}): Reply {
  return { status: 503, json: problem(503, "overloaded", { retryable: true }), headers };
}

async function freePort(): Promise<number> {
  const stub = await StubGateway.start();
  const { port } = stub;
  await stub.stop();
  return port;
}

test("a refusal to start is tried again", async ({ client, stub }) => {
  stub.replies(overloaded(), overloaded(), { json: execution() });
  expect((await client.execute("x")).ok).toBe(true);
  expect(stub.seen.map((seen) => seen.raw)).toEqual(Array(3).fill('{"command":"x"}'));
});

test("retries are bounded", async ({ client, stub }) => {
  stub.replies(overloaded());
  await expect(client.execute("x")).rejects.toBeInstanceOf(OverloadedError);
  expect(stub.seen).toHaveLength(3);
});

test("retries can be switched off", async ({ stub }) => {
  stub.replies(overloaded());
  const client = new FaaSClient({ baseUrl: stub.url, retry: { maxRetries: 0 } });
  await expect(client.execute("x")).rejects.toBeInstanceOf(OverloadedError);
  expect(stub.seen).toHaveLength(1);
});

test("a rate limit is tried again only with a named wait", async ({ client, stub }) => {
  const limited = { status: 429, json: problem(429, "rate_limited") };
  stub.replies(limited);
  await expect(client.execute("x")).rejects.toBeInstanceOf(RateLimitedError);
  expect(stub.seen).toHaveLength(1);
  stub.replies({ ...limited, headers: { "retry-after": "0" } }, { json: execution() });
  expect((await client.execute("x")).ok).toBe(true);
});

test("a longer wait than allowed is thrown with the wait", async ({ client, stub }) => {
  stub.replies(overloaded({ "retry-after": "3600" }));
  expect(await rejection(client.execute("x"))).toMatchObject({ code: "overloaded", retryAfterMs: 3_600_000 });
  expect(stub.seen).toHaveLength(1);
});

describe("with an idempotency key an execution is sent again", () => {
  const cases: [string, Reply][] = [
    ["no answer", { cutAfter: -1 }],
    ["half an answer", { json: execution(), cutAfter: 10 }],
    ["sandbox_lost", { status: 502, json: problem(502, "sandbox_lost", { retryable: true }) }],
    ["proxy 504", { status: 504, body: "", headers: { "content-type": "text/html" } }],
    ["the first still runs", RUNNING],
  ];
  for (const [name, reply] of cases) {
    test(name, async ({ client, stub }) => {
      stub.replies(reply, reply, { json: execution() });
      expect((await client.execute("x", { idempotencyKey: "k-1" })).ok).toBe(true);
      expect(stub.seen.map((seen) => seen.headers["idempotency-key"])).toEqual(["k-1", "k-1", "k-1"]);
    });
  }
});

describe("with an idempotency key what is final is not sent again", () => {
  const cases: [string, Reply][] = [
    ["timeout", { status: 504, json: problem(504, "execution_timeout", { execution: execution() }) }],
    ["interrupted", { status: 409, json: problem(409, "conflict", { retryable: false }) }],
    ["used for another", { status: 422, json: problem(422, "invalid_request") }],
    ["internal", { status: 500, json: problem(500, "internal", { retryable: true }) }],
  ];
  for (const [name, reply] of cases) {
    test(name, async ({ client, stub }) => {
      stub.replies(reply);
      expect(await rejection(client.execute("x", { idempotencyKey: "k-1" }))).toBeInstanceOf(FaaSError);
      expect(stub.seen).toHaveLength(1);
    });
  }
});

test("without an idempotency key a conflict is not tried again", async ({ client, stub }) => {
  stub.replies(RUNNING);
  expect(await rejection(client.execute("x"))).toBeInstanceOf(FaaSError);
  expect(stub.seen).toHaveLength(1);
});

describe("an execution that may have begun is never sent twice", () => {
  const html = { "content-type": "text/html" };
  const cases: [string, Reply][] = [
    ["no answer", { cutAfter: -1 }],
    ["half an answer", { json: execution(), cutAfter: 10 }],
    ["internal", { status: 500, json: problem(500, "internal", { retryable: true }) }],
    ["sandbox_lost", { status: 502, json: problem(502, "sandbox_lost", { retryable: true }) }],
    ["proxy 503", { status: 503, body: "<html>proxy</html>", headers: html }],
    ["proxy 504", { status: 504, body: "", headers: html }],
  ];
  test.for(cases)("%s", async ([, reply], { client, stub }) => {
    stub.replies(reply);
    await expect(client.execute("x")).rejects.toBeInstanceOf(FaaSError);
    expect(stub.seen).toHaveLength(1);
  });
});

describe("a GET is tried again", () => {
  const html = { "content-type": "text/html" };
  const cases: [string, Reply][] = [
    ["half an answer", { json: HEALTH, cutAfter: 10 }],
    ["502", { status: 502, body: "", headers: html }],
    ["504", { status: 504, body: "", headers: html }],
  ];
  test.for(cases)("%s", async ([, reply], { client, stub }) => {
    stub.replies(reply, reply, { json: HEALTH });
    expect((await client.health()).status).toBe("healthy");
    expect(stub.seen).toHaveLength(3);
  });
});

test("lost connections say that the command may have run", async ({ client, stub }) => {
  stub.replies({ json: execution(), cutAfter: 10 });
  const error = await rejection(client.execute("x"));
  expect(error).toBeInstanceOf(ConnectionLostError);
  expect(error).toMatchObject({ requestSent: true, cause: expect.anything() });
});

test("a refused connection is tried again and then says where", async () => {
  const port = await freePort();
  for (const host of ["127.0.0.1", "localhost"]) {
    const client = new FaaSClient({ baseUrl: `http://${host}:${port}`, retry: QUICK });
    const error = await rejection(client.execute("x"));
    expect(error).toBeInstanceOf(ConnectFailedError);
    expect(error).toMatchObject({ requestSent: false, message: expect.stringContaining(`${host}:${port}`) });
    expect(error).toMatchObject({ message: expect.stringContaining("ECONNREFUSED") });
  }
});

test("only what was refused before a connection is told as not sent", () => {
  const rejected = (cause: object): TransportError =>
    transportError(new TypeError("fetch failed", { cause: Object.assign(new Error("why"), cause) }), "http://x");
  expect(rejected({ syscall: "getaddrinfo", code: "ENOTFOUND" })).toBeInstanceOf(ConnectFailedError);
  expect(rejected({ code: "UND_ERR_CONNECT_TIMEOUT" })).toBeInstanceOf(ConnectFailedError);
  expect(rejected({ syscall: "read", code: "ECONNRESET" })).toBeInstanceOf(ConnectionLostError);
  expect(rejected({ code: "UND_ERR_SOCKET" })).toBeInstanceOf(ConnectionLostError);
  const cause = new AggregateError([{ syscall: "connect" }, { syscall: "write" }]);
  expect(transportError(new TypeError("fetch failed", { cause }), "http://x")).toBeInstanceOf(ConnectionLostError);
  expect(transportError("odd", "http://x")).toMatchObject({
    requestSent: true,
    message: expect.stringContaining("odd"),
  });
});

test("an execution reaches a gateway that starts between two attempts", async () => {
  const port = await freePort();
  let stub: StubGateway | undefined;
  let refused = 0;
  const client = new FaaSClient({
    baseUrl: `http://127.0.0.1:${port}`,
    retry: QUICK,
    fetch: async (input, init) => {
      try {
        return await fetch(input, init);
      } catch (error) {
        refused++;
        stub = await StubGateway.start(port);
        throw error;
      }
    },
  });
  try {
    expect((await client.execute("x")).ok).toBe(true);
  } finally {
    await stub?.stop();
  }
  expect(refused).toBe(1);
});

test("a server that speaks no HTTP is a lost connection", async () => {
  const server = createServer((socket) => socket.end("220 ready\r\n"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const error = await rejection(new FaaSClient({ baseUrl: `http://127.0.0.1:${port}` }).execute("x"));
  server.close();
  expect(error).toBeInstanceOf(ConnectionLostError);
});

test("a silent gateway ends in a timeout and one attempt", async ({ client, stub }) => {
  stub.replies({ json: execution(), hold: NEVER });
  const error = await rejection(client.execute("x", { httpTimeoutMs: 1_000 }));
  expect(error).toBeInstanceOf(TransportTimeoutError);
  expect(error).toMatchObject({ requestSent: true });
  expect(stub.seen).toHaveLength(1);
});

test("aborting a call closes its connection and rejects with the reason", async ({ client, stub }) => {
  stub.replies({ json: execution(), hold: NEVER });
  const controller = new AbortController();
  const arrived = stub.arrival();
  const call = rejection(client.execute("x", { signal: controller.signal }));
  await arrived;
  controller.abort(new Error("enough"));
  expect(await call).toMatchObject({ message: "enough" });
  await vi.waitFor(() => expect(stub.goneWhileHeld).toBe(1), { timeout: 30_000 });
});

test("a signal that is aborted already sends nothing", async ({ client, stub }) => {
  const error = await rejection(client.execute("x", { signal: AbortSignal.abort() }));
  expect(error).toMatchObject({ name: "AbortError" });
  expect(stub.seen).toEqual([]);
});

test("aborting during a wait between attempts ends it", async ({ stub }) => {
  stub.replies(overloaded({ "retry-after": "20" }));
  const client = new FaaSClient({ baseUrl: stub.url });
  const controller = new AbortController();
  const arrived = stub.arrival();
  const call = rejection(client.execute("x", { signal: controller.signal }));
  await arrived;
  setTimeout(() => controller.abort(new Error("enough")), 20);
  expect(await call).toMatchObject({ message: "enough" });
  expect(stub.seen).toHaveLength(1);
});

test("waits grow and stay below their limit", () => {
  const retry = retryOf({ maxRetries: 10, initialBackoffMs: 1000, maxBackoffMs: 4000 });
  const error = new ConnectionLostError("x", true);
  const waits = [0, 1, 2, 3].map((attempt) => retryWaitMs(retry, version({}), error, attempt, 1));
  expect(waits).toEqual([1000, 2000, 4000, 4000]);
  expect(retryWaitMs(retry, version({}), error, 0, 0)).toBe(500);
  expect(retryWaitMs(retry, version({}), error, 10, 0)).toBeNull();
  expect(retryWaitMs(retry, execute("x", {}), error, 0, 0)).toBeNull();
});

test("Retry-After is read in seconds", () => {
  const read = [null, "2", "0.5", "0", "-1", "NaN", "Infinity", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"];
  expect(read.map(retryAfterMs)).toEqual([null, 2000, 500, 0, null, null, null, null, null]);
});

test("a policy without sense is refused", () => {
  for (const retry of [{ maxRetries: -1 }, { maxBackoffMs: -1 }, { initialBackoffMs: Number.NaN }]) {
    expect(() => new FaaSClient({ retry })).toThrow(Object.keys(retry)[0]);
  }
});
