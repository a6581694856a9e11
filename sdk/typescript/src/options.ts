// What a caller can set: the client's settings, the options of each verb, the policy of retries.

import type { ImageProgress, TerminalSize } from "./types.js";

/** A file put into the sandbox before the command runs. */
export interface FileInput {
  /** Absolute, or relative to the working directory. Missing parents are made. */
  readonly path: string;
  /** Its content; text is stored as UTF-8. */
  readonly content: string | Uint8Array;
  /** Permission bits: a number (`0o755`) or octal digits (`"0755"`); the gateway's 0644 when not given. */
  readonly mode?: number | string | undefined;
}

/** What every call can be given. */
export interface CallOptions {
  /** The longest time in milliseconds until the whole answer is there; see {@link ClientOptions.httpTimeoutMs}. */
  readonly httpTimeoutMs?: number | undefined;
  /** Aborting it ends the call, and with it the command; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The options of `execute`. Undefined is the same as not given: the gateway's default applies. */
export interface ExecuteOptions extends CallOptions {
  /** The image whose files the sandbox starts from. */
  readonly image?: string | undefined;
  /** The runtime to use. */
  readonly runtime?: "auto" | "native" | "docker" | "firecracker" | undefined;
  /** Environment variables, added to those of the image. */
  readonly envVars?: Readonly<Record<string, string>> | undefined;
  /** The working directory; it must exist in the sandbox. */
  readonly workingDir?: string | undefined;
  /** The user: a name, `uid` or `uid:gid`. */
  readonly user?: string | undefined;
  /** Standard input. */
  readonly stdin?: string | Uint8Array | undefined;
  /** Files put into the sandbox before the command runs: path to content, or {@link FileInput} objects. */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | readonly FileInput[] | undefined;
  /** Secrets: each appears as the file `/run/secrets/NAME`, readable by the command's user alone. */
  readonly secrets?: Readonly<Record<string, string>> | undefined;
  /** Wall time of the command in milliseconds; the gateway's default is 30000. */
  readonly timeoutMs?: number | undefined;
  /** Memory limit in MiB. */
  readonly memoryMb?: number | undefined;
  /** CPU limit in cores; fractions are allowed. */
  readonly cpuCores?: number | undefined;
  /** The most processes and threads at once. */
  readonly pidsLimit?: number | undefined;
  /** Disk limit in MiB. */
  readonly diskMb?: number | undefined;
  /** What the command can reach: itself over loopback, or connections to the outside. */
  readonly network?: "none" | "egress" | undefined;
  /** How many bytes are kept of each of stdout and stderr; the rest is read and dropped. */
  readonly maxOutputBytes?: number | undefined;
  /** Free words for the caller's own use; they appear in the gateway's log. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** The id of this request, sent as `x-request-id`; the gateway makes one when not given. */
  readonly requestId?: string | undefined;
  /**
   * With it the same call has its effect once, however often it is sent: what is sent again gets the first answer. 1 to
   * 255 visible ASCII characters; another call with the same key is refused.
   */
  readonly idempotencyKey?: string | undefined;
}

/** Where an instance stands. */
export type InstanceStatus = "creating" | "running" | "paused" | "stopping" | "stopped" | "failed";

/** The options of `instances.create`. Undefined is the same as not given: the gateway's default applies. */
export interface CreateInstanceOptions extends CallOptions {
  /** The image whose files it starts from. */
  readonly image?: string | undefined;
  /** A name of the caller's own: letters, digits, `-`, `_` and `.`; no two instances have the same. */
  readonly name?: string | undefined;
  /** The runtime to use. */
  readonly runtime?: "auto" | "native" | "docker" | "firecracker" | undefined;
  /** Environment variables of every command in it, added to those of the image. */
  readonly envVars?: Readonly<Record<string, string>> | undefined;
  /** The working directory of every command. */
  readonly workingDir?: string | undefined;
  /** The user of every command: a name, `uid` or `uid:gid`. */
  readonly user?: string | undefined;
  /** Files put into it before anything runs: path to content, or {@link FileInput} objects. */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | readonly FileInput[] | undefined;
  /** Memory limit in MiB. */
  readonly memoryMb?: number | undefined;
  /** CPU limit in cores; fractions are allowed. */
  readonly cpuCores?: number | undefined;
  /** The most processes and threads at once. */
  readonly pidsLimit?: number | undefined;
  /** Disk limit in MiB. */
  readonly diskMb?: number | undefined;
  /** What its commands can reach. */
  readonly network?: "none" | "egress" | undefined;
  /** How long it is there, in milliseconds from its creation; without one until it is deleted. */
  readonly ttlMs?: number | undefined;
  /** How long it may be idle, in milliseconds: running, and no request is about it. */
  readonly idleTimeoutMs?: number | undefined;
  /** What becomes of it when one of these times is over; the gateway's default is `delete`. */
  readonly onTimeout?: "delete" | "pause" | undefined;
  /** Whether a command for it resumes it when it is paused. */
  readonly autoResume?: boolean | undefined;
  /** Its main command, which runs from its start on: a string is run by `/bin/sh -c`. */
  readonly command?: string | readonly string[] | undefined;
  /** Whether the image's own command (Entrypoint and Cmd) is the main command; `command` then replaces its Cmd. */
  readonly main?: boolean | undefined;
  /** When the main command is run again after it ended; the gateway's default is `never`. */
  readonly restart?: "never" | "on_failure" | "always" | undefined;
  /** Free words for the caller's own use; the list can be asked for them. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** 1 to 255 visible ASCII characters: however often the same call is made with it, there is one instance. */
  readonly idempotencyKey?: string | undefined;
}

/** The options of `instances.list`. */
export interface ListInstancesOptions extends CallOptions {
  /** Only those that stand there, or at one of these. */
  readonly status?: InstanceStatus | readonly InstanceStatus[] | undefined;
  /** Only those with all of these labels. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** The most instances to tell of; all of them when not given. */
  readonly limit?: number | undefined;
}

/** The options of `instances.exec`. Undefined is the same as not given: the instance's default applies. */
export interface ExecOptions extends CallOptions {
  /** Environment variables, added to those of the instance. */
  readonly envVars?: Readonly<Record<string, string>> | undefined;
  /** The working directory; it must exist in the instance. */
  readonly workingDir?: string | undefined;
  /** The user: a name, `uid` or `uid:gid`. */
  readonly user?: string | undefined;
  /** Standard input. */
  readonly stdin?: string | Uint8Array | undefined;
  /** Files put into the instance before the command runs: path to content, or {@link FileInput} objects. */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | readonly FileInput[] | undefined;
  /** Secrets: each appears as the file `/run/secrets/NAME`, readable by the command's user alone. */
  readonly secrets?: Readonly<Record<string, string>> | undefined;
  /** Wall time of the command in milliseconds, while the instance is not paused; the gateway's default is 30000, and none for a command in the background. */
  readonly timeoutMs?: number | undefined;
  /**
   * How many bytes are kept of each of stdout and stderr; the rest is read and dropped. For a command in the background
   * there is no limit where none is given: of too much output the newest part is held.
   */
  readonly maxOutputBytes?: number | undefined;
  /** Whether the command goes on when its caller goes away; it can be found again by its id. */
  readonly keepRunning?: boolean | undefined;
  /** Whether standard input stays open for `input`; for a command in the background, or one that is kept running. */
  readonly stdinOpen?: boolean | undefined;
  /** The size of a terminal that the command gets; for one in the background. */
  readonly tty?: TerminalSize | undefined;
  /** Free words for the caller's own use; they appear in the gateway's log. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** The id of this request, sent as `x-request-id`; the gateway makes one when not given. */
  readonly requestId?: string | undefined;
  /**
   * With it the same call has its effect once, however often it is sent: what is sent again gets the first answer. 1 to
   * 255 visible ASCII characters; another call with the same key is refused.
   */
  readonly idempotencyKey?: string | undefined;
}

/** The options of `executions`. */
export interface ListExecutionsOptions extends CallOptions {
  /** The most executions to tell of; all of them when not given. */
  readonly limit?: number | undefined;
}

/** The options of the stream of a lasting execution. */
export interface StreamOptions extends CallOptions {
  /**
   * The byte of output to begin with, stdout and stderr counted together; the first one that is still held when not
   * given.
   */
  readonly offset?: number | undefined;
}

/** The options of `input`. */
export interface InputOptions extends CallOptions {
  /** Whether standard input ends after that. */
  readonly eof?: boolean | undefined;
}

/** The options of `wait`. */
export interface WaitOptions {
  /** The longest wait in milliseconds; for ever when not given. It rejects with a `TimeoutError` (a `DOMException`). */
  readonly timeoutMs?: number | undefined;
  /** Aborting it ends the wait, and not the command. */
  readonly signal?: AbortSignal | undefined;
}

/** The options of `logs`. */
export interface LogsOptions extends CallOptions {
  /** Only so many entries, the newest; all that are kept when not given. */
  readonly tail?: number | undefined;
  /** Whether what comes later is waited for: an iterator of entries, which ends with the instance. */
  readonly follow?: boolean | undefined;
}

/** The options of `events`. */
export interface EventsOptions extends CallOptions {
  /** The number of the event after which to begin; 0: all that are kept. Those to come when not given. */
  readonly after?: number | undefined;
  /** Only those of this kind, or of these: `"instance.running"`, or its beginning, `"instance."`. */
  readonly kind?: string | readonly string[] | undefined;
  /** Only those of the instance or execution with this id. */
  readonly subject?: string | undefined;
}

/** The options of `pty`. */
export interface TerminalOptions {
  /** Its lines; 24 when not given. */
  readonly rows?: number | undefined;
  /** Its columns; 80 when not given. */
  readonly cols?: number | undefined;
  /** What runs in it; a login shell when not given. */
  readonly command?: string | undefined;
  /** As whom. */
  readonly user?: string | undefined;
  /** Where. */
  readonly workingDir?: string | undefined;
  /** The terminal to connect to, which is there; what is above is of no account then. */
  readonly executionId?: string | undefined;
  /** The byte of its output to begin with; the first one that is still held when not given. */
  readonly offset?: number | undefined;
  /** Aborting it ends the attempt to connect. */
  readonly signal?: AbortSignal | undefined;
}

/** What every verb of `files` can be given. */
export interface FileOptions extends CallOptions {
  /** As whom it is done: a name, `uid` or `uid:gid`; the instance's user when not given. */
  readonly user?: string | undefined;
}

/** The options of `files.read` and `files.open`. */
export interface ReadFileOptions extends FileOptions {
  /** The first byte. */
  readonly offset?: number | undefined;
  /** The most bytes; all of them when not given. */
  readonly length?: number | undefined;
}

/** The options of `files.write` and `files.writeStream`. */
export interface WriteFileOptions extends FileOptions {
  /** Permission bits: a number (`0o755`) or octal digits (`"0755"`); 0644 for a new file. */
  readonly mode?: number | string | undefined;
  /** `user[:group]` or `uid:gid`. */
  readonly owner?: string | undefined;
}

/** The options of `files.list`. */
export interface ListFilesOptions extends FileOptions {
  /** The most entries to tell of; all of them when not given. */
  readonly limit?: number | undefined;
}

/** The options of `files.mkdir`. */
export interface MakeDirectoryOptions extends FileOptions {
  /** Permission bits, as for a file. */
  readonly mode?: number | string | undefined;
}

/** The options of `files.remove`. */
export interface RemoveFileOptions extends FileOptions {
  /** Whether a directory is removed with all that is in it. */
  readonly recursive?: boolean | undefined;
}

/** The options of `files.watch`. */
export interface WatchFilesOptions extends FileOptions {
  /** Whether what is below its directories is watched, too. */
  readonly recursive?: boolean | undefined;
}

/**
 * What a file is written from: the path of a file of this machine, or a `file:` URL; bytes; or a stream or an iterable of
 * them.
 */
export type UploadSource =
  | string
  | URL
  | Uint8Array
  | ReadableStream<Uint8Array>
  | AsyncIterable<Uint8Array>
  | Iterable<Uint8Array>;

/** The options of `instances.stop`. */
export interface StopInstanceOptions extends CallOptions {
  /** How long its processes have after SIGTERM, in milliseconds, until they are killed: at most 60000; 0 kills them at once. The gateway's default is 5000. */
  readonly graceMs?: number | undefined;
}

/** What `instances.setTimeout` is given. Null takes a time away; what is undefined stays. */
export interface InstanceTimes extends CallOptions {
  /** How long it is still there, in milliseconds. */
  readonly ttlMs?: number | null | undefined;
  /** How long it may be idle, in milliseconds. */
  readonly idleTimeoutMs?: number | null | undefined;
}

/** What `instances.update` is given. What is undefined stays. */
export interface UpdateInstanceOptions extends CallOptions {
  /** Memory limit in MiB; not below what is in use. */
  readonly memoryMb?: number | undefined;
  /** CPU limit in cores. */
  readonly cpuCores?: number | undefined;
  /** The most processes and threads at once. */
  readonly pidsLimit?: number | undefined;
}

/** The options of `images.list`. */
export interface ListImagesOptions extends CallOptions {
  /** Only the image of this name or id. */
  readonly name?: string | undefined;
  /** The most images to tell of; all of them when not given. */
  readonly limit?: number | undefined;
}

/** What `images.pull` and `images.import` have in common. */
export interface AddImageOptions extends CallOptions {
  /** Is called with each step as it comes; what it throws ends the call. */
  readonly onProgress?: ((step: ImageProgress) => void) | undefined;
}

/** The options of `images.pull`. */
export interface PullImageOptions extends AddImageOptions {
  /** With it the pull is done once, however often it is sent; not with `onProgress`. */
  readonly idempotencyKey?: string | undefined;
}

/** The options of `images.import`. */
export interface ImportImageOptions extends AddImageOptions {
  /** The name that the image gets, in place of those that the archive has. */
  readonly name?: string | undefined;
}

/** An archive: the path of one, or a `file:` URL; its bytes; or a stream of them. */
export type ArchiveSource = string | URL | Uint8Array | ReadableStream<Uint8Array>;

/**
 * How often and how patiently a call is tried again.
 *
 * Only what is safe is tried again: a connection that was never made, a refusal to start (503 `overloaded`; 429 with
 * `Retry-After`), and for GETs, `instances.delete`, `cancel` of an execution, `files.write`, `files.mkdir` and calls with an
 * `idempotencyKey` also a lost connection and 502, 503, 504 (but for `execution_timeout`). Another execution that may have
 * begun is never sent twice, and neither is what comes from a stream or an iterable.
 *
 * A stream that can be taken up again (of a lasting execution, of the gateway's events) is tried as often after each of its
 * events.
 */
export interface RetryPolicy {
  /** The most attempts after the first; 0 switches retries off. Default: 2. */
  readonly maxRetries?: number | undefined;
  /** The wait in milliseconds before the first retry where the gateway names none; doubled for each further one, half of it random. Default: 200. */
  readonly initialBackoffMs?: number | undefined;
  /** The longest such wait. Default: 5000. */
  readonly maxBackoffMs?: number | undefined;
  /** The longest `Retry-After` that is waited for; where the gateway asks for more, the error is thrown. Default: 30000. */
  readonly maxRetryAfterMs?: number | undefined;
}

/** The settings of a client. */
export interface ClientOptions {
  /** Where the gateway is; else the environment variable `FAAS_BASE_URL`, else `http://localhost:8080`. */
  readonly baseUrl?: string | undefined;
  /** The longest time in milliseconds until an answer is whole, for all calls; derived from each call's `timeoutMs` when not given. */
  readonly httpTimeoutMs?: number | undefined;
  /** How often a call that is safe to repeat is tried again. */
  readonly retry?: RetryPolicy | undefined;
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Used in place of the global `fetch`, for example to go through a proxy. */
  readonly fetch?: typeof globalThis.fetch | undefined;
}
