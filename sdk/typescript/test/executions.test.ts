// Lasting executions: what each verb sends, streams that go on over another connection, waits, ends told apart.

import { describe, expect } from "vitest";
import { clientConfig, httpTimeoutMs } from "../src/core/config.js";
import { ExecutionEvents } from "../src/core/execute-events.js";
import { asLost } from "../src/core/retry.js";
import {
  ConflictError,
  ConnectionLostError,
  type ExecutionEvent,
  ExecutionTimeoutError,
  FaaSClient,
  GoneError,
  InvalidRequestError,
  NotFoundError,
  RangeNotSatisfiableError,
  ResponseFormatError,
  SandboxLostError,
  TransportTimeoutError,
} from "../src/index.js";
import { test } from "./fixture.js";
import {
  cutLines,
  eventLines,
  execution,
  instance,
  lasting,
  problem,
  type Reply,
  rejection,
  type StubGateway,
} from "./stub.js";

const STARTED = { event: "started", execution_id: "exe-1" };
const EXIT = {
  event: "exit",
  exit_code: 0,
  signal: null,
  stdout_truncated: false,
  stderr_truncated: false,
  duration_ms: 7,
  oom_killed: false,
  error: null,
};
const NEVER = new Promise<void>(() => {});

function said(offset: number, data: string | Uint8Array, event = "stdout"): object {
  return typeof data === "string"
    ? { event, offset, data }
    : { event, offset, data_base64: Buffer.from(data).toString("base64") };
}

/** The events of the stream after the handle was got, and what it threw. */
async function stream(client: FaaSClient, stub: StubGateway, replies: Reply[], offset?: number) {
  stub.seen.length = 0;
  stub.replies({ json: lasting() }, ...replies);
  const found = await client.executions.get("exe-1");
  const got: ExecutionEvent[] = [];
  try {
    for await (const event of found.stream({ offset })) {
      got.push(event);
    }
  } catch (error) {
    return { got, error };
  }
  return { got, error: undefined };
}

function queries(stub: StubGateway): (string | undefined)[] {
  return stub.seen.slice(1).map(({ path }) => path.split("?")[1] ?? "");
}

test("a command in the background is an execution", async ({ client, stub }) => {
  stub.replies({ json: instance() }, { status: 202, json: lasting() });
  const found = await client.instances.get("ins-1");
  const started = await found.exec("make", {
    background: true,
    keepRunning: true,
    stdinOpen: true,
    tty: { rows: 30, cols: 90 },
    timeoutMs: 5,
    requestId: "my-id",
    idempotencyKey: "k-1",
  });
  expect([started.id, started.status, started.exitCode]).toEqual(["exe-1", "running", null]);
  expect(stub.seen[1]).toMatchObject({ method: "POST", path: "/api/v1/instances/ins-1/exec" });
  expect(stub.seen[1]?.json).toEqual({
    command: "make",
    background: true,
    keep_running: true,
    stdin_open: true,
    tty: { rows: 30, cols: 90 },
    timeout_ms: 5,
  });
  expect(stub.seen[1]?.headers).toMatchObject({ "x-request-id": "my-id", "idempotency-key": "k-1" });
});

test("without background a command is waited for", async ({ client, stub }) => {
  const result = await client.instances.exec("ins-1", "x", { background: false, keepRunning: true });
  expect(result.stdout).toBe("Hello!\n");
  expect(stub.seen[0]?.json).toEqual({ command: "x", keep_running: true });
});

