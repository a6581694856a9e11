// The image store: pages, progress, archives that are streamed, and what ends each of them.

import { execFile, execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdirSync, readlinkSync } from "node:fs";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, vi } from "vitest";
import {
  ConnectionLostError,
  FaaSClient,
  ImageUnavailableError,
  NotFoundError,
  OverloadedError,
  ResponseFormatError,
} from "../src/index.js";
import { PIECE_BYTES } from "../src/transport/upload.js";
import { QUICK, test as withStub } from "./fixture.js";
import { image, problem, type Reply, rejection } from "./stub.js";

const NDJSON = { "content-type": "application/x-ndjson" };
const STEP = { event: "progress", phase: "receiving", layer: "sha256:aa", done_bytes: 1, total_bytes: 2 };
const DONE = { event: "done", images: [image()] };
const [A, B, C] = ["1", "2", "3"].map((digit) => `sha256:${digit.repeat(64)}`);
const NEVER = new Promise<void>(() => {});
const ignore = (): void => {};

const test = withStub.extend<{ folder: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants the pattern
  folder: async ({}, use) => {
    const folder = await mkdtemp(join(tmpdir(), "faas-sdk-"));
    await use(folder);
    await rm(folder, { recursive: true });
  },
});

function added(...images: unknown[]): Reply {
  return { status: 201, json: { images } };
}

function events(said: readonly (object | string)[], more: Reply = {}): Reply {
  const body = said.map((event) => (typeof event === "string" ? event : `${JSON.stringify(event)}\n`)).join("");
  return { status: 201, body, headers: NDJSON, ...more };
}

function overloaded(): Reply {
  return { status: 503, json: problem(503, "overloaded", { retryable: true }) };
}

function streamOf(...pieces: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    pull(controller) {
      const piece = pieces.shift();
      if (piece === undefined) {
        controller.close();
      } else {
        controller.enqueue(piece);
      }
    },
  });
}

/** How many of this process's descriptors are of files below a folder. */
function openedBelow(folder: string): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
    } catch {
      return false; // the descriptor of the listing itself
    }
  }).length;
}

test("a pull with an idempotency key is sent again and has no progress", async ({ client, stub }) => {
  stub.replies({ cutAfter: -1 }, added(image()));
  await client.images.pull("tiny:1", { idempotencyKey: "k" });
  expect(stub.seen.map((seen) => seen.headers["idempotency-key"])).toEqual(["k", "k"]);
  const both = client.images.pull("tiny:1", { idempotencyKey: "k", onProgress: ignore });
  await expect(both).rejects.toThrow("onProgress");
  expect(stub.seen).toHaveLength(2);
});

test("every member of an image is read", async ({ client, stub }) => {
  const body = image({ created_at: "2020-01-01T00:00:00Z", entrypoint: ["/bin/x"], user: "nobody", newer: 1 });
  stub.replies({ json: [body] });
  expect(await client.images.list()).toEqual([
    {
      id: body.id,
      names: body.names,
      repoDigests: body.repo_digests,
      architecture: "amd64",
      createdAt: "2020-01-01T00:00:00Z",
      sizeBytes: 4096,
      layers: 1,
      addedAt: body.added_at,
      lastUsedAt: body.last_used_at,
      inUse: false,
      envVars: { PATH: "/bin" },
      workingDir: "/",
      user: "nobody",
      entrypoint: ["/bin/x"],
      cmd: ["sh"],
    },
  ]);
  expect(stub.seen[0]).toMatchObject({ method: "GET", path: "/api/v1/images" });
});

test("a list of several pages is one list", async ({ client, stub }) => {
  stub.replies(
    { json: [image({ id: A })], headers: { "x-next-cursor": "1f-a" } },
    { json: [image({ id: B })], headers: { "x-next-cursor": "2f-b&" } },
    { json: [image({ id: C })] },
  );
  expect((await client.images.list()).map((found) => found.id)).toEqual([A, B, C]);
  expect(stub.seen.map((seen) => seen.path.split("?")[1])).toEqual([undefined, "cursor=1f-a", "cursor=2f-b%26"]);
});

