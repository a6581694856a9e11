// Terminals: frames both ways, connecting again, and what goes wrong.

import type { IncomingMessage } from "node:http";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test as base, describe, expect } from "vitest";
import { type WebSocket, WebSocketServer } from "ws";
import {
  ConflictError,
  ConnectFailedError,
  ConnectionLostError,
  FaaSClient,
  GoneError,
  ResponseFormatError,
  SandboxLostError,
} from "../src/index.js";
import { lasting, problem, rejection } from "./stub.js";

const STARTED = JSON.stringify({ type: "started", execution_id: "exe-1", offset: 5 });
const EXIT = JSON.stringify({ ...lasting({ kind: "terminal", status: "exited", exit_code: 3 }), type: "exit" });

interface Script {
  frames: readonly (string | Uint8Array)[];
  /** How many frames are heard before the last of those is said. */
  hears?: number;
  drops?: boolean;
}

/** A server that does with each connection what the test says. */
class Terminals {
  readonly requests: IncomingMessage[] = [];
  readonly heard: Buffer[] = [];
  refusal: { status: number; body: object } | undefined;
  readonly #scripts: Script[] = [];
  readonly #server: Server;
  readonly #sockets = new WebSocketServer({ noServer: true });

  private constructor() {
    this.#server = createServer();
    this.#server.on("upgrade", (request, socket, head) => {
      this.requests.push(request);
      if (this.refusal !== undefined) {
        const body = JSON.stringify(this.refusal.body);
        const lines = ["content-type: application/problem+json", `content-length: ${body.length}`, "connection: close"];
        socket.end(`HTTP/1.1 ${this.refusal.status} No\r\n${lines.join("\r\n")}\r\n\r\n${body}`);
        return;
      }
      this.#sockets.handleUpgrade(request, socket, head, (connection) => this.#talk(connection));
    });
  }

  static async start(): Promise<Terminals> {
    const terminals = new Terminals();
    await new Promise<void>((resolve) => terminals.#server.listen(0, "127.0.0.1", resolve));
    return terminals;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get queries(): string[] {
    return this.requests.map(({ url }) => url?.split("?")[1] ?? "");
  }

  says(...scripts: Script[]): void {
    this.#scripts.push(...scripts);
  }

  async stop(): Promise<void> {
    for (const connection of this.#sockets.clients) {
      connection.terminate();
    }
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #talk(connection: WebSocket): void {
    const { frames, hears = 0, drops = false } = this.#scripts.shift() ?? { frames: [] };
    let left = hears;
    const end = (): void => {
      const last = frames.at(-1);
      connection.send(last ?? "", () => drops && connection.terminate());
    };
    for (const frame of frames.slice(0, -1)) {
      connection.send(frame);
    }
    connection.on("message", (data: Buffer) => {
      this.heard.push(data);
      left--;
      if (left === 0) {
        end();
      }
    });
    if (hears === 0) {
      end();
    }
  }
}

const test = base.extend<{ server: Terminals; client: FaaSClient }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants the pattern
  server: async ({}, use) => {
    const server = await Terminals.start();
    await use(server);
    await server.stop();
  },
  client: async ({ server }, use) => {
    await use(new FaaSClient({ baseUrl: server.url, headers: { "x-mine": "yes" } }));
  },
});

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (piece: Uint8Array | undefined): string | undefined => piece && Buffer.from(piece).toString("latin1");