test("every member of an execution is read", async ({ client, stub }) => {
  stub.replies({
    json: lasting({
      kind: "terminal",
      status: "lost",
      status_reason: "the sandbox ended",
      command: ["make", "all"],
      tty: { rows: 1, cols: 2 },
      labels: { a: "b" },
      timeout_ms: 3,
      ended_at: "2026-01-02T03:04:06Z",
      exit_code: 137,
      signal: "SIGKILL",
      oom_killed: true,
      stdout_truncated: true,
      duration_ms: 4,
      error: "x",
      first_offset: 5,
      next_offset: 6,
    }),
  });
  expect((await client.executions.get("exe-1")).info).toEqual({
    executionId: "exe-1",
    instanceId: "ins-1",
    kind: "terminal",
    status: "lost",
    statusReason: "the sandbox ended",
    command: ["make", "all"],
    background: true,
    tty: { rows: 1, cols: 2 },
    labels: { a: "b" },
    timeoutMs: 3,
    createdAt: "2026-01-02T03:04:05.678Z",
    endedAt: "2026-01-02T03:04:06Z",
    exitCode: 137,
    ok: false,
    signal: "SIGKILL",
    oomKilled: true,
    stdoutTruncated: true,
    stderrTruncated: false,
    durationMs: 4,
    error: "x",
    firstOffset: 5,
    nextOffset: 6,
  });
});

test("the executions of an instance are one list", async ({ client, stub }) => {
  stub.replies(
    { json: instance() },
    { json: [lasting()], headers: { "x-next-cursor": "c" } },
    { json: [lasting({ execution_id: "exe-0" })] },
  );
  const found = await (await client.instances.get("ins-1")).executions();
  expect(found.map(({ id }) => id)).toEqual(["exe-1", "exe-0"]);
  expect(stub.seen[1]?.path).toBe("/api/v1/instances/ins-1/executions");
  expect(queries(stub)).toEqual(["", "cursor=c"]);
  await client.instances.executions("ins-1", { limit: 1 });
  expect(stub.seen.at(-1)?.path).toMatch(/\?limit=1$/);
});

test("input, signals and the end are sent once each", async ({ client, stub }) => {
  stub.replies({ json: lasting() }, { status: 204 });
  const { executions } = client;
  const found = await executions.get("exe-1");
  stub.seen.length = 0;
  await executions.input("exe-1", new Uint8Array([255, 10]));
  await found.input("h\u00e9", { eof: true });
  await found.signal("SIGTERM");
  await executions.signal("exe-1", 2);
  await found.cancel();
  await executions.cancel("exe-1");
  const path = "/api/v1/executions/exe-1";
  expect(stub.seen.map((seen) => [seen.method, seen.path, seen.bytes.toString("latin1")])).toEqual([
    ["POST", `${path}/input`, "\xff\n"],
    ["POST", `${path}/input?eof=true`, "h\xc3\xa9"],
    ["POST", `${path}/signal`, '{"signal":"SIGTERM"}'],
    ["POST", `${path}/signal`, '{"signal":2}'],
    ["DELETE", path, ""],
    ["DELETE", path, ""],
  ]);
  expect(stub.seen[0]?.headers["content-type"]).toBe("application/octet-stream");
  expect(await rejection(executions.input("exe-1", 3 as never))).toBeInstanceOf(TypeError);
});

test("what may have been done is not done twice, and a cancel may be", async ({ client, stub }) => {
  for (const call of [() => client.executions.input("exe-1", "x"), () => client.executions.signal("exe-1", "SIGINT")]) {
    stub.seen.length = 0;
    stub.replies({ cutAfter: -1 });
    expect(await rejection(call())).toBeInstanceOf(ConnectionLostError);
    expect(stub.seen).toHaveLength(1);
  }
  stub.replies({ cutAfter: -1 }, { status: 204 });
  await client.executions.cancel("exe-1");
});

describe("a refusal has its class", () => {
  test.for([
    [404, "not_found", NotFoundError],
    [409, "conflict", ConflictError],
    [422, "invalid_request", InvalidRequestError],
  ] as const)("%i %s", async ([status, code, kind], { client, stub }) => {
    stub.replies({ status, json: problem(status, code) });
    expect(await rejection(client.executions.signal("exe-1", "SIGNONE"))).toBeInstanceOf(kind);
  });
});

