// A gateway made of prepared answers: a local HTTP server on a port of its own.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export const TIMINGS = { queue_us: 1, create_us: 2000, exec_us: 900 };
export const USAGE = { cpu_us: 700, memory_peak_bytes: 1 << 20 };

/** An `ExecuteResponse` with some members changed. */
export function execution(changes: Record<string, unknown> = {}): Record<string, unknown> {
  const body: Record<string, unknown> = {
    request_id: "req-1",
    execution_id: "exec-1",
    exit_code: 0,
    signal: null,
    stdout: "Hello!\n",
    stderr: "",
    stdout_truncated: false,
    stderr_truncated: false,
    duration_ms: 1,
    timings: TIMINGS,
    runtime: "native",
    image: "host",
    usage: USAGE,
    oom_killed: false,
    error: null,
    ...changes,
  };
  return { ...body, output: body.stdout, logs: body.stderr };
}

/** An `ImageInfo` with some members changed. */
export function image(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    id: `sha256:${"a".repeat(64)}`,
    names: ["docker.io/library/tiny:1"],
    repo_digests: [`docker.io/library/tiny@sha256:${"b".repeat(64)}`],
    architecture: "amd64",
    created_at: null,
    size_bytes: 4096,
    layers: 1,
    added_at: "2026-01-02T03:04:05.678Z",
    last_used_at: "2026-01-02T03:04:00Z",
    in_use: false,
    env_vars: { PATH: "/bin" },
    working_dir: "/",
    user: "",
    entrypoint: [],
    cmd: ["sh"],
    ...changes,
  };
}

/** An `Instance` with some members changed. */
export function instance(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    id: "ins-1",
    name: null,
    image: "host",
    runtime: "native",
    status: "running",
    status_reason: null,
    created_at: "2026-01-02T03:04:05.678Z",
    cpu_cores: 0.5,
    memory_mb: 128,
    pids_limit: 64,
    disk_mb: null,
    network: "none",
    labels: {},
    parent_id: null,
    snapshot_id: null,
    ttl_ms: null,
    idle_timeout_ms: null,
    expires_at: null,
    on_timeout: "delete",
    auto_resume: false,
    main: null,
    resources: { cpu_cores: 0.5, memory_mb: 128, disk_mb: null },
    ...changes,
  };
}

/** An `Execution` with some members changed. */
export function lasting(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    execution_id: "exe-1",
    instance_id: "ins-1",
    kind: "command",
    status: "running",
    status_reason: null,
    command: "make",
    background: true,
    tty: null,
    labels: {},
    timeout_ms: null,
    created_at: "2026-01-02T03:04:05.678Z",
    ended_at: null,
    exit_code: null,
    signal: null,
    oom_killed: false,
    stdout_truncated: false,
    stderr_truncated: false,
    duration_ms: null,
    error: null,
    first_offset: 0,
    next_offset: 0,
    ...changes,
  };
}

/** A `FileInfo` with some members changed. */
export function fileInfo(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    path: "/a",
    name: "a",
    type: "file",
    size_bytes: 1,
    mode: "0644",
    uid: 0,
    gid: 0,
    owner: "root",
    group: null,
    modified_at: "2026-01-02T03:04:05.678Z",
    target: null,
    ...changes,
  };
}

/** An answer of events, one a line. */
export function eventLines(said: readonly object[], more: Reply = {}): Reply {
  const body = said.map((event) => `${JSON.stringify(event)}\n`).join("");
  return { body, headers: { "content-type": "application/x-ndjson" }, ...more };
}

/** The same, whose connection breaks after the events. */
export function cutLines(said: readonly object[]): Reply {
  const whole = eventLines([...said, { event: "exit" }]);
  return { ...whole, cutAfter: String(whole.body).length - 3 };
}

/** An error body with some members changed. */
export function problem(status: number, code: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    type: `/docs/errors/${code}`,
    title: code.replaceAll("_", " "),
    status,
    detail: `this is ${code}`,
    code,
    request_id: "req-9",
    retryable: false,
    ...changes,
  };
}

/** One prepared answer. */
export interface Reply {
  status?: number;
  json?: unknown;
  body?: string | Uint8Array;
  headers?: Record<string, string>;
  /** Close the connection after so many bytes of the body; -1: before the status line. */
  cutAfter?: number;
  /** Answer only after this resolves. */
  hold?: Promise<void>;
  /** What is held: all after so many bytes of the body; the whole answer where it is not given. */
  holdAfter?: number;
}

/** One request that arrived. */
export interface Seen {
  method: string;
  path: string;
  headers: IncomingMessage["headers"];
  raw: string;
  bytes: Buffer;
  // biome-ignore lint/suspicious/noExplicitAny: what a test sent, looked into by that test
  json: any;
}

/** Answers the prepared replies in order and the last of them for ever. */
export class StubGateway {
  readonly seen: Seen[] = [];
  /** How many connections were closed while their answer was held. */
  goneWhileHeld = 0;
  readonly #server: Server;
  #replies: Reply[] = [{ json: execution() }];
  #served = 0;
  #arrived: (() => void) | undefined;

  private constructor() {
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  static async start(port = 0): Promise<StubGateway> {
    const stub = new StubGateway();
    await new Promise<void>((resolve, reject) => {
      stub.#server.once("error", reject);
      stub.#server.listen(port, "127.0.0.1", resolve);
    });
    return stub;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  replies(...replies: Reply[]): void {
    this.#replies = replies;
    this.#served = 0;
  }

  /** Resolves when the next request has arrived. */
  arrival(): Promise<void> {
    return new Promise((resolve) => {
      this.#arrived = resolve;
    });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) {
        chunks.push(chunk as Buffer);
      }
    } catch {
      return; // the client of this test has gone away in the middle of its request
    }
    const bytes = Buffer.concat(chunks);
    const raw = bytes.toString("utf8");
    this.seen.push({
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      raw,
      bytes,
      json: raw !== "" && request.headers["content-type"] === "application/json" ? JSON.parse(raw) : undefined,
    });
    const reply = this.#replies[Math.min(this.#served++, this.#replies.length - 1)] ?? {};
    this.#arrived?.();
    if (reply.hold !== undefined && reply.holdAfter === undefined) {
      const gone = new Promise<boolean>((resolve) => response.once("close", () => resolve(true)));
      if (await Promise.race([reply.hold.then(() => false), gone])) {
        this.goneWhileHeld++;
        return;
      }
    }
    if (reply.cutAfter === -1) {
      request.socket.destroy();
      return;
    }
    const status = reply.status ?? 200;
    if (status === 204 || (status === 202 && reply.json === undefined)) {
      response.writeHead(status, { "x-request-id": "req-h" }).end();
      return;
    }
    const body = Buffer.from(reply.body ?? JSON.stringify(reply.json));
    response.writeHead(status, {
      "content-type": status < 400 ? "application/json" : "application/problem+json",
      "x-request-id": "req-h",
      "content-length": body.length,
      ...reply.headers,
    });
    if (reply.holdAfter !== undefined) {
      const gone = new Promise<boolean>((resolve) => response.once("close", () => resolve(true)));
      response.write(body.subarray(0, reply.holdAfter));
      if (await Promise.race([reply.hold?.then(() => false), gone])) {
        this.goneWhileHeld++;
        return;
      }
      response.end(body.subarray(reply.holdAfter));
    } else if (reply.cutAfter === undefined) {
      response.end(body);
    } else {
      response.write(body.subarray(0, reply.cutAfter), () => request.socket.destroy());
    }
  }
}

/** What a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("the promise was kept");
}
