// The events of an execution while it runs, and of a lasting one at any time.

import { Buffer } from "node:buffer";
import type { StreamOptions } from "../options.js";
import type { ExecuteEvent, ExecutionEvent, GapEvent, OutputEvent } from "../types.js";
import type { Call } from "./call.js";
import { refuseUnknown } from "./config.js";
import type { Members } from "./decode.js";
import { EventSource, streamCall } from "./event-source.js";
import { base64, readExit } from "./operations/execute.js";
import { segment } from "./operations/ids.js";

/** Those of a command that ends with its connection: asked for once. */
export class ExecuteEvents extends EventSource<ExecuteEvent> {
  readonly #call: Call<never>;

  constructor(call: Call<never>) {
    super();
    this.#call = call;
  }

  call(): Call<never> {
    return this.#call;
  }

  read(members: Members): ExecuteEvent | undefined {
    const event = members.string("event");
    switch (event) {
      case "started":
        return { event, requestId: members.string("request_id"), executionId: members.string("execution_id") };
      case "exit":
        return readExit(members);
      default:
        return outputOrGap(event, members);
    }
  }

  override isLast(event: ExecuteEvent): boolean {
    return event.event === "exit";
  }
}

/** Those of a lasting execution, from an offset on. Goes on there when its connection breaks. */
export class ExecutionEvents extends EventSource<ExecutionEvent> {
  override readonly resumes = true;
  readonly #id: string;
  readonly #path: string;
  readonly #options: StreamOptions;
  #offset: number | undefined;

  constructor(id: string, options: StreamOptions) {
    super();
    refuseUnknown(options, ["offset", "httpTimeoutMs", "signal"]);
    if (options.offset !== undefined && !(Number.isSafeInteger(options.offset) && options.offset >= 0)) {
      throw new RangeError(`offset is ${options.offset}, which is no number of bytes`);
    }
    this.#id = id;
    this.#path = `/api/v1/executions/${segment(id)}/stream`;
    this.#options = options;
    this.#offset = options.offset;
  }

  call(): Call<never> {
    return streamCall(this.#path, { offset: this.#offset?.toString() }, this.#options);
  }

  read(members: Members): ExecutionEvent | undefined {
    const event = members.string("event");
    if (event !== "exit") {
      return outputOrGap(event, members);
    }
    const exitCode = members.optionalInteger("exit_code");
    return {
      event,
      executionId: this.#id,
      exitCode,
      signal: members.optionalString("signal"),
      stdoutTruncated: members.boolean("stdout_truncated"),
      stderrTruncated: members.boolean("stderr_truncated"),
      durationMs: members.optionalInteger("duration_ms"),
      oomKilled: members.boolean("oom_killed"),
      error: members.optionalString("error"),
      ok: exitCode === 0,
    };
  }

  override isLast(event: ExecutionEvent): boolean {
    return event.event === "exit";
  }

  override took(event: ExecutionEvent): void {
    if (event.event === "gap") {
      this.#offset = event.to;
    } else if (event.event !== "exit") {
      this.#offset = event.offset + event.bytes.length;
    }
  }
}

function outputOrGap(event: string, members: Members): OutputEvent | GapEvent | undefined {
  switch (event) {
    case "stdout":
    case "stderr":
      return { event, offset: members.integer("offset"), ...readData(members) };
    case "gap":
      return { event, from: members.integer("from"), to: members.integer("to") };
    default:
      return undefined;
  }
}

/** The member `data` or `data_base64`; a `DecodeError` where there is neither, or it is not base64. */
export function readData(members: Members): Pick<OutputEvent, "text" | "bytes" | "isText"> {
  const encoded = base64(members, "data_base64");
  const bytes = encoded === null ? Buffer.from(members.string("data"), "utf8") : Buffer.from(encoded, "base64");
  return { text: bytes.toString("utf8"), bytes: new Uint8Array(bytes), isText: encoded === null };
}
