// `/api/v1/instances`: sandboxes that outlive one request.

import type {
  CallOptions,
  CreateInstanceOptions,
  ExecOptions,
  InstanceTimes,
  ListInstancesOptions,
  StopInstanceOptions,
  UpdateInstanceOptions,
} from "../../options.js";
import type { ExecuteResult, ExecutionInfo, InstanceInfo, InstanceMetrics, MainInfo } from "../../types.js";
import { type Call, IDEMPOTENCY_KEY } from "../call.js";
import { checkedHttpTimeoutMs, refuseUnknown } from "../config.js";
import { Members } from "../decode.js";
import { givenHeaders } from "../headers.js";
import type { Listed } from "../pages.js";
import { asStream, checkedCommand, members, patienceMs, readExecution, textOrBase64, wireFiles } from "./execute.js";
import { readExecutionAnswer } from "./executions.js";
import { segment } from "./ids.js";

const PATH = "/api/v1/instances";

/** How long making one may take: the gateway's own limit for a pull of its image (30 min by default), and a minute. */
const CREATE_TIMEOUT_MS = 1_860_000;

/** How long a change of state may take: the longest grace of a stop (60 s), that of one before it, and the rest. */
const CHANGE_TIMEOUT_MS = 150_000;

/** Options of `create` that are members of the body as they are, and the names they have there. */
const CREATE_MEMBERS = {
  image: "image",
  name: "name",
  runtime: "runtime",
  envVars: "env_vars",
  workingDir: "working_dir",
  user: "user",
  memoryMb: "memory_mb",
  cpuCores: "cpu_cores",
  pidsLimit: "pids_limit",
  diskMb: "disk_mb",
  network: "network",
  ttlMs: "ttl_ms",
  idleTimeoutMs: "idle_timeout_ms",
  onTimeout: "on_timeout",
  autoResume: "auto_resume",
  main: "main",
  restart: "restart",
  labels: "labels",
} as const satisfies Partial<Record<keyof CreateInstanceOptions, string>>;

/** The same of `exec`. */
const EXEC_MEMBERS = {
  envVars: "env_vars",
  workingDir: "working_dir",
  user: "user",
  secrets: "secrets",
  timeoutMs: "timeout_ms",
  maxOutputBytes: "max_output_bytes",
  keepRunning: "keep_running",
  stdinOpen: "stdin_open",
  tty: "tty",
  labels: "labels",
} as const satisfies Partial<Record<keyof ExecOptions, string>>;

const UPDATE_MEMBERS = { memoryMb: "memory_mb", cpuCores: "cpu_cores", pidsLimit: "pids_limit" } as const;
const TIME_MEMBERS = { ttlMs: "ttl_ms", idleTimeoutMs: "idle_timeout_ms" } as const;
const ALWAYS = ["httpTimeoutMs", "signal"] as const;

/** The call for a new instance. */
export function create(options: CreateInstanceOptions): Call<InstanceInfo> {
  refuseUnknown(options, [...Object.keys(CREATE_MEMBERS), "command", "files", "idempotencyKey", ...ALWAYS]);
  const command = options.command === undefined ? undefined : checkedCommand(options.command);
  const body = { ...members(options, CREATE_MEMBERS), command, files: wireFiles(options.files) };
  return {
    ...change(PATH, options, body),
    headers: givenHeaders({ [IDEMPOTENCY_KEY]: options.idempotencyKey }),
    defaultHttpTimeoutMs: CREATE_TIMEOUT_MS,
    resultStatuses: [201],
  };
}

/** The instances. */
export function listed(options: ListInstancesOptions): Listed<InstanceInfo> {
  refuseUnknown(options, ["status", "labels", "limit", ...ALWAYS]);
  const statuses = typeof options.status === "string" ? [options.status] : (options.status ?? []);
  const labels = Object.entries(options.labels ?? {}).map(([key, value]) => label(key, value));
  const asked = { status: statuses.join(",") || undefined, label: labels.join(",") || undefined };
  return { path: PATH, asked, options, read: readInstance };
}

/** One instance. */
export function get(id: string, options: CallOptions): Call<InstanceInfo> {
  return { ...reading(path(id), options), read: read };
}

/** Remove an instance. Once more is no error. */
export function remove(id: string, options: CallOptions): Call<void> {
  return {
    ...reading(path(id), options),
    method: "DELETE",
    resultStatuses: [202, 204],
    idempotent: true,
    read: () => undefined,
  };
}

/** The call for one command in an instance. */
export function exec(id: string, command: string | readonly string[], options: ExecOptions): Call<ExecuteResult> {
  return {
    ...execCall(id, command, options, {}),
    defaultHttpTimeoutMs: patienceMs(options.timeoutMs),
    read: readExecution,
  };
}

/** The same for an answer of events. */
export function execStream(id: string, command: string | readonly string[], options: ExecOptions): Call<never> {
  return asStream(exec(id, command, options));
}

/** The same for a command that is not waited for. */
export function execInBackground(
  id: string,
  command: string | readonly string[],
  options: ExecOptions,
): Call<ExecutionInfo> {
  return {
    ...execCall(id, command, options, { background: true }),
    defaultHttpTimeoutMs: patienceMs(undefined),
    resultStatuses: [202],
    read: readExecutionAnswer,
  };
}