test("a limit is of all pages", async ({ client, stub }) => {
  stub.replies(
    { json: [image({ id: A }), image({ id: B })], headers: { "x-next-cursor": "a" } },
    { json: [image({ id: C })], headers: { "x-next-cursor": "b" } },
  );
  expect((await client.images.list({ limit: 3 })).map((found) => found.id)).toEqual([A, B, C]);
  expect(stub.seen.map((seen) => seen.path.split("?")[1])).toEqual(["limit=3", "limit=1&cursor=a"]);
  stub.replies({ json: [] });
  expect(await client.images.list({ name: "tiny:1", limit: 5000 })).toEqual([]);
  expect(stub.seen.at(-1)?.path).toBe("/api/v1/images?name=tiny%3A1&limit=1000");
});

describe("a list that is not the contract's is refused", () => {
  const cases: [Reply, string][] = [
    [{ json: {} }, "the body is an object, not an array"],
    [{ json: [image(), 1] }, "/1 is a number, not an object"],
    [{ json: [image({ layers: "1" })] }, "/0/layers is a string, not a whole number"],
    [{ json: [image({ env_vars: { A: 1 } })] }, "/0/env_vars/A is a number, not a string"],
    [{ json: [], headers: { "x-next-cursor": "a" } }, "this one again"],
    [{ json: [image()], headers: { "x-next-cursor": "a" } }, "this one again"],
  ];
  test.for(cases)("%o", async ([reply, words], { client, stub }) => {
    stub.replies(reply);
    const error = await rejection(client.images.list());
    expect(error).toBeInstanceOf(ResponseFormatError);
    expect(error).toMatchObject({ message: expect.stringContaining(words) });
  });
});

test("a page is asked for again where the connection breaks", async ({ client, stub }) => {
  stub.replies({ json: [image()], cutAfter: 5 }, { json: [image()] });
  expect(await client.images.list()).toHaveLength(1);
});

test("pull without progress is one answer", async ({ client, stub }) => {
  stub.replies(added(image()));
  expect((await client.images.pull("tiny:1")).names).toEqual(["docker.io/library/tiny:1"]);
  expect(stub.seen).toHaveLength(1);
  expect(stub.seen[0]).toMatchObject({ method: "POST", path: "/api/v1/images", json: { name: "tiny:1" } });
  expect(stub.seen[0]?.headers).toMatchObject({ accept: "application/json", "content-type": "application/json" });
});

test("pull tells of its progress as it comes", async ({ client, stub }) => {
  let release = ignore;
  const hold = new Promise<void>((resolve) => {
    release = resolve;
  });
  const second = { ...STEP, phase: "größer", layer: null, total_bytes: null };
  // The rest, from the middle of a character on, is sent only after the first step has been told of.
  const holdAfter = Buffer.from(`${JSON.stringify(STEP)}\n\n${JSON.stringify(second).split("ö")[0]}`).length + 1;
  stub.replies(events([STEP, "\n", second, DONE], { hold, holdAfter }));
  const steps: unknown[] = [];
  const onProgress = (step: unknown): void => {
    steps.push(step);
    release();
  };
  expect((await client.images.pull("tiny:1", { onProgress })).id).toBe(image().id);
  expect(stub.seen[0]?.headers.accept).toBe("application/x-ndjson");
  expect(steps).toEqual([
    { phase: "receiving", layer: "sha256:aa", doneBytes: 1, totalBytes: 2 },
    { phase: "größer", layer: null, doneBytes: 1, totalBytes: null },
  ]);
});

test("events of a newer gateway are passed over", async ({ client, stub }) => {
  stub.replies(events([{ event: "warning", phase: 1 }, DONE, "not looked at any more\n"]));
  expect((await client.images.pull("tiny:1", { onProgress: ignore })).id).toBe(image().id);
});

