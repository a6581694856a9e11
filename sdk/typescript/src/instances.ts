// Sandboxes that outlive one request: the member `instances` of the client. A verb takes an instance's id, or is called on
// the `Instance` that `create`, `get` and `list` give.

import { ExecuteEvents } from "./core/execute-events.js";
import { LogEntries, logs } from "./core/operations/events.js";
import { listed as listedExecutions } from "./core/operations/executions.js";
import {
  create,
  exec,
  execInBackground,
  execStream,
  get,
  listed,
  metrics,
  remove,
  setTimes,
  stop,
  turn,
  update,
} from "./core/operations/instances.js";
import { list } from "./core/pages.js";
import { Execution } from "./executions.js";
import { Files } from "./files.js";
import type {
  CallOptions,
  CreateInstanceOptions,
  ExecOptions,
  InstanceTimes,
  ListExecutionsOptions,
  ListInstancesOptions,
  LogsOptions,
  StopInstanceOptions,
  TerminalOptions,
  UpdateInstanceOptions,
} from "./options.js";
import { Terminal } from "./terminals.js";
import type { FetchTransport } from "./transport/fetch.js";
import type { ExecuteEvent, ExecuteResult, InstanceInfo, InstanceMetrics, LogEntry, MainInfo } from "./types.js";

/** The options of a command that is not waited for. */
export type BackgroundOptions = ExecOptions & { readonly background: true };

/** The options of one that is. */
export type WaitingOptions = ExecOptions & { readonly background?: false | undefined };

/** One instance. With `await using` it is deleted at the end of the block. */
export class Instance implements AsyncDisposable {
  /** Its files. */
  readonly files: Files;
  readonly #instances: Instances;
  #info: InstanceInfo;

  constructor(instances: Instances, info: InstanceInfo) {
    this.files = instances.files(info.id);
    this.#instances = instances;
    this.#info = info;
  }

  /** All that the gateway said of it, at the last call that told of it. */
  get info(): InstanceInfo {
    return this.#info;
  }

  /** Its id. Also its host name. */
  get id(): string {
    return this.#info.id;
  }

  /** The caller's name for it, or null. */
  get name(): string | null {
    return this.#info.name;
  }

  /** Where it stood at the last call that told of it. */
  get status(): string {
    return this.#info.status;
  }

  /** Its main command, as it was at the last call that told of it; null where it has none. */
  get main(): MainInfo | null {
    return this.#info.main;
  }

  /** See {@link Instances.exec}. */
  async exec(command: string | readonly string[], options: BackgroundOptions): Promise<Execution>;
  async exec(command: string | readonly string[], options?: WaitingOptions): Promise<ExecuteResult>;
  async exec(
    command: string | readonly string[],
    options: WaitingOptions | BackgroundOptions = {},
  ): Promise<ExecuteResult | Execution> {
    return options.background === true
      ? this.#instances.exec(this.id, command, options)
      : this.#instances.exec(this.id, command, options);
  }

  /** See {@link Instances.stream}. */
  stream(
    command: string | readonly string[],
    options: ExecOptions = {},
  ): AsyncGenerator<ExecuteEvent, void, undefined> {
    return this.#instances.stream(this.id, command, options);
  }

  /** See {@link Instances.executions}. */
  async executions(options: ListExecutionsOptions = {}): Promise<Execution[]> {
    return this.#instances.executions(this.id, options);
  }

  /** See {@link Instances.logs}. */
  logs(options: LogsOptions & { readonly follow: true }): AsyncGenerator<LogEntry, void, undefined>;
  logs(options?: LogsOptions & { readonly follow?: false | undefined }): Promise<LogEntry[]>;
  logs(options: LogsOptions = {}): AsyncGenerator<LogEntry, void, undefined> | Promise<LogEntry[]> {
    return options.follow === true
      ? this.#instances.logs(this.id, { ...options, follow: true })
      : this.#instances.logs(this.id, { ...options, follow: false });
  }

  /** See {@link Instances.pty}. */
  async pty(options: TerminalOptions = {}): Promise<Terminal> {
    return this.#instances.pty(this.id, options);
  }

  /** See {@link Instances.stop}. */
  async stop(options: StopInstanceOptions = {}): Promise<this> {
    return this.#now(await this.#instances.stop(this.id, options));
  }