test("events come in order and exactly", async ({ client, stub }) => {
  const { got, error } = await stream(client, stub, [
    eventLines([
      STARTED,
      said(0, "h\u00e9"),
      { event: "newer" },
      { event: "gap", from: 3, to: 90 },
      said(90, new Uint8Array([255]), "stderr"),
      { ...EXIT, exit_code: 3 },
    ]),
  ]);
  expect(error).toBeUndefined();
  expect(got).toMatchObject([
    { event: "stdout", offset: 0, text: "h\u00e9", isText: true },
    { event: "gap", from: 3, to: 90 },
    { event: "stderr", offset: 90, bytes: new Uint8Array([255]), isText: false },
    { event: "exit", executionId: "exe-1", exitCode: 3, ok: false, durationMs: 7 },
  ]);
  expect(stub.seen[1]).toMatchObject({ method: "GET", path: "/api/v1/executions/exe-1/stream" });
  expect(stub.seen[1]?.headers.accept).toBe("application/x-ndjson");
});

test("a stream whose connection breaks goes on where it was", async ({ client, stub }) => {
  const replies = [
    cutLines([said(4, "ab")]),
    { cutAfter: -1 },
    cutLines([{ event: "gap", from: 6, to: 10 }]),
    { status: 502, body: "", headers: { "content-type": "text/html" } },
    cutLines([said(10, new Uint8Array([255, 254])), said(12, "x")]),
    eventLines([said(13, "end"), EXIT]),
  ];
  const { got, error } = await stream(client, stub, replies, 4);
  expect(error).toBeUndefined();
  const bytes = got.flatMap((event) => ("bytes" in event ? [...event.bytes] : []));
  expect(Buffer.from(bytes).toString("latin1")).toBe("ab\xff\xfexend");
  expect(queries(stub)).toEqual([4, 6, 6, 10, 10, 13].map((offset) => `offset=${offset}`));
});

test("a stream without an offset begins again where nothing came", async ({ client, stub }) => {
  const { got } = await stream(client, stub, [cutLines([]), cutLines([said(7, "ab")]), eventLines([EXIT])]);
  expect(got).toHaveLength(2);
  expect(queries(stub)).toEqual(["", "", "offset=9"]);
});

test("a stream is given up after as many attempts as the policy says", async ({ client, stub }) => {
  const { got, error } = await stream(client, stub, [cutLines([said(0, "a")]), cutLines([])]);
  expect(got).toHaveLength(1);
  expect(error).toBeInstanceOf(ConnectionLostError);
  expect(stub.seen).toHaveLength(1 + 1 + 2);
  const once = new FaaSClient({ baseUrl: stub.url, retry: { maxRetries: 0 } });
  const told = await stream(once, stub, [cutLines([said(0, "a")]), eventLines([EXIT])]);
  expect(told.error).toBeInstanceOf(ConnectionLostError);
  expect(stub.seen).toHaveLength(2);
});

test("a silence is a broken connection, unless the caller chose how long it may be", async ({ client, stub }) => {
  const chosen = new ExecutionEvents("exe-1", { httpTimeoutMs: 3_000 }).call();
  const own = new ExecutionEvents("exe-1", {}).call();
  for (const [ofClient, ofOwn] of [
    [undefined, 60_000],
    [1_000, 20_000],
    [90_000, 90_000],
  ] as const) {
    const config = clientConfig({ httpTimeoutMs: ofClient }, {});
    expect([httpTimeoutMs(config, chosen), httpTimeoutMs(config, own)]).toEqual([3_000, ofOwn]);
  }
  const silence = new TransportTimeoutError("nothing", true);
  expect(asLost(silence, chosen)).toBe(silence);
  expect(asLost(silence, own)).toBeInstanceOf(ConnectionLostError);
  const first = String(eventLines([said(0, "a")]).body);
  stub.replies(eventLines([said(0, "a"), EXIT], { hold: NEVER, holdAfter: first.length }));
  const silent = client.executions.stream("exe-1", { httpTimeoutMs: 1_000 });
  await silent.next();
  expect(await rejection(silent.next())).toBeInstanceOf(TransportTimeoutError);
  expect(stub.seen).toHaveLength(1);
});