test("bytes go both ways and the end is told", async ({ client, server }) => {
  server.says({ frames: [STARTED, bytes("$ "), new Uint8Array([255]), EXIT], hears: 3 });
  const terminal = await client.instances.pty("ins-1", {
    rows: 30,
    cols: 90,
    command: "top",
    user: "1",
    workingDir: "/w",
  });
  expect([terminal.executionId, terminal.offset, terminal.end]).toEqual(["exe-1", 5, null]);
  expect([text(await terminal.read()), text(await terminal.read())]).toEqual(["$ ", "\xff"]);
  expect(terminal.offset).toBe(8);
  await terminal.write("h\u00e9\n");
  await terminal.resize(50, 132);
  await terminal.write(new Uint8Array([3]));
  expect([await terminal.read(), await terminal.read()]).toEqual([undefined, undefined]);
  expect(terminal.end).toMatchObject({ exitCode: 3, kind: "terminal" });
  await terminal.close();
  await terminal.close();
  expect(server.requests[0]?.url).toBe(
    "/api/v1/instances/ins-1/pty?rows=30&cols=90&command=top&user=1&working_dir=%2Fw",
  );
  expect(server.requests[0]?.headers["x-mine"]).toBe("yes");
  expect(server.requests[0]?.headers["user-agent"]).toMatch(/^faas-sdk-typescript\//);
  expect(server.heard[0]?.toString()).toBe("h\u00e9\n");
  expect(JSON.parse(server.heard[1]?.toString() ?? "")).toEqual({ type: "resize", rows: 50, cols: 132 });
  expect([...(server.heard[2] ?? [])]).toEqual([3]);
});

test("a terminal is an iterable and closes its connection", async ({ client, server }) => {
  server.says({ frames: [STARTED, bytes("a"), JSON.stringify({ type: "newer" }), bytes("b"), EXIT] });
  const terminal = await client.instances.pty("ins-1");
  const got: (string | undefined)[] = [];
  for await (const piece of terminal) {
    got.push(text(piece));
  }
  expect(got).toEqual(["a", "b"]);
  expect(server.queries).toEqual(["rows=24&cols=80"]);
  await terminal[Symbol.asyncDispose]();
  expect(await rejection(terminal.write("x"))).toBeInstanceOf(ConnectionLostError);
});

test("a connection that drops is made again where it was", async ({ client, server }) => {
  const started = (offset: number): string => JSON.stringify({ type: "started", execution_id: "exe-1", offset });
  const gap = JSON.stringify({ type: "gap", from: 9, to: 100 });
  server.says(
    { frames: [STARTED, bytes("abc")], drops: true },
    { frames: [started(8), bytes("d")] },
    { frames: [started(0), gap, bytes("e")] },
    { frames: [STARTED, bytes("f")] },
  );
  const terminal = await client.instances.pty("ins-1");
  expect(text(await terminal.read())).toBe("abc");
  expect(await rejection(terminal.read())).toBeInstanceOf(ConnectionLostError);
  expect(await terminal.reattach()).toBe(terminal);
  expect(text(await terminal.read())).toBe("d");
  await terminal.reattach({ offset: 0 });
  expect(text(await terminal.read())).toBe("e");
  expect([terminal.gaps, terminal.offset]).toEqual([[{ event: "gap", from: 9, to: 100 }], 101]);
  const other = await client.instances.pty("ins-1", { executionId: "exe-1", offset: 5 });
  expect(text(await other.read())).toBe("f");
  await Promise.all([terminal.close(), other.close()]);
  expect(server.queries.slice(1)).toEqual([
    "execution_id=exe-1&offset=8",
    "execution_id=exe-1&offset=0",
    "execution_id=exe-1&offset=5",
  ]);
});

test("a read has its time and loses nothing", async ({ client, server }) => {
  server.says({ frames: [STARTED, bytes("late")], hears: 1 });
  const terminal = await client.instances.pty("ins-1");
  expect(await rejection(terminal.read({ timeoutMs: 50 }))).toMatchObject({ name: "TimeoutError" });
  await terminal.write("go");
  expect(text(await terminal.read({ timeoutMs: 10_000 }))).toBe("late");
  await terminal.close();
});

test("a reader that takes its time gets every frame", async ({ client, server }) => {
  const frames = Array.from({ length: 200 }, (_, n) => bytes(`${n};`));
  server.says({ frames: [STARTED, ...frames, EXIT] });
  const terminal = await client.instances.pty("ins-1");
  await new Promise((resolve) => setTimeout(resolve, 100));
  let got = "";
  for await (const piece of terminal) {
    got += text(piece);
  }
  expect(got).toBe(Array.from({ length: 200 }, (_, n) => `${n};`).join(""));
  await terminal.close();
});

describe("a refusal has its class", () => {
  test.for([
    [409, "conflict", ConflictError],
    [410, "gone", GoneError],
  ] as const)("%i %s", async ([status, code, kind], { client, server }) => {
    server.refusal = { status, body: problem(status, code, { first_offset: 7 }) };
    const error = await rejection(client.instances.pty("ins-1"));
    expect(error).toBeInstanceOf(kind);
    expect(error).toMatchObject({ status, detail: `this is ${code}`, ...(status === 410 ? { firstOffset: 7 } : {}) });
  });

  test("also on the connection", async ({ client, server }) => {
    const lost = JSON.stringify({ ...problem(502, "sandbox_lost"), type: "error" });
    server.says({ frames: [lost] }, { frames: [STARTED, lost] });
    expect(await rejection(client.instances.pty("ins-1"))).toBeInstanceOf(SandboxLostError);
    const terminal = await client.instances.pty("ins-1");
    expect(await rejection(terminal.read())).toBeInstanceOf(SandboxLostError);
    await terminal.close();
  });
});

describe("what is not the contract's is refused", () => {
  test.for([
    ["x", "a text frame is not JSON"],
    ["[]", "the body is an array, not an object"],
    ["{}", "/type is missing"],
    ['{"type": "started"}', "/execution_id is missing"],
    ['{"type": "newer"}', "does not say first that it is there"],
    [bytes("$ "), "does not say first that it is there"],
  ] as const)("%s", async ([frame, words], { client, server }) => {
    server.says({ frames: [frame] });
    const error = await rejection(client.instances.pty("ins-1"));
    expect(error).toBeInstanceOf(ResponseFormatError);
    expect(error).toMatchObject({ message: expect.stringContaining(words) });
  });
});

test("nobody there is an error, and what cannot be asked for is refused", async () => {
  const nobody = new FaaSClient({ baseUrl: "http://127.0.0.1:1" });
  expect(await rejection(nobody.instances.pty("ins-1"))).toBeInstanceOf(ConnectFailedError);
  expect(await rejection(nobody.instances.pty("ins-1", { offset: 3 }))).toBeInstanceOf(TypeError);
  expect(await rejection(nobody.instances.pty("ins-1", { colums: 3 } as object))).toBeInstanceOf(TypeError);
});
