// Files of an instance: what each verb sends, both ways without holding the whole, and what is tried again.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, vi } from "vitest";
import {
  ConflictError,
  ConnectionLostError,
  type FileEvent,
  ForbiddenError,
  InsufficientStorageError,
  NotFoundError,
  RangeNotSatisfiableError,
  SandboxLostError,
  type UploadSource,
} from "../src/index.js";
import { test as base } from "./fixture.js";
import { eventLines, fileInfo, problem, type Reply, rejection, type StubGateway } from "./stub.js";

const BYTES = { "content-type": "application/octet-stream" };
const PATH = "/api/v1/instances/ins-1/files";
const NEVER = new Promise<void>(() => {});

const test = base.extend<{ local: { folder: string; path: string; content: Buffer } }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants the pattern
  local: async ({}, use) => {
    const folder = await mkdtemp(join(tmpdir(), "faas-sdk-"));
    const path = join(folder, "local");
    const content = Buffer.alloc(600_000, "0123456789");
    await writeFile(path, content);
    await use({ folder, path, content });
    await rm(folder, { recursive: true });
  },
});

/** The method, the query and the headers of the last request. */
function last(stub: StubGateway) {
  const seen = stub.seen.at(-1);
  const url = new URL(seen?.path ?? "", "http://x");
  expect(url.pathname).toBe(PATH);
  return { method: seen?.method, query: Object.fromEntries(url.searchParams), seen };
}

async function all(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream as unknown as AsyncIterable<Uint8Array>) {
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

test("a file is read whole or in part", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  stub.replies({ body: new Uint8Array([0, 255]), headers: BYTES });
  expect([...(await files.read("/srv/h\u00e9 +&%"))]).toEqual([0, 255]);
  expect(last(stub)).toMatchObject({ method: "GET", query: { path: "/srv/h\u00e9 +&%" } });
  expect(last(stub).seen?.headers.range).toBeUndefined();
  stub.replies({ status: 206, body: "bc", headers: BYTES });
  for (const [options, range] of [
    [{ offset: 1, length: 2 }, "bytes=1-2"],
    [{ offset: 7 }, "bytes=7-"],
    [{ length: 1 }, "bytes=0-0"],
  ] as const) {
    expect(Buffer.from(await files.read("/a", { ...options, user: "nobody" })).toString()).toBe("bc");
    expect(last(stub).query).toEqual({ path: "/a", user: "nobody" });
    expect(last(stub).seen?.headers.range).toBe(range);
  }
  stub.replies({ body: "h\u00e9", headers: BYTES }, { body: new Uint8Array([255]), headers: BYTES }, { body: "{}" });
  expect(await files.readText("/a")).toBe("h\u00e9");
  expect(await rejection(files.readText("/a"))).toBeInstanceOf(TypeError);
  // What looks like an answer in JSON is a file all the same.
  expect(await files.readText("/a")).toBe("{}");
});

test("what is no part of a file is refused, and so is a part that comes as a whole", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  for (const part of [{ offset: -1 }, { length: 0 }, { offset: 0.5 }]) {
    expect(await rejection(files.read("/a", part))).toBeInstanceOf(RangeError);
  }
  expect(stub.seen).toEqual([]);
  stub.replies({ body: "abc", headers: BYTES });
  expect(await rejection(files.read("/a", { length: 1 }))).toMatchObject({ status: 200 });
});

describe("a refusal has its class", () => {
  test.for([
    [403, "forbidden", ForbiddenError],
    [404, "not_found", NotFoundError],
    [409, "conflict", ConflictError],
    [416, "range_not_satisfiable", RangeNotSatisfiableError],
    [507, "insufficient_storage", InsufficientStorageError],
  ] as const)("%i %s", async ([status, code, kind], { client, stub }) => {
    const files = client.instances.files("ins-1");
    stub.replies({ status, json: problem(status, code) });
    for (const call of [
      () => files.read("/a"),
      () => files.open("/a"),
      () => files.downloadTar("/a"),
      () => files.write("/a", "x"),
      () => files.stat("/a"),
    ]) {
      expect(await rejection(call())).toBeInstanceOf(kind);
    }
  });
});

test("a file is read while it comes", async ({ client, stub }) => {
  const content = Buffer.alloc(1 << 20, "0123456789abcdef");
  let release = (): void => {};
  const hold = new Promise<void>((resolve) => {
    release = resolve;
  });
  stub.replies({ body: content, headers: BYTES, hold, holdAfter: 1000 });
  const reader = (await client.instances.files("ins-1").open("/big")).getReader();
  const pieces: Uint8Array[] = [];
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    pieces.push(piece.value);
    // The rest is sent when the first piece is here.
    release();
  }
  expect(Buffer.concat(pieces).equals(content)).toBe(true);
});