test("a document in place of events is read", async ({ client, stub }) => {
  stub.replies(added(image()));
  expect((await client.images.pull("tiny:1", { onProgress: ignore })).id).toBe(image().id);
});

test("an error before the first step has its class", async ({ client, stub }) => {
  stub.replies({ status: 502, json: problem(502, "image_unavailable") });
  for (const options of [{}, { onProgress: ignore }]) {
    expect(await rejection(client.images.pull("none", options))).toBeInstanceOf(ImageUnavailableError);
  }
  expect(stub.seen).toHaveLength(2);
});

test("an error among the events has its class and status", async ({ client, stub }) => {
  stub.replies(events([STEP, { event: "error", ...problem(502, "image_unavailable", { retryable: true }) }]));
  const error = await rejection(client.images.pull("none", { onProgress: ignore }));
  expect(error).toBeInstanceOf(ImageUnavailableError);
  expect(error).toMatchObject({
    status: 502,
    detail: "this is image_unavailable",
    requestId: "req-9",
    retryable: true,
  });
});

describe("events without an end are a lost connection and not asked for again", () => {
  const cases: [string, Reply][] = [
    ["broken off", events([STEP, DONE], { cutAfter: 20 })],
    ["ended", events([STEP])],
    ["last line unfinished", events([STEP, JSON.stringify(DONE)])],
    ["nothing", events([])],
  ];
  test.for(cases)("%s", async ([, reply], { client, stub }) => {
    stub.replies(reply);
    const error = await rejection(client.images.pull("tiny:1", { onProgress: ignore }));
    expect(error).toBeInstanceOf(ConnectionLostError);
    expect(error).toMatchObject({ requestSent: true });
    expect(stub.seen).toHaveLength(1);
  });
});

describe("events that are not the contract's are refused", () => {
  const cases: [object | string, string][] = [
    ["<html>\n", "a line is not JSON"],
    ["[]\n", "the body is an array, not an object"],
    [{ phase: "x" }, "/event is missing"],
    [{ ...STEP, done_bytes: "1" }, "/done_bytes is a string"],
    [{ event: "done", images: [{}] }, "/images/0/id is missing"],
    [{ event: "done", images: [] }, "/images has 0 entries for one image"],
  ];
  test.for(cases)("%o", async ([event, words], { client, stub }) => {
    stub.replies(events([event]));
    const error = await rejection(client.images.pull("tiny:1", { onProgress: ignore }));
    expect(error).toBeInstanceOf(ResponseFormatError);
    expect(error).toMatchObject({ message: expect.stringContaining(words) });
  });
});

test("what onProgress throws ends the call", async ({ client, stub }) => {
  stub.replies(events([STEP, STEP, DONE]));
  const onProgress = vi.fn(() => {
    throw new SyntaxError("enough");
  });
  expect(await rejection(client.images.pull("tiny:1", { onProgress }))).toMatchObject({ message: "enough" });
  expect(onProgress).toHaveBeenCalledTimes(1);
  expect(stub.seen).toHaveLength(1);
});

test("aborting between two events rejects with the reason", async ({ client, stub }) => {
  stub.replies(events([STEP, DONE], { hold: NEVER, holdAfter: JSON.stringify(STEP).length + 1 }));
  const controller = new AbortController();
  const onProgress = (): void => controller.abort(new Error("enough"));
  const error = await rejection(client.images.pull("tiny:1", { onProgress, signal: controller.signal }));
  expect(error).toMatchObject({ message: "enough" });
});