function execCall(
  id: string,
  command: string | readonly string[],
  options: ExecOptions,
  more: object,
): Omit<Call<unknown>, "read" | "defaultHttpTimeoutMs"> {
  refuseUnknown(options, [
    ...Object.keys(EXEC_MEMBERS),
    ...["background", "stdin", "files", "requestId", "idempotencyKey"],
    ...ALWAYS,
  ]);
  const body = {
    command: checkedCommand(command),
    ...members(options, EXEC_MEMBERS),
    ...textOrBase64("stdin", options.stdin),
    files: wireFiles(options.files),
    ...more,
  };
  return {
    method: "POST",
    path: path(id, "/exec"),
    headers: givenHeaders({ "x-request-id": options.requestId, [IDEMPOTENCY_KEY]: options.idempotencyKey }),
    body: JSON.stringify(body),
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    signal: options.signal,
    resultStatuses: [200],
  };
}

/** End its processes and keep its files. */
export function stop(id: string, options: StopInstanceOptions): Call<InstanceInfo> {
  refuseUnknown(options, ["graceMs", ...ALWAYS]);
  return change(path(id, "/stop"), options, members(options, { graceMs: "grace_ms" }));
}

/** Start, pause or resume it. */
export function turn(id: string, verb: "start" | "pause" | "resume", options: CallOptions): Call<InstanceInfo> {
  refuseUnknown(options, ALWAYS);
  return change(path(id, `/${verb}`), options, {});
}

/** Give it other times, from now on. Null takes a time away. */
export function setTimes(id: string, options: InstanceTimes): Call<InstanceInfo> {
  refuseUnknown(options, [...Object.keys(TIME_MEMBERS), ...ALWAYS]);
  return change(path(id, "/timeout"), options, members(options, TIME_MEMBERS));
}

/** Give it other limits. */
export function update(id: string, options: UpdateInstanceOptions): Call<InstanceInfo> {
  refuseUnknown(options, [...Object.keys(UPDATE_MEMBERS), ...ALWAYS]);
  return { ...change(path(id), options, members(options, UPDATE_MEMBERS)), method: "PATCH" };
}

/** What it uses now. */
export function metrics(id: string, options: CallOptions): Call<InstanceMetrics> {
  return { ...reading(path(id, "/metrics"), options), read: (value) => readMetrics(new Members(value)) };
}

function reading(to: string, options: CallOptions): Omit<Call<unknown>, "read"> {
  refuseUnknown(options, ALWAYS);
  return {
    method: "GET",
    path: to,
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: options.signal,
    resultStatuses: [200],
  };
}

function change(to: string, options: CallOptions, body: object): Call<InstanceInfo> {
  return {
    method: "POST",
    path: to,
    headers: {},
    body: JSON.stringify(body),
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: CHANGE_TIMEOUT_MS,
    signal: options.signal,
    resultStatuses: [200],
    read,
  };
}

function read(value: unknown): InstanceInfo {
  return readInstance(new Members(value));
}

function readInstance(from: Members): InstanceInfo {
  return {
    id: from.string("id"),
    name: from.optionalString("name"),
    image: from.string("image"),
    runtime: from.string("runtime"),
    status: from.string("status"),
    statusReason: from.optionalString("status_reason"),
    createdAt: from.string("created_at"),
    cpuCores: from.number("cpu_cores"),
    memoryMb: from.integer("memory_mb"),
    pidsLimit: from.integer("pids_limit"),
    diskMb: from.optionalInteger("disk_mb"),
    network: from.string("network"),
    labels: from.stringMap("labels"),
    parentId: from.optionalString("parent_id"),
    snapshotId: from.optionalString("snapshot_id"),
    ttlMs: from.optionalInteger("ttl_ms"),
    idleTimeoutMs: from.optionalInteger("idle_timeout_ms"),
    expiresAt: from.optionalString("expires_at"),
    onTimeout: from.string("on_timeout"),
    autoResume: from.boolean("auto_resume"),
    main: readMain(from.optionalChild("main")),
  };
}

function readMain(from: Members | null): MainInfo | null {
  if (from === null) {
    return null;
  }
  return {
    command: (from.raw.command ?? null) === null ? null : from.words("command"),
    main: from.boolean("main"),
    restart: from.string("restart"),
    executionId: from.optionalString("execution_id"),
    restarts: from.integer("restarts"),
  };
}

function readMetrics(from: Members): InstanceMetrics {
  return {
    instanceId: from.string("instance_id"),
    status: from.string("status"),
    cpuUs: from.optionalInteger("cpu_us"),
    memoryBytes: from.optionalInteger("memory_bytes"),
    memoryPeakBytes: from.optionalInteger("memory_peak_bytes"),
    memoryLimitBytes: from.integer("memory_limit_bytes"),
    pids: from.optionalInteger("pids"),
    pidsLimit: from.integer("pids_limit"),
    diskBytes: from.optionalInteger("disk_bytes"),
    networkReceivedBytes: from.optionalInteger("network_received_bytes"),
    networkSentBytes: from.optionalInteger("network_sent_bytes"),
  };
}

function path(id: unknown, rest = ""): string {
  return `${PATH}/${segment(id)}${rest}`;
}

function label(key: string, value: string): string {
  // What is part of it and would divide it has a backslash before it.
  return `${key.replace(/[\\,=]/g, "\\$&")}=${value.replace(/[\\,]/g, "\\$&")}`;
}