  /** See {@link Instances.start}. */
  async start(options: CallOptions = {}): Promise<this> {
    return this.#now(await this.#instances.start(this.id, options));
  }

  /** See {@link Instances.pause}. */
  async pause(options: CallOptions = {}): Promise<this> {
    return this.#now(await this.#instances.pause(this.id, options));
  }

  /** See {@link Instances.resume}. */
  async resume(options: CallOptions = {}): Promise<this> {
    return this.#now(await this.#instances.resume(this.id, options));
  }

  /** See {@link Instances.setTimeout}. */
  async setTimeout(times: InstanceTimes): Promise<this> {
    return this.#now(await this.#instances.setTimeout(this.id, times));
  }

  /** See {@link Instances.update}. */
  async update(limits: UpdateInstanceOptions): Promise<this> {
    return this.#now(await this.#instances.update(this.id, limits));
  }

  /** What it uses now. */
  async metrics(options: CallOptions = {}): Promise<InstanceMetrics> {
    return this.#instances.metrics(this.id, options);
  }

  /** Asks the gateway for it once more. */
  async refresh(options: CallOptions = {}): Promise<this> {
    return this.#now(await this.#instances.get(this.id, options));
  }

  /** See {@link Instances.delete}. */
  async delete(options: CallOptions = {}): Promise<void> {
    return this.#instances.delete(this.id, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }

  #now(told: Instance): this {
    this.#info = told.info;
    return this;
  }
}

/** The instances of a `FaaSClient`. */
export class Instances {
  readonly #transport: FetchTransport;

  constructor(transport: FetchTransport) {
    this.#transport = transport;
  }

  /**
   * Makes an instance and resolves when commands can be run in it.
   *
   * It is there until it is deleted or its time is over, whatever becomes of the client and of the gateway. Where no answer
   * comes, or the call is aborted, it may have been made.
   *
   * @throws ConflictError where another one has this `name`.
   * @throws QuotaExceededError where there are as many as the gateway keeps.
   */
  async create(options: CreateInstanceOptions = {}): Promise<Instance> {
    return this.#told(await this.#transport.send(create(options)));
  }

