// A gateway made of prepared answers: a local HTTP server on a port of its own.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export const TIMINGS = { queue_us: 1, create_us: 2000, exec_us: 900 };

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
    oom_killed: false,
    error: null,
    ...changes,
  };
  return { ...body, output: body.stdout, logs: body.stderr };
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
}

/** One request that arrived. */
export interface Seen {
  method: string;
  path: string;
  headers: IncomingMessage["headers"];
  raw: string;
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
    for await (const chunk of request) {
      chunks.push(chunk as Buffer);
    }
    const raw = Buffer.concat(chunks).toString("utf8");
    this.seen.push({
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      raw,
      json: raw === "" ? undefined : JSON.parse(raw),
    });
    const reply = this.#replies[Math.min(this.#served++, this.#replies.length - 1)] ?? {};
    this.#arrived?.();
    if (reply.hold !== undefined) {
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
    const body = Buffer.from(reply.body ?? JSON.stringify(reply.json));
    response.writeHead(status, {
      "content-type": status < 400 ? "application/json" : "application/problem+json",
      "x-request-id": "req-h",
      "content-length": body.length,
      ...reply.headers,
    });
    if (reply.cutAfter === undefined) {
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