test("a file that is left before its end closes its connection", async ({ client, stub }) => {
  stub.replies({ body: Buffer.alloc(5000), headers: BYTES, hold: NEVER, holdAfter: 10 });
  const stream = await client.instances.files("ins-1").open("/big");
  await stream.cancel();
  await vi.waitFor(() => expect(stub.goneWhileHeld).toBe(1), 10_000);
});

test("a file that does not come whole is an error", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  const cut: Reply = { body: "x".repeat(100), headers: BYTES, cutAfter: 50 };
  const whole: Reply = { body: "whole", headers: BYTES };
  stub.replies(cut);
  expect(await rejection(all(await files.open("/a")))).toBeInstanceOf(ConnectionLostError);
  expect(stub.seen).toHaveLength(1);
  // Read whole, it is asked for again; opened, it is where nothing of it has come.
  stub.replies(cut, whole);
  expect(Buffer.from(await files.read("/a")).toString()).toBe("whole");
  stub.replies({ cutAfter: -1 }, whole);
  expect((await all(await files.open("/a"))).toString()).toBe("whole");
});

test("a file is written", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  stub.replies({ status: 201, json: fileInfo() });
  for (const [content, sent] of [
    ["h\u00e9", "h\xc3\xa9"],
    [new Uint8Array([255]), "\xff"],
    ["", ""],
  ] as const) {
    expect(await files.write("/a", content)).toMatchObject({ path: "/a", sizeBytes: 1 });
    expect(last(stub)).toMatchObject({ method: "PUT", query: { path: "/a" } });
    expect(last(stub).seen?.bytes.toString("latin1")).toBe(sent);
    expect(last(stub).seen?.headers["content-type"]).toBe("application/octet-stream");
  }
  await files.write("/a", "x", { mode: 0o755, owner: "1:1", user: "0" });
  expect(last(stub).query).toEqual({ path: "/a", mode: "0755", owner: "1:1", user: "0" });
  expect(await rejection(files.write("/a", 3 as never))).toBeInstanceOf(TypeError);
});

test("bytes are written again where the connection breaks, and a stream is not", async ({ client, stub, local }) => {
  const files = client.instances.files("ins-1");
  const reply = { json: fileInfo() };
  for (const call of [
    () => files.write("/a", "x"),
    () => files.writeStream("/a", new Uint8Array([1])),
    () => files.writeStream("/a", local.path),
  ]) {
    stub.seen.length = 0;
    stub.replies({ cutAfter: -1 }, reply);
    await call();
    expect(stub.seen).toHaveLength(2);
    expect(stub.seen[0]?.bytes.equals(stub.seen[1]?.bytes as Buffer)).toBe(true);
  }
  for (const source of [new Blob(["x"]).stream(), [new Uint8Array([1])]]) {
    stub.seen.length = 0;
    stub.replies({ cutAfter: -1 }, reply);
    expect(await rejection(files.writeStream("/a", source))).toBeInstanceOf(ConnectionLostError);
    expect(stub.seen).toHaveLength(1);
  }
});

test("a file is written from a file, a stream or an iterable", async ({ client, stub, local }) => {
  const { path, content } = local;
  const pieces: Uint8Array[] = [new Uint8Array()];
  for (let at = 0; at < content.length; at += 7000) {
    pieces.push(new Uint8Array(content.subarray(at, at + 7000)));
  }
  async function* given(): AsyncGenerator<Uint8Array> {
    yield* pieces;
  }
  stub.replies({ status: 201, json: fileInfo() });
  const sources: UploadSource[] = [
    path,
    pathToFileURL(path),
    new Uint8Array(content),
    new Blob([new Uint8Array(content)]).stream(),
    pieces,
    pieces.values(),
    given(),
  ];
  for (const source of sources) {
    await client.instances.files("ins-1").writeStream("/a", source, { mode: "0600" });
    expect(last(stub)).toMatchObject({ method: "PUT", query: { path: "/a", mode: "0600" } });
    expect(last(stub).seen?.bytes.equals(content)).toBe(true);
  }
});

test("what cannot be sent is refused", async ({ client, stub, local }) => {
  const files = client.instances.files("ins-1");
  for (const source of [local.folder, 3, null, {}]) {
    expect(await rejection(files.writeStream("/a", source as never))).toBeInstanceOf(TypeError);
  }
  expect(await rejection(files.writeStream("/a", join(local.folder, "none")))).toMatchObject({ code: "ENOENT" });
  expect(await rejection(files.stat(3 as never))).toBeInstanceOf(TypeError);
  expect(await rejection(files.stat("/a", { usr: "x" } as object))).toBeInstanceOf(TypeError);
  expect(stub.seen).toEqual([]);
  const wrong = files.writeStream("/a", ["x"] as never);
  expect(await rejection(wrong)).toMatchObject({ message: "the iterator gives string, not a Uint8Array" });
  const mine = new Error("of the caller's own");
  const failing = (async function* (): AsyncGenerator<Uint8Array> {
    yield new Uint8Array([1]);
    throw mine;
  })();
  expect(await rejection(files.writeStream("/a", failing))).toBe(mine);
});

