// What the gateway answers, in camelCase. Data only; `core` builds these from JSON.

import { Buffer } from "node:buffer";

/** Where the time of one execution went. Measured by the gateway, in microseconds. */
export interface Timings {
  /** Waiting for a place among the executions that run at once. */
  readonly queueUs: number;
  /** Making the sandbox. */
  readonly createUs: number;
  /** Running the command, from the start of its process until its end was known. */
  readonly execUs: number;
}

/** What one execution used up, as the kernel or the engine counted it; null where nothing could tell. */
export interface Usage {
  /** CPU time of all of its processes, in microseconds. */
  readonly cpuUs: number | null;
  /** The most memory that it held at once, page cache and tmpfs included, in bytes. */
  readonly memoryPeakBytes: number | null;
}

/** The members of an {@link ExecuteResult} that come from the gateway. */
export interface ExecuteResultMembers {
  /** The id of the HTTP request. */
  readonly requestId: string;
  /** The id of this run. */
  readonly executionId: string;
  /** The exit code; 128 + n when signal n ended the command. */
  readonly exitCode: number;
  /** The name of the signal that ended it (`"SIGKILL"`), or null. */
  readonly signal: string | null;
  /** Standard output. Where its bytes are not UTF-8, U+FFFD stands for them; `stdoutBytes` is exact. */
  readonly stdout: string;
  /** Standard error, likewise. */
  readonly stderr: string;
  /** The exact bytes of standard output in base64, where they are not UTF-8. */
  readonly stdoutBase64: string | null;
  /** The exact bytes of standard error in base64, where they are not UTF-8. */
  readonly stderrBase64: string | null;
  /** Whether standard output went on after `maxOutputBytes`. */
  readonly stdoutTruncated: boolean;
  /** Whether standard error went on after `maxOutputBytes`. */
  readonly stderrTruncated: boolean;
  /** Wall time of the command in milliseconds: whole, rounded up, at least 1. */
  readonly durationMs: number;
  /** Where the time went. */
  readonly timings: Timings;
  /** The runtime that ran it. */
  readonly runtime: string;
  /** The image it ran in. */
  readonly image: string;
  /** What it used up. */
  readonly usage: Usage;
  /** Whether the kernel killed a process of the sandbox for want of memory. */
  readonly oomKilled: boolean;
  /** Null, or `process exited with code N`. */
  readonly error: string | null;
}

/** What one execution did. A command that fails is a result too: see `exitCode` and `ok`. */
export class ExecuteResult implements ExecuteResultMembers {
  readonly requestId: string;
  readonly executionId: string;
  readonly exitCode: number;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly stdoutBase64: string | null;
  readonly stderrBase64: string | null;
  readonly stdoutTruncated: boolean;
  readonly stderrTruncated: boolean;
  readonly durationMs: number;
  readonly timings: Timings;
  readonly runtime: string;
  readonly image: string;
  readonly usage: Usage;
  readonly oomKilled: boolean;
  readonly error: string | null;
  readonly #raw: Readonly<Record<string, unknown>>;

  constructor(members: ExecuteResultMembers, raw: Readonly<Record<string, unknown>>) {
    this.requestId = members.requestId;
    this.executionId = members.executionId;
    this.exitCode = members.exitCode;
    this.signal = members.signal;
    this.stdout = members.stdout;
    this.stderr = members.stderr;
    this.stdoutBase64 = members.stdoutBase64;
    this.stderrBase64 = members.stderrBase64;
    this.stdoutTruncated = members.stdoutTruncated;
    this.stderrTruncated = members.stderrTruncated;
    this.durationMs = members.durationMs;
    this.timings = members.timings;
    this.runtime = members.runtime;
    this.image = members.image;
    this.usage = members.usage;
    this.oomKilled = members.oomKilled;
    this.error = members.error;
    this.#raw = raw;
  }

  /** Whether the command exited with code 0. */
  get ok(): boolean {
    return this.exitCode === 0;
  }

  /** Standard output, byte for byte. */
  get stdoutBytes(): Uint8Array {
    return exactBytes(this.stdout, this.stdoutBase64);
  }

  /** Standard error, byte for byte. */
  get stderrBytes(): Uint8Array {
    return exactBytes(this.stderr, this.stderrBase64);
  }

