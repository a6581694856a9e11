// WebSocket connections to the gateway, over the package ws.
//
// The global WebSocket of newer Nodes is not used: it does not tell why the gateway refuses a connection, sends no headers
// of the client's, and cannot be told to wait.

import type { Buffer } from "node:buffer";
import type { IncomingMessage } from "node:http";
import type { WebSocket } from "ws";
import type { ClientConfig } from "../core/config.js";
import { apiError } from "../core/problem.js";
import { ConnectFailedError, ConnectionLostError } from "../errors.js";
import { VERSION } from "../version.js";

/** The longest wait for a connection. */
const CONNECT_TIMEOUT_MS = 10_000;

/** How many frames wait for a reader until the gateway is made to wait. */
const MOST_FRAMES = 16;

/** One connection. */
export class Socket {
  readonly #socket: WebSocket;
  readonly #url: string;
  readonly #frames: (string | Uint8Array)[] = [];
  #wake: (() => void) | undefined;
  #ended: string | undefined;

  private constructor(socket: WebSocket, url: string) {
    this.#socket = socket;
    this.#url = url;
    socket.on("message", (data: Buffer, isBinary) => {
      this.#frames.push(isBinary ? new Uint8Array(data) : data.toString("utf8"));
      if (this.#frames.length >= MOST_FRAMES) {
        socket.pause();
      }
      this.#wake?.();
    });
    socket.on("close", (code, reason) => {
      this.#ended ??= `code ${code}${reason.length === 0 ? "" : `: ${reason.toString("utf8")}`}`;
      this.#wake?.();
    });
    socket.on("error", (error) => {
      this.#ended ??= error.message;
      this.#wake?.();
    });
  }

  /**
   * A new connection.
   *
   * @throws APIError where the gateway refuses it.
   * @throws ConnectFailedError where there is none.
   */
  static async connect(config: ClientConfig, path: string, signal: AbortSignal | undefined): Promise<Socket> {
    signal?.throwIfAborted();
    // Loaded when a terminal is first opened: nothing else needs it.
    const { WebSocket } = await import("ws");
    const url = config.baseUrl + path;
    const socket = new WebSocket(url.replace(/^http/, "ws"), {
      headers: { "user-agent": `faas-sdk-typescript/${VERSION}`, ...config.headers },
      handshakeTimeout: Math.min(config.httpTimeoutMs ?? CONNECT_TIMEOUT_MS, CONNECT_TIMEOUT_MS),
      perMessageDeflate: false,
      maxPayload: 0,
    });
    const connected = new Socket(socket, url);
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => {
        reject(signal?.reason);
        socket.terminate();
      };
      signal?.addEventListener("abort", abort, { once: true });
      socket.once("open", () => {
        signal?.removeEventListener("abort", abort);
        resolve();
      });
      socket.once("error", (error) =>
        reject(new ConnectFailedError(`no terminal from ${url}: ${error.message}`, false)),
      );
      socket.once("unexpected-response", (_request, response) => {
        refusal(response)
          .then(reject, reject)
          .finally(() => socket.terminate());
      });
    });
    return connected;
  }

  /**
   * The next frame.
   *
   * @throws ConnectionLostError where the connection broke, or was closed. Rejects with the signal's reason.
   */
  async receive(signal?: AbortSignal): Promise<string | Uint8Array> {
    while (this.#frames.length === 0) {
      signal?.throwIfAborted();
      if (this.#ended !== undefined) {
        throw this.#lost();
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        signal?.addEventListener("abort", () => resolve(), { once: true });
      });
      this.#wake = undefined;
    }
    const frame = this.#frames.shift() as string | Uint8Array;
    if (this.#frames.length < MOST_FRAMES) {
      this.#socket.resume();
    }
    return frame;
  }

  /**
   * Sends a frame.
   *
   * @throws ConnectionLostError where the connection broke, or was closed.
   */
  async send(frame: string | Uint8Array): Promise<void> {
    if (this.#ended !== undefined || this.#socket.readyState !== this.#socket.OPEN) {
      throw this.#lost();
    }
    await new Promise<void>((resolve, reject) => {
      this.#socket.send(frame, (error) => (error ? reject(this.#lost(error)) : resolve()));
    });
  }

  /** Closes it. May be called twice. */
  async close(): Promise<void> {
    if (this.#socket.readyState === this.#socket.CLOSED) {
      return;
    }
    const closed = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    this.#socket.resume();
    this.#socket.close();
    await closed;
  }

  #lost(cause?: Error): ConnectionLostError {
    const words = this.#ended ?? cause?.message ?? "it is being closed";
    return new ConnectionLostError(`the connection to ${this.#url} is closed: ${words}`, true, { cause });
  }
}

/** The error in an answer that is no connection. */
async function refusal(response: IncomingMessage): Promise<Error> {
  let body = "";
  for await (const piece of response.setEncoding("utf8")) {
    body += piece;
  }
  const headers = new Headers();
  for (const [name, value] of Object.entries(response.headers)) {
    headers.set(name, String(value));
  }
  return apiError({ status: response.statusCode ?? 0, headers, body });
}