describe("an error at the end of a stream is typed and final", () => {
  test.for([
    [504, "execution_timeout", ExecutionTimeoutError],
    [502, "sandbox_lost", SandboxLostError],
  ] as const)("%i %s", async ([status, code, kind], { client, stub }) => {
    for (const lines of [[said(0, "so far")], []]) {
      const last = { ...problem(status, code, { retryable: true }), event: "error" };
      const { got, error } = await stream(client, stub, [eventLines([...lines, last])]);
      expect(got).toHaveLength(lines.length);
      expect(error).toBeInstanceOf(kind);
      expect(stub.seen).toHaveLength(2);
    }
  });
});

test("output that is not held is an error that says what is", async ({ client, stub }) => {
  const gone = await stream(client, stub, [{ status: 410, json: problem(410, "gone", { first_offset: 77 }) }], 3);
  expect(gone.error).toBeInstanceOf(GoneError);
  expect(gone.error).toMatchObject({ firstOffset: 77 });
  const wrong = problem(416, "range_not_satisfiable", { next_offset: 99 });
  const beyond = await stream(client, stub, [{ status: 416, json: wrong }], 300);
  expect(beyond.error).toBeInstanceOf(RangeNotSatisfiableError);
  expect(beyond.error).toMatchObject({ nextOffset: 99 });
  const untold = await stream(client, stub, [{ status: 410, json: problem(410, "gone", { first_offset: "x" }) }]);
  expect(untold.error).toMatchObject({ firstOffset: null });
  for (const offset of [-1, 0.5, Number.NaN]) {
    expect(() => client.executions.stream("exe-1", { offset })).toThrow(RangeError);
  }
});

test("what is no event is refused with the place", async ({ client, stub }) => {
  const { error } = await stream(client, stub, [eventLines([{ ...EXIT, oom_killed: null }])]);
  expect(error).toBeInstanceOf(ResponseFormatError);
  expect(error).toMatchObject({ message: expect.stringContaining("/oom_killed is null, not a boolean") });
});

describe("wait resolves at the end, whatever it is", () => {
  test.for([
    ["exited", EXIT],
    ["timed_out", { ...problem(504, "execution_timeout"), event: "error" }],
    ["lost", { ...problem(502, "sandbox_lost"), event: "error" }],
  ] as const)("%s", async ([status, last], { client, stub }) => {
    stub.replies(
      { json: lasting() },
      { json: lasting({ next_offset: 8 }) },
      eventLines([said(8, "more"), last]),
      // The end is told before it is written down.
      { json: lasting({ next_offset: 12 }) },
      eventLines([last]),
      { json: lasting({ status, exit_code: 3, next_offset: 12 }) },
    );
    const found = await client.executions.get("exe-1");
    expect(await found.wait()).toBe(found);
    expect([found.status, found.exitCode]).toEqual([status, 3]);
    expect(queries(stub)).toEqual(["", "offset=8", "", "offset=12", ""]);
  });

  test("and goes on where output was dropped meanwhile, and rejects with other errors", async ({ client, stub }) => {
    stub.replies(
      { json: lasting() },
      { json: lasting() },
      { status: 410, json: problem(410, "gone", { first_offset: 9 }) },
      { json: lasting({ next_offset: 9 }) },
      eventLines([EXIT]),
      { json: lasting({ status: "exited", exit_code: 0 }) },
      { json: lasting() },
      { status: 404, json: problem(404, "not_found") },
    );
    const found = await client.executions.get("exe-1");
    expect((await found.wait()).info.ok).toBe(true);
    expect(await rejection(found.wait())).toBeInstanceOf(NotFoundError);
  });
});