test("an archive is sent from its path", async ({ client, stub, folder }) => {
  const content = randomBytes(2 * PIECE_BYTES + 7);
  const path = join(folder, "image.tar");
  await writeFile(path, content);
  stub.replies(added(image({ id: A }), image({ id: B })));
  for (const source of [path, pathToFileURL(path)]) {
    const found = await client.images.import(source, { name: "mine:1" });
    expect(found.map(({ id }) => id)).toEqual([A, B]);
  }
  for (const seen of stub.seen) {
    expect(seen).toMatchObject({ method: "POST", path: "/api/v1/images?name=mine%3A1" });
    expect(seen.headers).toMatchObject({
      "content-type": "application/octet-stream",
      "content-length": String(content.length),
    });
    expect(seen.bytes.equals(content)).toBe(true);
  }
  expect(stub.seen).toHaveLength(2);
  expect(openedBelow(folder)).toBe(0);
});

test("an archive is never in memory as a whole", async ({ folder }) => {
  const bytes = 256 << 20;
  const path = join(folder, "image.tar");
  await writeFile(path, "");
  await truncate(path, bytes);
  let received = 0;
  const server = createServer(async (request, response) => {
    for await (const piece of request) {
      received += piece.length;
    }
    response.writeHead(201, { "content-type": "application/json" }).end('{"images":[]}');
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const program = `
    import { FaaSClient } from "faas-sdk";
    await new FaaSClient().images.import(process.argv[1]);
    console.log(process.resourceUsage().maxRSS);
  `;
  const { port } = server.address() as AddressInfo;
  const env = { ...process.env, FAAS_BASE_URL: `http://127.0.0.1:${port}` };
  const cwd = fileURLToPath(new URL("..", import.meta.url));
  const args = ["--input-type=module", "-e", program, path];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd, env });
  server.close();
  expect(received).toBe(bytes);
  expect(Number(stdout) * 1024).toBeLessThan(bytes);
});

test("an archive may be bytes, and of a view its bytes alone", async ({ client, stub }) => {
  stub.replies(added(image()));
  await client.images.import(new Uint8Array([9, 1, 2, 9]).subarray(1, 3));
  expect(stub.seen[0]?.path).toBe("/api/v1/images");
  expect([...(stub.seen[0]?.bytes ?? [])]).toEqual([1, 2]);
});

test("an archive may be a stream", async ({ client, stub }) => {
  stub.replies(added(image()));
  await client.images.import(streamOf(Buffer.from("arch"), Buffer.from("ive")));
  expect(stub.seen[0]?.raw).toBe("archive");
  expect(stub.seen[0]?.headers["transfer-encoding"]).toBe("chunked");
});

test("import tells of its progress", async ({ client, stub }) => {
  stub.replies(events([{ ...STEP, phase: "committing" }, DONE]));
  const phases: string[] = [];
  await client.images.import(Buffer.from("x"), { onProgress: (step) => phases.push(step.phase) });
  expect(phases).toEqual(["committing"]);
  expect(stub.seen[0]?.headers.accept).toBe("application/x-ndjson");
});

test("an archive that can be read again is sent again", async ({ client, stub, folder }) => {
  await writeFile(join(folder, "image.tar"), "archive");
  stub.replies(overloaded(), added(image()), overloaded(), added(image()));
  await client.images.import(join(folder, "image.tar"));
  await client.images.import(Buffer.from("archive"));
  expect(stub.seen.map((seen) => seen.raw)).toEqual(Array(4).fill("archive"));
});

test("a redirect of a stream is not followed", async ({ client, stub }) => {
  stub.replies({ status: 308, json: {}, headers: { location: `${stub.url}/elsewhere` } });
  await expect(client.images.import(streamOf(Buffer.from("archive")))).rejects.toThrow("unexpected redirect");
  expect(stub.seen).toHaveLength(1);
});

test("an archive from a stream is sent once", async ({ client, stub }) => {
  stub.replies(overloaded());
  const error = await rejection(client.images.import(streamOf(Buffer.from("archive"))));
  expect(error).toBeInstanceOf(OverloadedError);
  expect(stub.seen).toHaveLength(1);
});