  /** The same as `stdout`. */
  get output(): string {
    return this.stdout;
  }

  /** The same as `stderr`. */
  get logs(): string {
    return this.stderr;
  }

  /** The whole answer as it came, members unknown to this version included. */
  get raw(): Readonly<Record<string, unknown>> {
    return this.#raw;
  }
}

function exactBytes(text: string, base64: string | null): Uint8Array {
  return new Uint8Array(base64 === null ? Buffer.from(text, "utf8") : Buffer.from(base64, "base64"));
}

/** The command runs: the first event of a stream. */
export interface StartedEvent {
  readonly event: "started";
  /** The id of the HTTP request. */
  readonly requestId: string;
  /** The id of this run. */
  readonly executionId: string;
}

/** A piece of output, as it was written. */
export interface OutputEvent {
  /** Which of the two streams. */
  readonly event: "stdout" | "stderr";
  /** How many bytes of output came before it, of both streams together. */
  readonly offset: number;
  /** The piece as text; U+FFFD stands for bytes that are not UTF-8. No character is cut in two. */
  readonly text: string;
  /** The piece, byte for byte. */
  readonly bytes: Uint8Array;
  /** Whether it is UTF-8. */
  readonly isText: boolean;
}

/** Output that was lost, since this reader was too slow for it. */
export interface GapEvent {
  readonly event: "gap";
  /** The offset of the first byte of it. */
  readonly from: number;
  /** The offset after the last. */
  readonly to: number;
}

/** The command has ended: the last event. The same as in {@link ExecuteResult}, but for the output. */
export interface ExitEvent extends Omit<ExecuteResultMembers, "stdout" | "stderr" | "stdoutBase64" | "stderrBase64"> {
  readonly event: "exit";
  /** Whether the command exited with code 0. */
  readonly ok: boolean;
}

/** One event of a stream. */
export type ExecuteEvent = StartedEvent | OutputEvent | GapEvent | ExitEvent;

/** The size of a terminal, in characters. */
export interface TerminalSize {
  /** Lines. */
  readonly rows: number;
  /** Columns. */
  readonly cols: number;
}

/** An execution as the gateway tells of it. */
export interface ExecutionInfo {
  /** Its id. */
  readonly executionId: string;
  /** The instance that it runs in, or ran in. */
  readonly instanceId: string;
  /** `command`, `main` (the main command of its instance) or `terminal`. */
  readonly kind: string;
  /**
   * `running`, `exited`, `timed_out`, `cancelled`, `failed` (it could not be started) or `lost` (its sandbox or agent
   * ended).
   */
  readonly status: string;
  /** Why it stands there, or null. */
  readonly statusReason: string | null;
  /** What it runs. */
  readonly command: string | readonly string[];
  /** Whether it was started in the background. */
  readonly background: boolean;
  /** Its terminal, or null. */
  readonly tty: TerminalSize | null;
  /** The caller's own words. */
  readonly labels: Readonly<Record<string, string>>;
  /** Its timeout, or null. */
  readonly timeoutMs: number | null;
  /** When it was started (RFC 3339). */
  readonly createdAt: string;
  /** When it ended (RFC 3339), or null. */
  readonly endedAt: string | null;
  /** Its exit code, 128 + n when signal n ended it; null while it has none. */
  readonly exitCode: number | null;
  /** Whether it exited with code 0. */
  readonly ok: boolean;
  /** The name of the signal that ended it (`"SIGKILL"`), or null. */
  readonly signal: string | null;
  /** Whether the kernel killed a process of its instance for want of memory while it ran. */
  readonly oomKilled: boolean;
  /** Whether not all of standard output was kept. */
  readonly stdoutTruncated: boolean;
  /** Whether not all of standard error was kept. */
  readonly stderrTruncated: boolean;
  /** Its wall time in milliseconds, or null while it runs. */
  readonly durationMs: number | null;
  /** Null, or `process exited with code N`. */
  readonly error: string | null;
  /** The offset of the first byte of its output that is still held. */
  readonly firstOffset: number;
  /** The offset after the last. */
  readonly nextOffset: number;
}