  /** The instances, the newest first, however many pages they take. */
  async list(options: ListInstancesOptions = {}): Promise<Instance[]> {
    const found = await list(listed(options), (call) => this.#transport.send(call));
    return found.map((info) => this.#told(info));
  }

  /**
   * One instance.
   *
   * @throws NotFoundError where there is none of that id.
   */
  async get(id: string, options: CallOptions = {}): Promise<Instance> {
    return this.#told(await this.#transport.send(get(id, options)));
  }

  /**
   * Runs one command in an instance and resolves when it has ended. What it started in the background runs on.
   *
   * With `background: true` it resolves at once, to the `Execution` that it is: that has no timeout unless one is given, and
   * goes on whatever becomes of the client and of the gateway.
   *
   * @param command a string is run by `/bin/sh -c`; an array of strings is executed as it is.
   * @throws ExecutionTimeoutError where the command was still running at `timeoutMs`; has its output so far.
   * @throws ConflictError where the instance does not run; `detail` says where it stands and what it can be asked.
   * @throws SandboxLostError where the instance ended under the command, or was stopped or deleted.
   */
  async exec(id: string, command: string | readonly string[], options: BackgroundOptions): Promise<Execution>;
  async exec(id: string, command: string | readonly string[], options?: WaitingOptions): Promise<ExecuteResult>;
  async exec(
    id: string,
    command: string | readonly string[],
    options: WaitingOptions | BackgroundOptions = {},
  ): Promise<ExecuteResult | Execution> {
    if (options.background === true) {
      const info = await this.#transport.send(execInBackground(id, command, options));
      return new Execution(this.#transport, info);
    }
    return this.#transport.send(exec(id, command, options));
  }

  /**
   * Runs one command in an instance and gives its output while it runs, as the client's `stream`: leaving the loop ends the
   * command, unless it is one with `keepRunning`.
   */
  stream(
    id: string,
    command: string | readonly string[],
    options: ExecOptions = {},
  ): AsyncGenerator<ExecuteEvent, void, undefined> {
    return this.#transport.stream(new ExecuteEvents(execStream(id, command, options)));
  }

  /**
   * The lasting executions of an instance, the newest first, however many pages they take: what was started in the
   * background or with `keepRunning`, terminals, and runs of the main command.
   */
  async executions(id: string, options: ListExecutionsOptions = {}): Promise<Execution[]> {
    const found = await list(listedExecutions(id, options), (call) => this.#transport.send(call));
    return found.map((info) => new Execution(this.#transport, info));
  }

  /** What became of an instance and what its main command wrote, by time. With `follow: true` also what comes later. */
  logs(id: string, options: LogsOptions & { readonly follow: true }): AsyncGenerator<LogEntry, void, undefined>;
  logs(id: string, options?: LogsOptions & { readonly follow?: false | undefined }): Promise<LogEntry[]>;
  logs(id: string, options: LogsOptions = {}): AsyncGenerator<LogEntry, void, undefined> | Promise<LogEntry[]> {
    return options.follow === true
      ? this.#transport.stream(new LogEntries(id, options))
      : this.#transport.send(logs(id, options));
  }

  /**
   * Opens a terminal in an instance, or connects to one that is there.
   *
   * What runs in it goes on when the connection ends, and is an execution like others:
   * `client.executions.cancel(terminal.executionId)` ends it.
   *
   * @throws ConflictError where the instance does not run.
   * @throws GoneError where output from `offset` on is no longer held; has `firstOffset`.
   * @throws NotFoundError where there is no such instance, or no such terminal.
   */
  async pty(id: string, options: TerminalOptions = {}): Promise<Terminal> {
    return Terminal.connect(this.#transport, id, options);
  }

  /** The files of an instance. */
  files(id: string): Files {
    return new Files(this.#transport, id);
  }

  /**
   * Ends its processes and keeps its files, those in memory aside. Nothing is done to one that is stopped.
   *
   * @throws ConflictError where it is neither running nor paused.
   */
  async stop(id: string, options: StopInstanceOptions = {}): Promise<Instance> {
    return this.#told(await this.#transport.send(stop(id, options)));
  }

  /**
   * Makes its sandbox again, over its files. No process of before is there.
   *
   * @throws ConflictError where it is neither stopped nor failed nor running.
   * @throws SandboxLostError where its files are not there any more.
   */
  async start(id: string, options: CallOptions = {}): Promise<Instance> {
    return this.#told(await this.#transport.send(turn(id, "start", options)));
  }

  /**
   * Stops its processes where they are; they use no CPU time. Nothing is done to one that is paused.
   *
   * @throws ConflictError where it is not running.
   */
  async pause(id: string, options: CallOptions = {}): Promise<Instance> {
    return this.#told(await this.#transport.send(turn(id, "pause", options)));
  }

  /**
   * Lets its processes go on. Nothing is done to one that runs.
   *
   * @throws ConflictError where it is not paused.
   */
  async resume(id: string, options: CallOptions = {}): Promise<Instance> {
    return this.#told(await this.#transport.send(turn(id, "resume", options)));
  }

  /** Gives it other times, both counted from now on; null takes one away, and what is not given stays. */
  async setTimeout(id: string, times: InstanceTimes): Promise<Instance> {
    return this.#told(await this.#transport.send(setTimes(id, times)));
  }

  /**
   * Gives one that runs other limits, all of them or none. What is not given stays.
   *
   * @throws ConflictError where it is not running.
   */
  async update(id: string, limits: UpdateInstanceOptions): Promise<Instance> {
    return this.#told(await this.#transport.send(update(id, limits)));
  }

  /** What it uses now. */
  async metrics(id: string, options: CallOptions = {}): Promise<InstanceMetrics> {
    return this.#transport.send(metrics(id, options));
  }

  /**
   * Removes it with its files, whatever its status. Once more is no error.
   *
   * Resolves when nothing of it is left. Where that takes the gateway longer than nine seconds it resolves then, and the
   * gateway goes on until nothing is left.
   *
   * @throws NotFoundError where there never was one of that id.
   */
  async delete(id: string, options: CallOptions = {}): Promise<void> {
    return this.#transport.send(remove(id, options));
  }

  #told(info: InstanceInfo): Instance {
    return new Instance(this, info);
  }
}