test("a pipe at a path is read once", async ({ client, stub, folder }) => {
  const path = join(folder, "pipe");
  execFileSync("mkfifo", [path]);
  stub.replies(overloaded());
  const [error] = await Promise.all([rejection(client.images.import(path)), writeFile(path, "archive")]);
  expect(error).toBeInstanceOf(OverloadedError);
  expect(stub.seen.map((seen) => seen.raw)).toEqual(["archive"]);
});

test("what is no archive is refused before anything is sent", async ({ client, stub, folder }) => {
  await expect(client.images.import(folder)).rejects.toThrow("is a directory, not an archive; make a tar of it");
  await expect(client.images.import(join(folder, "missing"))).rejects.toMatchObject({ code: "ENOENT" });
  for (const wrong of [undefined, null, 7, {}]) {
    await expect(client.images.import(wrong as unknown as string)).rejects.toThrow("an archive is a path");
  }
  await expect(client.images.pull(7 as unknown as string)).rejects.toThrow("name is a string, not number");
  await expect(client.images.remove(null as unknown as string)).rejects.toThrow("name is a string, not null");
  const misspelt = { onprogress: ignore } as object;
  await expect(client.images.import(Buffer.from("x"), misspelt)).rejects.toThrow("no option onprogress");
  await expect(client.images.pull("x", misspelt)).rejects.toThrow("no option onprogress");
  await expect(client.images.list(misspelt)).rejects.toThrow("no option onprogress");
  await expect(client.images.remove("x", misspelt)).rejects.toThrow("no option onprogress");
  expect(stub.seen).toEqual([]);
});

test("a file that becomes shorter meanwhile is told of, and one that grows is sent as it was", async ({
  stub,
  folder,
}) => {
  const path = join(folder, "image.tar");
  stub.replies(added(image()));
  const importing = async (change: () => Promise<void>): Promise<unknown> => {
    await writeFile(path, "abcd");
    const client = new FaaSClient({
      baseUrl: stub.url,
      retry: QUICK,
      fetch: async (input, init) => {
        await change();
        return fetch(input, init);
      },
    });
    return client.images.import(path);
  };
  await expect(importing(() => truncate(path, 2))).rejects.toThrow("2 bytes shorter");
  await importing(() => writeFile(path, "abcdef"));
  expect(stub.seen.map((seen) => seen.raw)).toEqual(["abcd"]);
  expect(openedBelow(folder)).toBe(0);
});

test("aborting an import closes its file and rejects with the reason", async ({ client, stub, folder }) => {
  const path = join(folder, "image.tar");
  await writeFile(path, randomBytes(PIECE_BYTES));
  stub.replies({ ...added(image()), hold: NEVER });
  const controller = new AbortController();
  const arrived = stub.arrival();
  const call = rejection(client.images.import(path, { signal: controller.signal }));
  await arrived;
  controller.abort(new Error("enough"));
  expect(await call).toMatchObject({ message: "enough" });
  expect(openedBelow(folder)).toBe(0);
});

test("remove has no result", async ({ client, stub }) => {
  stub.replies({ status: 204 });
  expect(await client.images.remove("reg:5000/a b@sha256:0")).toBeUndefined();
  expect(stub.seen[0]).toMatchObject({
    method: "DELETE",
    path: "/api/v1/images?name=reg%3A5000%2Fa+b%40sha256%3A0",
  });
});

test("a removal that may have been done is not sent twice", async ({ client, stub }) => {
  stub.replies({ json: {}, cutAfter: 1 });
  await expect(client.images.remove("tiny:1")).rejects.toBeInstanceOf(ConnectionLostError);
  expect(stub.seen).toHaveLength(1);
});

test("removing what is not there has its class", async ({ client, stub }) => {
  stub.replies({ status: 404, json: problem(404, "not_found") });
  expect(await rejection(client.images.remove("tiny:1"))).toBeInstanceOf(NotFoundError);
});
