// `stream`: events as they come, errors before and after the first of them, and what ends it early.

import { describe, expect, vi } from "vitest";
import {
  ConnectFailedError,
  ConnectionLostError,
  type ExecuteEvent,
  ExecutionTimeoutError,
  FaaSClient,
  InvalidRequestError,
  OverloadedError,
  ResponseFormatError,
  SandboxLostError,
  TransportTimeoutError,
} from "../src/index.js";
import { test } from "./fixture.js";
import { execution, problem, type Reply } from "./stub.js";

const NDJSON = { "content-type": "application/x-ndjson" };
const STARTED = { event: "started", request_id: "req-1", execution_id: "exec-1" };
const OUTPUT = ["stdout", "stderr", "output", "logs"];
const EXIT = {
  ...Object.fromEntries(Object.entries(execution()).filter(([name]) => !OUTPUT.includes(name))),
  event: "exit",
};
const NEVER = new Promise<void>(() => {});

function lines(said: readonly (object | string)[]): string {
  return said.map((event) => (typeof event === "string" ? event : `${JSON.stringify(event)}\n`)).join("");
}

function reply(said: readonly (object | string)[], more: Reply = {}): Reply {
  return { body: lines(said), headers: NDJSON, ...more };
}

/** All events of a stream, and what it threw. */
async function all(stream: AsyncIterable<ExecuteEvent>): Promise<{ got: ExecuteEvent[]; error: unknown }> {
  const got: ExecuteEvent[] = [];
  try {
    for await (const event of stream) {
      got.push(event);
    }
  } catch (error) {
    return { got, error };
  }
  return { got, error: undefined };
}

test("events come in order and exactly", async ({ client, stub }) => {
  stub.replies(
    reply([
      STARTED,
      { event: "stdout", offset: 0, data: "h\u00e9" },
      "\n",
      { event: "newer", x: 1 },
      { event: "stderr", offset: 3, data_base64: Buffer.from([255, 0]).toString("base64") },
      { event: "gap", from: 5, to: 90 },
      { ...EXIT, exit_code: 3 },
    ]),
  );
  const { got, error } = await all(client.stream(["ls", "-l"], { image: "alpine", requestId: "my-id" }));
  expect(error).toBeUndefined();
  expect(got).toMatchObject([
    { event: "started", requestId: "req-1", executionId: "exec-1" },
    { event: "stdout", offset: 0, text: "h\u00e9", isText: true },
    { event: "stderr", offset: 3, text: "\ufffd\0", isText: false, bytes: new Uint8Array([255, 0]) },
    { event: "gap", from: 5, to: 90 },
    { event: "exit", exitCode: 3, ok: false, timings: { queueUs: expect.any(Number) } },
  ]);
  expect(stub.seen).toHaveLength(1);
  expect(stub.seen[0]).toMatchObject({ method: "POST", path: "/api/v1/execute" });
  expect(stub.seen[0]?.headers).toMatchObject({ accept: "application/x-ndjson", "x-request-id": "my-id" });
  expect(stub.seen[0]?.json).toEqual({ command: ["ls", "-l"], image: "alpine" });
});

test("an error before the first event is the answer's", async ({ client, stub }) => {
  stub.replies({ status: 422, json: problem(422, "invalid_request") });
  const { got, error } = await all(client.stream("x", "alpine"));
  expect(got).toEqual([]);
  expect(error).toBeInstanceOf(InvalidRequestError);
  expect(stub.seen).toHaveLength(1);
});

test("what is retried is what execute retries, and nothing after the first event", async ({ client, stub }) => {
  stub.replies({ status: 503, json: problem(503, "overloaded", { retryable: true }) }, reply([STARTED, EXIT]));
  expect((await all(client.stream("x"))).got).toHaveLength(2);
  expect(stub.seen).toHaveLength(2);
  stub.replies(reply([STARTED, { event: "error", ...problem(503, "overloaded", { retryable: true }) }]));
  expect((await all(client.stream("x"))).error).toBeInstanceOf(OverloadedError);
  expect(stub.seen).toHaveLength(3);
});