/** A lasting execution has ended: the last event of its stream. */
export interface EndEvent
  extends Pick<
    ExecutionInfo,
    | "executionId"
    | "exitCode"
    | "ok"
    | "signal"
    | "stdoutTruncated"
    | "stderrTruncated"
    | "durationMs"
    | "oomKilled"
    | "error"
  > {
  readonly event: "exit";
}

/** One event of the stream of a lasting execution. */
export type ExecutionEvent = OutputEvent | GapEvent | EndEvent;

/** What a lasting execution wrote, as far as it was held. */
export interface ExecutionOutput {
  /** Standard output as text; of one with a terminal, all that it wrote. U+FFFD stands for bytes that are not UTF-8. */
  readonly stdout: string;
  /** Standard error, likewise. */
  readonly stderr: string;
  /** Standard output, byte for byte. */
  readonly stdoutBytes: Uint8Array;
  /** Standard error, byte for byte. */
  readonly stderrBytes: Uint8Array;
  /** What is missing in the middle. */
  readonly gaps: readonly GapEvent[];
}

/** The main command of an instance. */
export interface MainInfo {
  /** What was asked for; null where it is the image's own command alone. */
  readonly command: string | readonly string[] | null;
  /** Whether it is the image's own command (its entrypoint, with `command` as its arguments where there is one). */
  readonly main: boolean;
  /** When it is run again after it ended: `never`, `on_failure` or `always`. */
  readonly restart: string;
  /** Its newest run, or null. */
  readonly executionId: string | null;
  /** How often it was run again since the instance was started. */
  readonly restarts: number;
}

/** A file in an instance, or a directory, or what else stands at a path. */
export interface FileInfo {
  /** Where it is. Where its name is not UTF-8, U+FFFD stands for that; `pathBase64` is exact. */
  readonly path: string;
  /** The exact bytes of the path in base64, where they are not UTF-8. */
  readonly pathBase64: string | null;
  /** The last part of the path. */
  readonly name: string;
  /** `file`, `directory`, `symlink`, `fifo`, `socket`, `block_device` or `char_device`. */
  readonly type: string;
  /** Its size. */
  readonly sizeBytes: number;
  /** Its permission bits in octal digits, such as `0644`. */
  readonly mode: string;
  /** Its owner. */
  readonly uid: number;
  /** Its group. */
  readonly gid: number;
  /** The owner's name in the instance, or null where it has none. */
  readonly owner: string | null;
  /** The group's name, likewise. */
  readonly group: string | null;
  /** When its content was last changed (RFC 3339). */
  readonly modifiedAt: string;
  /** Where a symbolic link leads, or null. */
  readonly target: string | null;
}

/** What came out of a tar archive. */
export interface UnpackedTar {
  /** How many entries. */
  readonly files: number;
  /** How many bytes of content. */
  readonly bytes: number;
}

/** Something that happened where a watch looks. */
export interface FileEvent {
  /**
   * `ready` (the first: changes are seen from now on), `created`, `modified`, `deleted`, `moved`, or `overflow` (changes
   * were missed).
   */
  readonly event: string;
  /** What it happened to; null for `ready` and `overflow`. */
  readonly path: string | null;
  /** Where it was before it was moved, where that is known. */
  readonly from: string | null;
  /** What it is: see {@link FileInfo.type}. */
  readonly type: string | null;
}

/** Something that became of an instance or an execution. */
export interface GatewayEvent {
  /** Its number; each is higher than the one before. */
  readonly seq: number;
  /** When it was (RFC 3339). */
  readonly at: string;
  /** What: `instance.running`, `execution.ended`, ... */
  readonly kind: string;
  /** The id of the instance or the execution. */
  readonly subject: string;
  /** What more is said of it, under the names of the HTTP contract. */
  readonly data: Readonly<Record<string, unknown>>;
}

/** A piece of output of an instance's main command, or something that became of the instance. */
export interface LogEntry {
  /** When it was (RFC 3339). */
  readonly at: string;
  /** `stdout`, `stderr` or `event`. */
  readonly type: string;
  /** The run of the main command, or null. */
  readonly executionId: string | null;
  /** The output, byte for byte; null for an event. */
  readonly bytes: Uint8Array | null;
  /** The output as text; U+FFFD stands for bytes that are not UTF-8. Null for an event. */
  readonly text: string | null;
  /** What became of the instance, such as `instance.running`; null for output. */
  readonly kind: string | null;
  /** Why, or null. */
  readonly reason: string | null;
}

