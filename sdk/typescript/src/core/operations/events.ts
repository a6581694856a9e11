// `/api/v1/events`, what became of instances and executions; and the log of one instance.

import type { EventsOptions, LogsOptions } from "../../options.js";
import type { GatewayEvent, LogEntry } from "../../types.js";
import type { Call } from "../call.js";
import { checkedHttpTimeoutMs, refuseUnknown } from "../config.js";
import { each, type Members } from "../decode.js";
import { EventSource, streamCall } from "../event-source.js";
import { readData } from "../execute-events.js";
import { withQuery } from "../pages.js";
import { isProblem } from "../problem.js";
import { segment } from "./ids.js";

const ALWAYS = ["httpTimeoutMs", "signal"] as const;

/** Those after a number. Goes on after the last one when its connection breaks; never ends. */
export class GatewayEvents extends EventSource<GatewayEvent> {
  override readonly resumes = true;
  readonly #options: EventsOptions;
  #after: number | undefined;

  constructor(options: EventsOptions) {
    super();
    refuseUnknown(options, ["after", "kind", "subject", ...ALWAYS]);
    this.#options = options;
    this.#after = options.after;
  }

  call(): Call<never> {
    const { kind, subject } = this.#options;
    const kinds = typeof kind === "string" ? kind : kind?.join(",");
    const asked = { after: this.#after?.toString(), kind: kinds || undefined, subject };
    return streamCall("/api/v1/events", asked, this.#options);
  }

  read(members: Members): GatewayEvent {
    return {
      seq: members.integer("seq"),
      at: members.string("at"),
      kind: members.string("kind"),
      subject: members.string("subject"),
      data: members.child("data").raw,
    };
  }

  override took(event: GatewayEvent): void {
    this.#after = event.seq;
  }
}

/** The log of an instance, and what is added to it. Ends with the instance. */
export class LogEntries extends EventSource<LogEntry> {
  override readonly endsQuietly = true;
  readonly #call: Call<never>;

  constructor(instanceId: string, options: LogsOptions) {
    super();
    refuseUnknown(options, ["tail", "follow", ...ALWAYS]);
    this.#call = streamCall(path(instanceId), { tail: options.tail?.toString() }, options);
  }

  call(): Call<never> {
    return this.#call;
  }

  override isError(members: Members): boolean {
    return isProblem(members) || super.isError(members);
  }

  read(members: Members): LogEntry {
    return readEntry(members);
  }
}

/** The log of an instance as it is now. */
export function logs(instanceId: string, options: LogsOptions): Call<LogEntry[]> {
  refuseUnknown(options, ["tail", "follow", ...ALWAYS]);
  return {
    method: "GET",
    path: withQuery(path(instanceId), { tail: options.tail?.toString() }),
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: options.signal,
    resultStatuses: [200],
    read: (value) => each(value).map(readEntry),
  };
}

function readEntry(members: Members): LogEntry {
  const type = members.string("type");
  const { bytes, text } = type === "stdout" || type === "stderr" ? readData(members) : { bytes: null, text: null };
  return {
    at: members.string("at"),
    type,
    executionId: members.optionalString("execution_id"),
    bytes,
    text,
    kind: members.optionalString("kind"),
    reason: members.optionalString("reason"),
  };
}

function path(instanceId: string): string {
  return `/api/v1/instances/${segment(instanceId)}/logs`;
}
