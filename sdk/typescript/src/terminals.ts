// Terminals in instances: what `instance.pty()` gives.
//
// A connection to a terminal may come and go; what runs in it goes on, and is ended by `executions.cancel`.

import { resizeFrame, TerminalState, terminalPath } from "./core/operations/terminals.js";
import type { TerminalOptions, WaitOptions } from "./options.js";
import type { FetchTransport } from "./transport/fetch.js";
import { Socket } from "./transport/socket.js";
import type { ExecutionInfo, GapEvent } from "./types.js";

/**
 * A terminal of an `Instance`: an asynchronous iterable of what it shows. With `await using` its connection is closed at the
 * end of the block.
 */
export class Terminal implements AsyncDisposable {
  readonly #transport: FetchTransport;
  readonly #instanceId: string;
  readonly #state: TerminalState;
  #socket: Socket;

  private constructor(transport: FetchTransport, instanceId: string, state: TerminalState, socket: Socket) {
    this.#transport = transport;
    this.#instanceId = instanceId;
    this.#state = state;
    this.#socket = socket;
  }

  /** A terminal with a connection. Of this package's own use: see `instance.pty`. */
  static async connect(transport: FetchTransport, instanceId: string, options: TerminalOptions): Promise<Terminal> {
    const state = new TerminalState();
    const socket = await begun(transport, terminalPath(instanceId, options), state, options.signal);
    return new Terminal(transport, instanceId, state, socket);
  }

  /** The id of what runs in it, as an execution of its instance. */
  get executionId(): string {
    return this.#state.executionId ?? "";
  }

  /** The offset of the next byte of output: what a later connection can go on with. */
  get offset(): number {
    return this.#state.offset;
  }

  /** Output that was lost, since this reader was too slow for it. */
  get gaps(): readonly GapEvent[] {
    return this.#state.gaps;
  }

  /** How what ran in it ended; null while it runs. */
  get end(): ExecutionInfo | null {
    return this.#state.end;
  }

  /**
   * The next piece of output, as it came; undefined when what runs in it has ended: `end` tells how. Where its instance ended
   * under it, that has the status `lost`.
   *
   * @throws ConnectionLostError where the connection broke; `reattach` makes another one.
   * @throws APIError where the gateway cannot go on.
   */
  async read(options: WaitOptions = {}): Promise<Uint8Array | undefined> {
    const limits = [
      options.signal,
      options.timeoutMs === undefined ? undefined : AbortSignal.timeout(options.timeoutMs),
    ];
    const signal = AbortSignal.any(limits.filter((limit) => limit !== undefined));
    while (this.#state.end === null) {
      const piece = this.#state.take(await this.#socket.receive(signal));
      if (piece !== undefined && piece.length > 0) {
        return piece;
      }
    }
    return undefined;
  }

  /**
   * Types something: text as UTF-8.
   *
   * @throws ConnectionLostError where the connection is broken, or was closed.
   */
  async write(data: string | Uint8Array): Promise<void> {
    return this.#socket.send(typeof data === "string" ? new TextEncoder().encode(data) : data);
  }

  /** Gives it another size; what runs in it is told by SIGWINCH. */
  async resize(rows: number, cols: number): Promise<void> {
    return this.#socket.send(resizeFrame(rows, cols));
  }

  /**
   * Closes the connection, and connects again to what runs in it.
   *
   * @param options `offset` is the byte of output to go on with; the one after those that were read when not given.
   * @throws GoneError where output from there on is no longer held; has `firstOffset`.
   * @throws NotFoundError where it is no longer known.
   */
  async reattach(options: { readonly offset?: number | undefined; readonly signal?: AbortSignal } = {}): Promise<this> {
    await this.#socket.close();
    const { offset = this.offset, signal } = options;
    const path = terminalPath(this.#instanceId, { executionId: this.executionId, offset });
    this.#socket = await begun(this.#transport, path, this.#state, signal);
    return this;
  }

  /** Closes the connection. What runs in the terminal goes on. May be called twice. */
  async close(): Promise<void> {
    return this.#socket.close();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (let piece = await this.read(); piece !== undefined; piece = await this.read()) {
      yield piece;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function begun(
  transport: FetchTransport,
  path: string,
  state: TerminalState,
  signal: AbortSignal | undefined,
): Promise<Socket> {
  const socket = await Socket.connect(transport.config, path, signal);
  try {
    state.begin(await socket.receive(signal));
  } catch (error) {
    await socket.close();
    throw error;
  }
  return socket;
}
