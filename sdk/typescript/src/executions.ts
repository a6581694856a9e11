// Commands that go on by themselves: the member `executions` of the client. A verb takes an execution's id, or is called on
// the `Execution` that `instance.exec` with `background`, `instance.executions` and `get` give.

import { Buffer } from "node:buffer";
import { ExecutionEvents } from "./core/execute-events.js";
import { cancel, get, input, signal } from "./core/operations/executions.js";
import { APIError, GoneError } from "./errors.js";
import type { CallOptions, InputOptions, StreamOptions, WaitOptions } from "./options.js";
import type { FetchTransport } from "./transport/fetch.js";
import type { ExecutionEvent, ExecutionInfo, ExecutionOutput, GapEvent } from "./types.js";

/** The wait before an execution is asked for again whose stream has ended and which still runs. */
const SETTLE_MS = 50;

/** One lasting execution. It goes on whatever becomes of this object, of the client and of the gateway. */
export class Execution {
  readonly #transport: FetchTransport;
  #info: ExecutionInfo;

  constructor(transport: FetchTransport, info: ExecutionInfo) {
    this.#transport = transport;
    this.#info = info;
  }

  /** All that the gateway said of it, at the last call that told of it. */
  get info(): ExecutionInfo {
    return this.#info;
  }

  /** Its id. */
  get id(): string {
    return this.#info.executionId;
  }

  /** Where it stood at the last call that told of it. */
  get status(): string {
    return this.#info.status;
  }

  /** Its exit code, likewise; null while it has none. */
  get exitCode(): number | null {
    return this.#info.exitCode;
  }

  /** Asks the gateway for it once more. */
  async refresh(options: CallOptions = {}): Promise<this> {
    this.#info = await this.#transport.send(get(this.id, options));
    return this;
  }

  /**
   * Resolves when it has ended, however it ended: `status` and `exitCode` tell.
   *
   * @throws NotFoundError where it is no longer known: its instance was deleted.
   * @throws TransportError where the gateway cannot be reached any more.
   */
  async wait(options: WaitOptions = {}): Promise<this> {
    const limits = [
      options.signal,
      options.timeoutMs === undefined ? undefined : AbortSignal.timeout(options.timeoutMs),
    ];
    const signal = AbortSignal.any(limits.filter((limit) => limit !== undefined));
    await this.refresh({ signal });
    while (this.status === "running") {
      const source = new ExecutionEvents(this.id, { offset: this.#info.nextOffset, signal });
      try {
        for await (const _ of this.#transport.stream(source)) {
          // What it writes is of no account here.
        }
      } catch (error) {
        // Where it writes faster than it was asked where it stands, that is asked for again.
        if (!(error instanceof GoneError || (error instanceof APIError && source.saidError))) {
          throw error;
        }
      }
      await this.refresh({ signal });
      if (this.status === "running") {
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      }
    }
    return this;
  }

  /** Its output from an offset on, and then as it comes; see {@link Executions.stream}. */
  stream(options: StreamOptions = {}): AsyncGenerator<ExecutionEvent, void, undefined> {
    return this.#transport.stream(new ExecutionEvents(this.id, options));
  }

  /**
   * All of its output that is held, when it has ended, however it ended.
   *
   * @throws APIError where the gateway refused or failed.
   */
  async output(options: CallOptions = {}): Promise<ExecutionOutput> {
    const source = new ExecutionEvents(this.id, options);
    const said = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
    const gaps: GapEvent[] = [];
    try {
      for await (const event of this.#transport.stream(source)) {
        if (event.event === "gap") {
          gaps.push(event);
        } else if (event.event !== "exit") {
          said[event.event].push(event.bytes);
        }
      }
      await this.refresh(options);
    } catch (error) {
      if (!(error instanceof APIError && source.saidError) || (await this.refresh(options)).status === "running") {
        throw error;
      }
    }
    const [stdout, stderr] = [Buffer.concat(said.stdout), Buffer.concat(said.stderr)];
    return {
      stdout: stdout.toString("utf8"),
      stderr: stderr.toString("utf8"),
      stdoutBytes: new Uint8Array(stdout),
      stderrBytes: new Uint8Array(stderr),
      gaps,
    };
  }

  /** Gives it input; see {@link Executions.input}. */
  async input(data: string | Uint8Array, options: InputOptions = {}): Promise<void> {
    return this.#transport.send(input(this.id, data, options));
  }

  /** Sends it a signal; see {@link Executions.signal}. */
  async signal(name: string | number, options: CallOptions = {}): Promise<void> {
    return this.#transport.send(signal(this.id, name, options));
  }

  /** Ends it with all that it started; see {@link Executions.cancel}. */
  async cancel(options: CallOptions = {}): Promise<void> {
    return this.#transport.send(cancel(this.id, options));
  }
}

/** The lasting executions of a `FaaSClient`. */
export class Executions {
  readonly #transport: FetchTransport;

  constructor(transport: FetchTransport) {
    this.#transport = transport;
  }

  /**
   * One execution.
   *
   * @throws NotFoundError where there is none of that id.
   */
  async get(id: string, options: CallOptions = {}): Promise<Execution> {
    return new Execution(this.#transport, await this.#transport.send(get(id, options)));
  }

  /**
   * Its output from an offset on, and then as it comes; the last event is `exit`.
   *
   * When the connection breaks it goes on where it was, as often as the client's retry policy says. Leaving the loop ends
   * nothing. Works for one that has ended, too.
   *
   * @throws GoneError where output from there on is no longer held; has `firstOffset`.
   * @throws RangeNotSatisfiableError where there is not so much; has `nextOffset`.
   * @throws ExecutionTimeoutError where it came to its timeout; its output came before.
   * @throws SandboxLostError where its sandbox or agent ended under it; its output came before.
   * @throws TransportError where the gateway cannot be reached any more.
   */
  stream(id: string, options: StreamOptions = {}): AsyncGenerator<ExecutionEvent, void, undefined> {
    return this.#transport.stream(new ExecutionEvents(id, options));
  }

  /**
   * Gives it input; it was started with `stdinOpen`, or has a terminal.
   *
   * @throws ConflictError where it has ended, has no open standard input, or reads no more.
   */
  async input(id: string, data: string | Uint8Array, options: InputOptions = {}): Promise<void> {
    return this.#transport.send(input(id, data, options));
  }

  /**
   * Sends it a signal, by its name (`"SIGTERM"`) or number.
   *
   * @throws ConflictError where it has ended.
   * @throws InvalidRequestError where there is no such signal.
   */
  async signal(id: string, name: string | number, options: CallOptions = {}): Promise<void> {
    return this.#transport.send(signal(id, name, options));
  }

  /**
   * Ends it with all that it started, and resolves when it has ended. Once more is no error.
   *
   * @throws NotFoundError where there is none of that id.
   */
  async cancel(id: string, options: CallOptions = {}): Promise<void> {
    return this.#transport.send(cancel(id, options));
  }
}