test("a wait has its time, and its signal", async ({ client, stub }) => {
  const held = eventLines([EXIT], { hold: NEVER, holdAfter: 0 });
  stub.replies({ json: lasting() }, { json: lasting() }, held, { json: lasting() }, held);
  const found = await client.executions.get("exe-1");
  expect(await rejection(found.wait({ timeoutMs: 100 }))).toMatchObject({ name: "TimeoutError" });
  const controller = new AbortController();
  const reason = new Error("enough");
  const waiting = rejection(found.wait({ signal: controller.signal }));
  setTimeout(() => controller.abort(reason), 50);
  expect(await waiting).toBe(reason);
});

test("output is all that is held", async ({ client, stub }) => {
  stub.replies(
    { json: lasting() },
    cutLines([said(5, "out"), said(8, new Uint8Array([255]), "stderr")]),
    eventLines([{ event: "gap", from: 9, to: 20 }, said(20, "put"), EXIT]),
    { json: lasting({ status: "exited", exit_code: 0 }) },
    eventLines([said(0, "begun"), { ...problem(504, "execution_timeout"), event: "error" }]),
    { json: lasting({ status: "timed_out" }) },
    { status: 500, json: problem(500, "internal") },
  );
  const found = await client.executions.get("exe-1");
  expect(await found.output()).toEqual({
    stdout: "output",
    stderr: "\ufffd",
    stdoutBytes: new TextEncoder().encode("output"),
    stderrBytes: new Uint8Array([255]),
    gaps: [{ event: "gap", from: 9, to: 20 }],
  });
  expect(found.status).toBe("exited");
  expect((await found.output()).stdout).toBe("begun");
  expect(found.status).toBe("timed_out");
  expect(await rejection(found.output())).toMatchObject({ code: "internal" });
});

test("a command in an instance can be streamed", async ({ client, stub }) => {
  const names = ["stdout", "stderr", "output", "logs"];
  const end = Object.fromEntries(Object.entries(execution()).filter(([name]) => !names.includes(name)));
  stub.replies(eventLines([{ ...STARTED, request_id: "r" }, said(0, "x"), { ...end, ...EXIT }]));
  const got: string[] = [];
  for await (const event of client.instances.stream("ins-1", "x", { keepRunning: true })) {
    got.push(event.event);
  }
  expect(got).toEqual(["started", "stdout", "exit"]);
  expect(stub.seen[0]).toMatchObject({ method: "POST", path: "/api/v1/instances/ins-1/exec" });
  expect(stub.seen[0]?.json).toEqual({ command: "x", keep_running: true });
});

test("the main command is told of", async ({ client, stub }) => {
  const main = { command: ["serve"], main: true, restart: "always", execution_id: "exe-9", restarts: 2 };
  stub.replies({ json: instance({ main }) });
  expect((await client.instances.get("ins-1")).main).toEqual({
    command: ["serve"],
    main: true,
    restart: "always",
    executionId: "exe-9",
    restarts: 2,
  });
  stub.replies({ json: instance({ main: { ...main, command: null, execution_id: null } }) });
  expect((await client.instances.get("ins-1")).main).toMatchObject({ command: null, executionId: null });
  stub.replies({ json: instance({ main: undefined }) });
  expect((await client.instances.get("ins-1")).main).toBeNull();
});

test("an id never leads to another path", async ({ client, stub }) => {
  stub.replies({ json: lasting() });
  for (const wrong of ["", ".", ".."]) {
    expect(await rejection(client.executions.get(wrong))).toBeInstanceOf(RangeError);
  }
  expect(await rejection(client.executions.get(null as never))).toBeInstanceOf(TypeError);
  await client.executions.get("a/../b");
  expect(stub.seen.map(({ path }) => path)).toEqual(["/api/v1/executions/a%2F..%2Fb"]);
});