describe("an error after output is typed", () => {
  test.for([
    [504, "execution_timeout", ExecutionTimeoutError],
    [502, "sandbox_lost", SandboxLostError],
  ] as const)("%i %s", async ([status, code, kind], { client, stub }) => {
    const output = { event: "stdout", offset: 0, data: "so far" };
    stub.replies(reply([STARTED, output, { event: "error", ...problem(status, code) }]));
    const { got, error } = await all(client.stream("x"));
    expect(got.map(({ event }) => event)).toEqual(["started", "stdout"]);
    expect(error).toBeInstanceOf(kind);
    expect(error).toMatchObject({ status });
  });
});

test("a stream that ends too soon is a lost connection", async ({ client, stub }) => {
  stub.replies(reply([STARTED]));
  expect((await all(client.stream("x"))).error).toBeInstanceOf(ConnectionLostError);
  stub.replies(reply([STARTED, EXIT], { cutAfter: lines([STARTED, EXIT]).length - 5 }));
  const { got, error } = await all(client.stream("x"));
  expect(got).toHaveLength(1);
  expect(error).toBeInstanceOf(ConnectionLostError);
});

describe("what is no event is refused with the place", () => {
  test.for([
    ["no json\n", "a line is not JSON"],
    ['{"event": "stdout", "offset": 0}\n', "/data is missing"],
    ['{"event": "stdout", "offset": 0, "data_base64": "%"}\n', "/data_base64 is not base64"],
    ['{"event": "exit"}\n', "is missing"],
  ] as const)("%s", async ([line, words], { client, stub }) => {
    stub.replies(reply([STARTED, line]));
    const { error } = await all(client.stream("x"));
    expect(error).toBeInstanceOf(ResponseFormatError);
    expect(error).toMatchObject({ message: expect.stringContaining(words) });
  });

  test("one document", async ({ client }) => {
    expect((await all(client.stream("x"))).error).toBeInstanceOf(ResponseFormatError);
  });
});

test("what cannot be sent is refused at once, and nobody there is an error", async ({ client, stub }) => {
  expect(() => client.stream("x", { imgae: "host" } as object)).toThrow("execute has no option imgae");
  expect(stub.seen).toEqual([]);
  await stub.stop();
  const nobody = new FaaSClient({ baseUrl: client.baseUrl, retry: { maxRetries: 0 } });
  expect((await all(nobody.stream("x"))).error).toBeInstanceOf(ConnectFailedError);
});

describe("an event is given before the next has come, and the connection is closed", () => {
  const held = reply([STARTED, EXIT], { hold: NEVER, holdAfter: lines([STARTED]).length });

  test("by leaving the loop", async ({ client, stub }) => {
    stub.replies(held);
    for await (const event of client.stream("x")) {
      expect(event.event).toBe("started");
      break;
    }
    await vi.waitFor(() => expect(stub.goneWhileHeld).toBe(1), 10_000);
  });

  test("by a signal", async ({ client, stub }) => {
    stub.replies(held);
    const controller = new AbortController();
    const reason = new Error("enough");
    const stream = client.stream("x", { signal: controller.signal });
    expect((await stream.next()).value).toMatchObject({ event: "started" });
    const next = stream.next();
    controller.abort(reason);
    await expect(next).rejects.toBe(reason);
    await vi.waitFor(() => expect(stub.goneWhileHeld).toBe(1), 10_000);
  });

  test("by a silence longer than the HTTP timeout", async ({ client, stub }) => {
    stub.replies(held);
    const { got, error } = await all(client.stream("x", { httpTimeoutMs: 1_000 }));
    expect(got).toHaveLength(1);
    expect(error).toBeInstanceOf(TransportTimeoutError);
  });
});
