// The client: a line for each verb.
//
// A resource with several verbs has a module of its own, such as `images` and `instances`, and is a member of the client;
// what belongs to the gateway as a whole is a method here.

import process from "node:process";
import { clientConfig } from "./core/config.js";
import { ExecuteEvents } from "./core/execute-events.js";
import { GatewayEvents } from "./core/operations/events.js";
import { execute, stream } from "./core/operations/execute.js";
import { capabilities, health, leaks, version } from "./core/operations/server.js";
import { Executions } from "./executions.js";
import { Images } from "./images.js";
import { Instances } from "./instances.js";
import type { CallOptions, ClientOptions, EventsOptions, ExecuteOptions } from "./options.js";
import { FetchTransport } from "./transport/fetch.js";
import type { Capabilities, ExecuteEvent, ExecuteResult, GatewayEvent, Health, Leak, VersionInfo } from "./types.js";

/** A client of one gateway. */
export class FaaSClient {
  /** Where the gateway is. */
  readonly baseUrl: string;
  /** The gateway's image store. */
  readonly images: Images;
  /** Sandboxes that outlive one request. */
  readonly instances: Instances;
  /** Commands in them that go on by themselves. */
  readonly executions: Executions;
  readonly #transport: FetchTransport;

  /** @throws TypeError or RangeError where an option or `FAAS_BASE_URL` is not valid. */
  constructor(options: ClientOptions = {}) {
    const config = clientConfig(options, process.env);
    this.baseUrl = config.baseUrl;
    this.#transport = new FetchTransport(config, options.fetch);
    this.images = new Images(this.#transport);
    this.instances = new Instances(this.#transport);
    this.executions = new Executions(this.#transport);
  }

  /**
   * Runs one command in a fresh sandbox and resolves when it has ended.
   *
   * @param command a string is run by `/bin/sh -c`; an array of strings is executed as it is.
   * @param options the options, or the image alone.
   * @throws ExecutionTimeoutError where the command was still running at `timeoutMs`; has its output so far.
   * @throws APIError where the gateway refused or failed; a subclass for each code.
   * @throws TransportError where no answer came.
   */
  async execute(command: string | readonly string[], options: string | ExecuteOptions = {}): Promise<ExecuteResult> {
    return this.#transport.send(execute(command, typeof options === "string" ? { image: options } : options));
  }

  /**
   * Runs one command in a fresh sandbox and gives its output while it runs.
   *
   * The first event is `started`, the last `exit`; between them is output in the order in which it came. Nothing is sent
   * before the first event is asked for. Leaving the loop, or the `signal`, ends the command. A reader that is too slow
   * misses output and gets a `gap`; the command does not wait for it.
   *
   * @param command as for `execute`.
   * @param options as for `execute`; `httpTimeoutMs` is the longest silence of the gateway, which says something every 15 s.
   * @throws TypeError or RangeError, at once, where an argument cannot be sent.
   * @throws ExecutionTimeoutError where the command was still running at `timeoutMs`; its output came before.
   * @throws SandboxLostError where the sandbox died; the output until then came before.
   * @throws APIError of another code, before the first event or after it.
   * @throws ConnectionLostError where the connection broke before the last event.
   */
  stream(
    command: string | readonly string[],
    options: string | ExecuteOptions = {},
  ): AsyncGenerator<ExecuteEvent, void, undefined> {
    const call = stream(command, typeof options === "string" ? { image: options } : options);
    return this.#transport.stream(new ExecuteEvents(call));
  }

  /**
   * What becomes of instances and executions, as it happens. It never ends: leave the loop, or use a `signal`.
   *
   * When the connection breaks it goes on after the last event, as often as the client's retry policy says: none is missed,
   * unless the connection breaks before the first one and `after` was not given.
   *
   * @throws GoneError where events after `after` are no longer kept; `firstOffset` is the number of the first that is.
   * @throws RangeNotSatisfiableError where there is no such event yet.
   * @throws TransportError where the gateway cannot be reached any more.
   */
  events(options: EventsOptions = {}): AsyncGenerator<GatewayEvent, void, undefined> {
    return this.#transport.stream(new GatewayEvents(options));
  }

  /** What every runtime can do on the gateway's host, and the reason for what it cannot. */
  async capabilities(options: CallOptions = {}): Promise<Capabilities> {
    return this.#transport.send(capabilities(options));
  }

  /** Whether the gateway can work. An unhealthy gateway is a result, not an error. */
  async health(options: CallOptions = {}): Promise<Health> {
    return this.#transport.send(health(options));
  }

  /** The gateway's versions. */
  async version(options: CallOptions = {}): Promise<VersionInfo> {
    return this.#transport.send(version(options));
  }

  /** What is on the gateway's host with its mark and belongs to nobody: empty when all is well. */
  async leaks(options: CallOptions = {}): Promise<Leak[]> {
    return this.#transport.send(leaks(options));
  }
}
