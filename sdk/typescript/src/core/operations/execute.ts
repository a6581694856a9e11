// `POST /api/v1/execute`: run one command in a fresh sandbox.

import { Buffer } from "node:buffer";
import type { ExecuteOptions, FileInput } from "../../options.js";
import { ExecuteResult, type ExitEvent } from "../../types.js";
import { type Call, IDEMPOTENCY_KEY } from "../call.js";
import { checkedHttpTimeoutMs } from "../config.js";
import { DecodeError, Members, noDocument } from "../decode.js";
import { givenHeaders } from "../headers.js";

/** The gateway's own timeout of a command, where the caller names none. */
const DEFAULT_TIMEOUT_MS = 30_000;

/** What is waited beyond the command's timeout: for a place in the queue, the image and the sandbox. */
const HTTP_MARGIN_MS = 60_000;

/** Options that are members of the body as they are, and the names they have there. */
const MEMBERS = {
  image: "image",
  runtime: "runtime",
  envVars: "env_vars",
  workingDir: "working_dir",
  user: "user",
  secrets: "secrets",
  timeoutMs: "timeout_ms",
  memoryMb: "memory_mb",
  cpuCores: "cpu_cores",
  pidsLimit: "pids_limit",
  diskMb: "disk_mb",
  network: "network",
  maxOutputBytes: "max_output_bytes",
  labels: "labels",
} as const satisfies Partial<Record<keyof ExecuteOptions, string>>;

/** The other options. */
const OTHERS = ["stdin", "files", "requestId", "idempotencyKey", "httpTimeoutMs", "signal"] as const;

type Named = keyof typeof MEMBERS | (typeof OTHERS)[number];
/** Fails to compile when an option of {@link ExecuteOptions} is in neither table. */
type Missing = Exclude<keyof ExecuteOptions, Named>;
const NONE_MISSING: [Missing] extends [never] ? true : Missing = true;

/** Every option by name. */
export const OPTION_NAMES: readonly string[] = NONE_MISSING && [...Object.keys(MEMBERS), ...OTHERS];

/**
 * The call for one command.
 *
 * @throws TypeError or RangeError where an argument cannot be sent.
 */
export function execute(command: string | readonly string[], options: ExecuteOptions): Call<ExecuteResult> {
  refuseUnknown(options);
  const body = {
    command: checkedCommand(command),
    ...members(options, MEMBERS),
    ...textOrBase64("stdin", options.stdin),
    files: wireFiles(options.files),
  };
  return {
    method: "POST",
    path: "/api/v1/execute",
    headers: givenHeaders({ "x-request-id": options.requestId, [IDEMPOTENCY_KEY]: options.idempotencyKey }),
    body: JSON.stringify(body),
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: patienceMs(options.timeoutMs),
    signal: options.signal,
    resultStatuses: [200],
    read: readExecution,
  };
}

/** The same for an answer of events, which `ExecuteEvents` reads. */
export function stream(command: string | readonly string[], options: ExecuteOptions): Call<never> {
  return asStream(execute(command, options));
}

/** The same call for an answer of events. */
export function asStream(call: Call<ExecuteResult>): Call<never> {
  return {
    ...call,
    headers: { ...call.headers, accept: "application/x-ndjson" },
    read: noDocument,
  };
}

/** Options that are members of a body as they are, under the names that they have there. */
export function members<K extends string>(
  options: { readonly [name in NoInfer<K>]?: unknown },
  names: Readonly<Record<K, string>>,
): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const name of Object.keys(names) as K[]) {
    const value = options[name];
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new RangeError(`${name} is ${value}, which JSON cannot carry`);
    }
    body[names[name]] = value;
  }
  return body;
}

/** How long the answer to a command of this timeout is waited for, in milliseconds. */
export function patienceMs(timeoutMs: number | undefined): number {
  return Math.max(timeoutMs ?? DEFAULT_TIMEOUT_MS, 0) + HTTP_MARGIN_MS;
}

/** An `ExecuteResponse`, or a `DecodeError`. */
export function readExecution(value: unknown): ExecuteResult {
  const members = new Members(value);
  return new ExecuteResult(
    {
      ...readEnd(members),
      stdout: members.string("stdout"),
      stderr: members.string("stderr"),
      stdoutBase64: base64(members, "stdout_base64"),
      stderrBase64: base64(members, "stderr_base64"),
    },
    members.raw,
  );
}

/** The event `exit`, or a `DecodeError`. */
export function readExit(members: Members): ExitEvent {
  const end = readEnd(members);
  return { event: "exit", ...end, ok: end.exitCode === 0 };
}

function readEnd(members: Members): Omit<ExitEvent, "event" | "ok"> {
  const timings = members.child("timings");
  const usage = members.child("usage");
  return {
    requestId: members.string("request_id"),
    executionId: members.string("execution_id"),
    exitCode: members.integer("exit_code"),
    signal: members.optionalString("signal"),
    stdoutTruncated: members.boolean("stdout_truncated"),
    stderrTruncated: members.boolean("stderr_truncated"),
    durationMs: members.integer("duration_ms"),
    timings: {
      queueUs: timings.integer("queue_us"),
      createUs: timings.integer("create_us"),
      execUs: timings.integer("exec_us"),
    },
    runtime: members.string("runtime"),
    image: members.string("image"),
    usage: {
      cpuUs: usage.optionalInteger("cpu_us"),
      memoryPeakBytes: usage.optionalInteger("memory_peak_bytes"),
    },
    oomKilled: members.boolean("oom_killed"),
    error: members.optionalString("error"),
  };
}

/** A member in base64, checked, or null. */
export function base64(members: Members, name: string): string | null {
  const encoded = members.optionalString(name);
  if (encoded !== null && (encoded.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(encoded))) {
    throw new DecodeError(`/${name} is not base64`);
  }
  return encoded;
}

function refuseUnknown(options: ExecuteOptions): void {
  const unknown = Object.keys(options).find((name) => !OPTION_NAMES.includes(name));
  if (unknown !== undefined) {
    throw new TypeError(`execute has no option ${unknown}; it has ${OPTION_NAMES.join(", ")}`);
  }
}

/** The member `command`, or a TypeError. */
export function checkedCommand(command: unknown): string | string[] {
  if (typeof command === "string") {
    return command;
  }
  if (Array.isArray(command) && command.every((word) => typeof word === "string")) {
    return command;
  }
  throw new TypeError("command is a string or an array of strings");
}

/** The member `files`. */
export function wireFiles(files: ExecuteOptions["files"]): Record<string, string>[] | undefined {
  if (files === undefined) {
    return undefined;
  }
  const entries: readonly FileInput[] = Array.isArray(files)
    ? files
    : Object.entries(files).map(([path, content]) => ({ path, content }));
  return entries.map(wireFile);
}

function wireFile(file: FileInput): Record<string, string> {
  const entry: Record<string, string> = { path: file.path, ...textOrBase64("content", file.content) };
  if (file.mode !== undefined) {
    entry.mode = typeof file.mode === "number" ? file.mode.toString(8).padStart(4, "0") : file.mode;
  }
  return entry;
}

/** The member for text, or the one beside it for bytes; a TypeError where it is neither. */
export function textOrBase64(name: string, value: unknown): Record<string, string> {
  if (value === undefined) {
    return {};
  }
  if (typeof value === "string") {
    return { [name]: value };
  }
  if (value instanceof Uint8Array) {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    return { [`${name}_base64`]: bytes.toString("base64") };
  }
  throw new TypeError(`${name} is a string or a Uint8Array, not ${value === null ? "null" : typeof value}`);
}