test("what stands at a path is told", async ({ client, stub }) => {
  stub.replies({
    json: fileInfo({ path: "/\ufffd", path_base64: "L/8=", type: "symlink", owner: null, group: "staff", target: "b" }),
  });
  expect(await client.instances.files("ins-1").stat("/l")).toEqual({
    path: "/\ufffd",
    pathBase64: "L/8=",
    name: "a",
    type: "symlink",
    sizeBytes: 1,
    mode: "0644",
    uid: 0,
    gid: 0,
    owner: null,
    group: "staff",
    modifiedAt: "2026-01-02T03:04:05.678Z",
    target: "b",
  });
  expect(last(stub)).toMatchObject({ method: "GET", query: { path: "/l", stat: "true" } });
});

test("a directory is listed over all pages", async ({ client, stub }) => {
  stub.replies(
    { json: [fileInfo({ name: "a" })], headers: { "x-next-cursor": "c" } },
    { json: [fileInfo({ name: "b" }), fileInfo({ name: "c" })] },
  );
  const found = await client.instances.files("ins-1").list("/d", { user: "1" });
  expect(found.map(({ name }) => name)).toEqual(["a", "b", "c"]);
  expect(last(stub).query).toEqual({ path: "/d", list: "true", user: "1", cursor: "c" });
});

test("changes are one request each", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  stub.replies({ json: fileInfo({ path: "/z" }) });
  expect((await files.mkdir("/d", { mode: "0700" })).path).toBe("/z");
  expect(last(stub)).toMatchObject({ method: "POST", query: { op: "mkdir", path: "/d", mode: "0700" } });
  expect((await files.move("/a", "/b", { user: "1" })).path).toBe("/z");
  expect(last(stub)).toMatchObject({ method: "POST", query: { op: "move", path: "/a", to: "/b", user: "1" } });
  stub.replies({ status: 204 });
  expect(await files.remove("/a")).toBeUndefined();
  expect(last(stub)).toMatchObject({ method: "DELETE", query: { path: "/a" } });
  await files.remove("/a", { recursive: true });
  expect(last(stub).query).toEqual({ path: "/a", recursive: "true" });
});

test("only what does no more the second time is tried again", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  for (const [call, attempts] of [
    [() => files.mkdir("/a"), 3],
    [() => files.move("/a", "/b"), 1],
    [() => files.remove("/a"), 1],
  ] as const) {
    stub.seen.length = 0;
    stub.replies({ cutAfter: -1 });
    expect(await rejection(call())).toBeInstanceOf(ConnectionLostError);
    expect(stub.seen).toHaveLength(attempts);
  }
});

test("tar archives go both ways", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  stub.replies({ body: "a tar", headers: { "content-type": "application/x-tar" } });
  expect((await all(await files.downloadTar("/d"))).toString()).toBe("a tar");
  expect(last(stub)).toMatchObject({ method: "GET", query: { path: "/d", tar: "true" } });
  stub.replies({ json: { files: 1, bytes: 3 } });
  expect(await files.uploadTar("/e", [new Uint8Array([1, 2])])).toEqual({ files: 1, bytes: 3 });
  expect(last(stub)).toMatchObject({ method: "PUT", query: { path: "/e", tar: "true" } });
  expect([...(last(stub).seen?.bytes ?? [])]).toEqual([1, 2]);
});

test("a watch tells what happens and ends with its connection", async ({ client, stub }) => {
  const files = client.instances.files("ins-1");
  const moved = { event: "moved", path: "/d/b", from: "/d/a", type: "file" };
  stub.replies(eventLines([{ event: "ready" }, moved, { ...problem(502, "sandbox_lost"), event: "error" }]));
  const got: FileEvent[] = [];
  const watching = async (): Promise<void> => {
    for await (const event of files.watch("/d", { recursive: true })) {
      got.push(event);
    }
  };
  expect(await rejection(watching())).toBeInstanceOf(SandboxLostError);
  expect(got).toEqual([{ event: "ready", path: null, from: null, type: null }, moved]);
  expect(last(stub).query).toEqual({ path: "/d", watch: "true", recursive: "true" });
  stub.seen.length = 0;
  stub.replies(eventLines([{ event: "ready" }]));
  expect(await rejection(watching())).toBeInstanceOf(ConnectionLostError);
  expect(stub.seen).toHaveLength(1);
});
