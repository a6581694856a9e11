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
