// `/api/v1/executions`: commands that go on by themselves.

import { Buffer } from "node:buffer";
import type { CallOptions, InputOptions, ListExecutionsOptions } from "../../options.js";
import type { ExecutionInfo } from "../../types.js";
import type { Call } from "../call.js";
import { checkedHttpTimeoutMs, refuseUnknown } from "../config.js";
import { Members } from "../decode.js";
import { type Listed, withQuery } from "../pages.js";
import { bytesUpload } from "../upload.js";
import { segment } from "./ids.js";

const PATH = "/api/v1/executions";
const ALWAYS = ["httpTimeoutMs", "signal"] as const;

/** How long the end of what is cancelled is waited for. */
const CANCEL_TIMEOUT_MS = 90_000;

/** One execution. */
export function get(id: string, options: CallOptions): Call<ExecutionInfo> {
  return { ...call(id, "", options), method: "GET", resultStatuses: [200], read: readExecutionAnswer };
}

/** Those of an instance. */
export function listed(instanceId: string, options: ListExecutionsOptions): Listed<ExecutionInfo> {
  refuseUnknown(options, ["limit", ...ALWAYS]);
  const path = `/api/v1/instances/${segment(instanceId)}/executions`;
  return { path, asked: {}, options, read: readExecutionInfo };
}

/** Give it input. */
export function input(id: string, data: unknown, options: InputOptions): Call<void> {
  const { eof, ...others } = options;
  const { path, ...rest } = call(id, "/input", others);
  if (typeof data !== "string" && !(data instanceof Uint8Array)) {
    throw new TypeError(`data is a string or a Uint8Array, not ${data === null ? "null" : typeof data}`);
  }
  return {
    ...rest,
    method: "POST",
    path: withQuery(path, { eof: eof === true ? "true" : undefined }),
    headers: { "content-type": "application/octet-stream" },
    body: bytesUpload(typeof data === "string" ? Buffer.from(data, "utf8") : data),
  };
}

/** Send it a signal. */
export function signal(id: string, name: string | number, options: CallOptions): Call<void> {
  return { ...call(id, "/signal", options), method: "POST", body: JSON.stringify({ signal: name }) };
}

/** End it with all that it started. Once more is no error. */
export function cancel(id: string, options: CallOptions): Call<void> {
  return { ...call(id, "", options), method: "DELETE", defaultHttpTimeoutMs: CANCEL_TIMEOUT_MS, idempotent: true };
}

/** An `Execution` as an answer, or a `DecodeError`. */
export function readExecutionAnswer(value: unknown): ExecutionInfo {
  return readExecutionInfo(new Members(value));
}

/** An `Execution`, or a `DecodeError`. */
export function readExecutionInfo(from: Members): ExecutionInfo {
  const tty = from.optionalChild("tty");
  const exitCode = from.optionalInteger("exit_code");
  return {
    executionId: from.string("execution_id"),
    instanceId: from.string("instance_id"),
    kind: from.string("kind"),
    status: from.string("status"),
    statusReason: from.optionalString("status_reason"),
    command: from.words("command"),
    background: from.boolean("background"),
    tty: tty === null ? null : { rows: tty.integer("rows"), cols: tty.integer("cols") },
    labels: from.stringMap("labels"),
    timeoutMs: from.optionalInteger("timeout_ms"),
    createdAt: from.string("created_at"),
    endedAt: from.optionalString("ended_at"),
    exitCode,
    ok: exitCode === 0,
    signal: from.optionalString("signal"),
    oomKilled: from.boolean("oom_killed"),
    stdoutTruncated: from.boolean("stdout_truncated"),
    stderrTruncated: from.boolean("stderr_truncated"),
    durationMs: from.optionalInteger("duration_ms"),
    error: from.optionalString("error"),
    firstOffset: from.integer("first_offset"),
    nextOffset: from.integer("next_offset"),
  };
}

function call(id: string, rest: string, options: CallOptions): Omit<Call<void>, "method"> {
  refuseUnknown(options, ALWAYS);
  return {
    path: `${PATH}/${segment(id)}${rest}`,
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: options.signal,
    resultStatuses: [204],
    read: () => undefined,
  };
}