/** One member of a request that is not valid. */
export interface FieldError {
  /** Where: a JSON Pointer (RFC 6901) into the body, `""` for the whole of it. */
  readonly pointer: string;
  /** What is wrong with it. */
  readonly message: string;
}

/** Whether one thing is there. */
export interface Support {
  /** Whether it is there. */
  readonly supported: boolean;
  /** How it is done where it is there, or why it is not. */
  readonly detail: string;
}

/** Which limits a runtime enforces. */
export interface LimitsSupport {
  /** `memoryMb`. */
  readonly memory: Support;
  /** `cpuCores`. */
  readonly cpu: Support;
  /** `pidsLimit`. */
  readonly pids: Support;
  /** `diskMb`. */
  readonly disk: Support;
}

/** What one runtime can do on the gateway's host. */
export interface RuntimeCapabilities {
  /** Whether it can run a sandbox now. */
  readonly available: boolean;
  /** Why it cannot, or null. */
  readonly reason: string | null;
  /** Optional abilities by name. */
  readonly features: Readonly<Record<string, Support>>;
  /** Which limits are enforced. */
  readonly limits: LimitsSupport;
}

/** What every runtime can do on the gateway's host, probed by it. */
export interface Capabilities {
  /** The runtime that `auto` picks when nothing else is asked, or null where there is none. */
  readonly defaultRuntime: string | null;
  /** The image that is used when none is named. */
  readonly defaultImage: string;
  /** Every runtime, by name. */
  readonly runtimes: Readonly<Record<string, RuntimeCapabilities>>;
}

/** One runtime in {@link Health}. */
export interface RuntimeHealth {
  /** Whether it can run a sandbox now. */
  readonly available: boolean;
  /** Why it cannot, or null. */
  readonly reason: string | null;
  /** Limits that are not enforced there, each with the reason. */
  readonly unenforcedLimits: readonly string[];
}

/** Where the gateway keeps what lasts, in {@link Health}. */
export interface StoreHealth {
  /** The kind of database: `sqlite` or `postgresql`. */
  readonly kind: string;
  /** Whether it answers now. Without it executions run; what needs it is refused as `overloaded`. */
  readonly available: boolean;
  /** Why it does not, or null. */
  readonly reason: string | null;
}

/** What the gateway says of itself. */
export interface Health {
  /** `healthy`, `degraded` or `unhealthy`. */
  readonly status: string;
  /** The gateway's version. */
  readonly version: string;
  /** Milliseconds since it started. */
  readonly uptimeMs: number;
  /** Every runtime, by name. */
  readonly runtimes: Readonly<Record<string, RuntimeHealth>>;
  /** Where it keeps what lasts. */
  readonly store: StoreHealth;
  /** Whether the runtime `docker` is available. */
  readonly docker: boolean;
  /** Whether the runtime `firecracker` is available. */
  readonly firecracker: boolean;
}

/** Versions of the gateway and of what it speaks. */
export interface VersionInfo {
  /** The gateway's version. */
  readonly version: string;
  /** The version of the HTTP contract. */
  readonly api: string;
  /** The version of the frames spoken with the guest agent. */
  readonly guestProtocol: number;
  /** The digest of the guest agent that the gateway puts into sandboxes. */
  readonly guestAgent: string;
}

/** One image of the gateway's store. */
export interface ImageInfo {
  /** The digest of its configuration: `sha256:` and 64 digits. Can be used wherever a name can. */
  readonly id: string;
  /** Its names, whole: `docker.io/library/alpine:latest`. */
  readonly names: readonly string[];
  /** `REGISTRY/REPOSITORY@DIGEST` of what it was pulled from. */
  readonly repoDigests: readonly string[];
  /** The processor that it is for, in Go's words: `amd64`, `arm64`. */
  readonly architecture: string;
  /** When it was built, as the image says it (RFC 3339), or null. */
  readonly createdAt: string | null;
  /** Disk that it takes, in bytes, layers that other images have too included. */
  readonly sizeBytes: number;
  /** How many layers it has. */
  readonly layers: number;
  /** When it came to the store (RFC 3339). */
  readonly addedAt: string;
  /** When it was last used, to a minute (RFC 3339). */
  readonly lastUsedAt: string;
  /** Whether a sandbox uses it now; it cannot be removed then. */
  readonly inUse: boolean;
  /** Environment variables of its programs. */
  readonly envVars: Readonly<Record<string, string>>;
  /** Where its programs start. */
  readonly workingDir: string;
  /** As whom its programs run: `user`, `uid`, `user:group`, or empty for root. */
  readonly user: string;
  /** Its main program with the first arguments. */
  readonly entrypoint: readonly string[];
  /** The main program's arguments, or the main program where there is no entrypoint. */
  readonly cmd: readonly string[];
}

