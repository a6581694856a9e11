// The gateway's events, which go on over another connection, and the log of an instance.

import { expect, vi } from "vitest";
import {
  ConnectionLostError,
  type EventsOptions,
  type FaaSClient,
  type GatewayEvent,
  GoneError,
  type LogEntry,
  RangeNotSatisfiableError,
  SandboxLostError,
} from "../src/index.js";
import { test } from "./fixture.js";
import { cutLines, eventLines, instance, problem, rejection } from "./stub.js";

const AT = "2026-01-02T03:04:05.678Z";
const NEVER = new Promise<void>(() => {});

function event(seq: number, changes: object = {}): object {
  return { seq, at: AT, kind: "instance.running", subject: "ins-1", data: {}, ...changes };
}

async function first(client: FaaSClient, most: number, options: EventsOptions = {}): Promise<GatewayEvent[]> {
  const got: GatewayEvent[] = [];
  for await (const one of client.events(options)) {
    if (got.push(one) === most) {
      break;
    }
  }
  return got;
}

test("events are asked for and told, until the loop is left", async ({ client, stub }) => {
  const whole = eventLines([event(3), event(4, { kind: "execution.ended", data: { exit_code: 1 } }), event(5)]);
  stub.replies({ ...whole, hold: NEVER, holdAfter: String(whole.body).length - 20 });
  const options = { after: 2, kind: ["instance.", "execution.ended"], subject: "ins-1" };
  expect(await first(client, 2, options)).toEqual([
    { seq: 3, at: AT, kind: "instance.running", subject: "ins-1", data: {} },
    { seq: 4, at: AT, kind: "execution.ended", subject: "ins-1", data: { exit_code: 1 } },
  ]);
  expect(stub.seen[0]?.path).toBe("/api/v1/events?after=2&kind=instance.%2Cexecution.ended&subject=ins-1");
  expect(stub.seen[0]?.headers.accept).toBe("application/x-ndjson");
  await vi.waitFor(() => expect(stub.goneWhileHeld).toBe(1), 10_000);
});

test("events go on after the last one when the connection breaks or ends", async ({ client, stub }) => {
  stub.replies({ cutAfter: -1 }, cutLines([event(7), event(9)]), eventLines([event(11)]), eventLines([event(12)]));
  const got = await first(client, 4, { kind: "instance." });
  expect(got.map(({ seq }) => seq)).toEqual([7, 9, 11, 12]);
  expect(stub.seen.map(({ path }) => path.split("?")[1])).toEqual([
    "kind=instance.",
    "kind=instance.",
    "after=9&kind=instance.",
    "after=11&kind=instance.",
  ]);
});

test("events that are not kept, and such as are not there, are errors", async ({ client, stub }) => {
  stub.replies({ status: 410, json: problem(410, "gone", { first_offset: 5 }) });
  const gone = await rejection(first(client, 1, { after: 1 }));
  expect(gone).toBeInstanceOf(GoneError);
  expect(gone).toMatchObject({ firstOffset: 5 });
  stub.replies({ status: 416, json: problem(416, "range_not_satisfiable") });
  expect(await rejection(first(client, 1, { after: 2 ** 40 }))).toBeInstanceOf(RangeNotSatisfiableError);
  expect(() => client.events({ since: 1 } as object)).toThrow(TypeError);
});

test("a gateway that is gone ends the events", async ({ client, stub }) => {
  stub.replies(eventLines([event(1)]), { cutAfter: -1 });
  expect(await rejection(first(client, 9))).toBeInstanceOf(ConnectionLostError);
  expect(stub.seen).toHaveLength(3);
});

const ENTRIES = [
  { at: AT, type: "event", kind: "instance.running", reason: "started" },
  { at: AT, type: "stdout", execution_id: "exe-1", data: "h\u00e9" },
  { at: AT, type: "stderr", execution_id: "exe-1", data_base64: "/w==" },
];
const TOLD = [
  { at: AT, type: "event", executionId: null, bytes: null, text: null, kind: "instance.running", reason: "started" },
  { type: "stdout", executionId: "exe-1", text: "h\u00e9", kind: null, reason: null },
  { type: "stderr", bytes: new Uint8Array([255]), text: "\ufffd" },
];

test("a log is one answer", async ({ client, stub }) => {
  stub.replies({ json: instance() }, { json: ENTRIES });
  const found = await client.instances.get("ins-1");
  expect(await found.logs({ tail: 3 })).toMatchObject(TOLD);
  expect(stub.seen[1]?.path).toBe("/api/v1/instances/ins-1/logs?tail=3");
  expect(stub.seen[1]?.headers.accept).toBe("application/json");
});

test("a log is followed until the instance ends", async ({ client, stub }) => {
  const follow = async (): Promise<LogEntry[]> => {
    const got: LogEntry[] = [];
    for await (const entry of client.instances.logs("ins-1", { follow: true, tail: 9 })) {
      got.push(entry);
    }
    return got;
  };
  stub.replies(eventLines(ENTRIES));
  expect(await follow()).toMatchObject(TOLD);
  expect(stub.seen[0]?.path).toBe("/api/v1/instances/ins-1/logs?tail=9");
  const lost = { at: AT, ...problem(502, "sandbox_lost") };
  for (const last of [
    { ...lost, type: "error" },
    { ...lost, event: "error" },
  ]) {
    stub.replies(eventLines([ENTRIES[0] as object, last]));
    expect(await rejection(follow())).toBeInstanceOf(SandboxLostError);
  }
  stub.seen.length = 0;
  stub.replies(cutLines(ENTRIES));
  expect(await rejection(follow())).toBeInstanceOf(ConnectionLostError);
  expect(stub.seen).toHaveLength(1);
});