/** How far a pull or an import has come. Steps of one layer come in order, those of several layers mixed. */
export interface ImageProgress {
  /**
   * What is being done: `resolving`, `receiving`, `unpacking`, `present` (the layer was there already), `unpacked`,
   * `merging` or `committing`; a newer gateway may have others.
   */
  readonly phase: string;
  /** The digest of the layer that it is about, or null. */
  readonly layer: string | null;
  /** Bytes that have come, as they come: compressed. */
  readonly doneBytes: number;
  /** How many there are, or null where that is not known. */
  readonly totalBytes: number | null;
}

/** One instance, as the gateway told of it. */
export interface InstanceInfo {
  /** Its id. Also its host name. */
  readonly id: string;
  /** The caller's name for it, or null. */
  readonly name: string | null;
  /** The image it was made from. */
  readonly image: string;
  /** The runtime it is on. */
  readonly runtime: string;
  /** Where it stands: `creating`, `running`, `paused`, `stopping`, `stopped` or `failed`. */
  readonly status: string;
  /** Why it stands there, where that does not go without saying. */
  readonly statusReason: string | null;
  /** When it was asked for (RFC 3339). */
  readonly createdAt: string;
  /** CPU limit in cores. */
  readonly cpuCores: number;
  /** Memory limit in MiB. */
  readonly memoryMb: number;
  /** The most processes and threads at once. */
  readonly pidsLimit: number;
  /** Disk limit in MiB, where one was asked for. */
  readonly diskMb: number | null;
  /** What its commands can reach. */
  readonly network: string;
  /** The caller's own words. */
  readonly labels: Readonly<Record<string, string>>;
  /** The instance that it is a branch of, or null. */
  readonly parentId: string | null;
  /** The snapshot that it was made from, or null. */
  readonly snapshotId: string | null;
  /** How long it is there, in milliseconds, as it was last set, or null. */
  readonly ttlMs: number | null;
  /** How long it may be idle, in milliseconds, or null. */
  readonly idleTimeoutMs: number | null;
  /** When its time is over (RFC 3339): the earlier of both limits as things stand now, or null. */
  readonly expiresAt: string | null;
  /** What becomes of it then: `delete` or `pause`. */
  readonly onTimeout: string;
  /** Whether a command for it resumes it when it is paused. */
  readonly autoResume: boolean;
  /** Its main command, or null. */
  readonly main: MainInfo | null;
}

/** What an instance uses now; null where its runtime does not tell, or where it does not run. */
export interface InstanceMetrics {
  /** Its id. */
  readonly instanceId: string;
  /** Where it stands. */
  readonly status: string;
  /** CPU time of all of its processes since it was created or started, in microseconds. */
  readonly cpuUs: number | null;
  /** Memory that it holds, page cache and tmpfs included. */
  readonly memoryBytes: number | null;
  /** The most that it held at once. */
  readonly memoryPeakBytes: number | null;
  /** Its memory limit. */
  readonly memoryLimitBytes: number;
  /** Processes and threads. */
  readonly pids: number | null;
  /** The most of them at once. */
  readonly pidsLimit: number;
  /** What its files take, those of its image aside. */
  readonly diskBytes: number | null;
  /** Bytes that came in over its network, loopback aside. */
  readonly networkReceivedBytes: number | null;
  /** Bytes that went out. */
  readonly networkSentBytes: number | null;
}

/** Something on the gateway's host that bears its mark and belongs to nobody. */
export interface Leak {
  /** The runtime that it comes from. */
  readonly runtime: string;
  /** What it is: `cgroup`, `process`, `directory`, `container`, ... */
  readonly kind: string;
  /** Its path, number or name on the host. */
  readonly name: string;
}
