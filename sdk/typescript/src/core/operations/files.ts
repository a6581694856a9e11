// `/api/v1/instances/{id}/files`: the files of an instance.

import type {
  FileOptions,
  ListFilesOptions,
  MakeDirectoryOptions,
  ReadFileOptions,
  RemoveFileOptions,
  WatchFilesOptions,
  WriteFileOptions,
} from "../../options.js";
import type { FileEvent, FileInfo, UnpackedTar } from "../../types.js";
import type { Call, Upload } from "../call.js";
import { checkedHttpTimeoutMs, refuseUnknown } from "../config.js";
import { Members } from "../decode.js";
import { EventSource, streamCall } from "../event-source.js";
import { type Listed, withQuery } from "../pages.js";
import { segment } from "./ids.js";

const ALWAYS = ["user", "httpTimeoutMs", "signal"] as const;

/** How long it may take until all of a file is there. */
const TRANSFER_TIMEOUT_MS = 1_860_000;

type Asked = Readonly<Record<string, string | undefined>> & { readonly path: string };

/** The route of one instance's files. */
export class FileRoute {
  readonly #path: string;

  constructor(instanceId: string) {
    this.#path = `/api/v1/instances/${segment(instanceId)}/files`;
  }

  /** The bytes of a file, or a part of them. */
  read(path: string, options: ReadFileOptions): Call<Uint8Array> {
    refuseUnknown(options, ["offset", "length", ...ALWAYS]);
    const part = range(options.offset ?? 0, options.length);
    const headers: Record<string, string> = part === undefined ? {} : { range: part };
    return this.#download({ path }, options, headers, part === undefined ? 200 : 206);
  }

  /** A tar archive of a directory or a file. */
  tar(path: string, options: FileOptions): Call<Uint8Array> {
    refuseUnknown(options, ALWAYS);
    return this.#download({ path, tar: "true" }, options, {}, 200);
  }

  /** What stands at a path. */
  stat(path: string, options: FileOptions): Call<FileInfo> {
    refuseUnknown(options, ALWAYS);
    return { ...this.#call({ path, stat: "true" }, options), read: readInfo };
  }

  /** What is in a directory. */
  listed(path: string, options: ListFilesOptions): Listed<FileInfo> {
    refuseUnknown(options, ["limit", ...ALWAYS]);
    return {
      path: this.#path,
      asked: { path: text(path), list: "true", user: options.user },
      options,
      read: readFileInfo,
    };
  }

  /** Make a file, or another one in its place. */
  write(path: string, body: Upload, options: WriteFileOptions): Call<FileInfo> {
    refuseUnknown(options, ["mode", "owner", ...ALWAYS]);
    const asked = { path, mode: octal(options.mode), owner: options.owner };
    return { ...this.#put(asked, body, options), read: readInfo };
  }

  /** Unpack a tar archive into a directory. */
  unpack(path: string, body: Upload, options: FileOptions): Call<UnpackedTar> {
    refuseUnknown(options, ALWAYS);
    return { ...this.#put({ path, tar: "true" }, body, options), read: readUnpacked };
  }

  /** Make a directory. One that is there is no error. */
  mkdir(path: string, options: MakeDirectoryOptions): Call<FileInfo> {
    refuseUnknown(options, ["mode", ...ALWAYS]);
    return { ...this.#post({ op: "mkdir", path, mode: octal(options.mode) }, options), idempotent: true };
  }

  /** Give it another path. */
  move(path: string, to: string, options: FileOptions): Call<FileInfo> {
    refuseUnknown(options, ALWAYS);
    return this.#post({ op: "move", path, to: text(to) }, options);
  }

  /** Remove it. */
  remove(path: string, options: RemoveFileOptions): Call<void> {
    refuseUnknown(options, ["recursive", ...ALWAYS]);
    return {
      ...this.#call({ path, recursive: flag(options.recursive) }, options),
      method: "DELETE",
      defaultHttpTimeoutMs: TRANSFER_TIMEOUT_MS,
      resultStatuses: [204],
      read: () => undefined,
    };
  }

  /** What happens there from now on. */
  watch(path: string, options: WatchFilesOptions): EventSource<FileEvent> {
    refuseUnknown(options, ["recursive", ...ALWAYS]);
    const asked = { path: text(path), watch: "true", recursive: flag(options.recursive), user: options.user };
    return new FileEvents(streamCall(this.#path, asked, options));
  }

  #download(
    asked: Asked,
    options: FileOptions,
    headers: Readonly<Record<string, string>>,
    status: number,
  ): Call<Uint8Array> {
    return {
      ...this.#call(asked, options),
      headers: { accept: "*/*", ...headers },
      defaultHttpTimeoutMs: TRANSFER_TIMEOUT_MS,
      resultStatuses: [status],
      raw: true,
      read: (bytes) => bytes as Uint8Array,
    };
  }

  #put(asked: Asked, body: Upload, options: FileOptions): Omit<Call<unknown>, "read"> {
    return {
      ...this.#call(asked, options),
      method: "PUT",
      headers: { "content-type": "application/octet-stream" },
      body,
      defaultHttpTimeoutMs: TRANSFER_TIMEOUT_MS,
      resultStatuses: [200, 201],
      idempotent: true,
    };
  }

  #post(asked: Asked, options: FileOptions): Call<FileInfo> {
    return { ...this.#call(asked, options), method: "POST", body: "", resultStatuses: [200, 201], read: readInfo };
  }

  #call(asked: Asked, options: FileOptions): Omit<Call<unknown>, "read"> {
    return {
      method: "GET",
      path: withQuery(this.#path, { ...asked, path: text(asked.path), user: options.user }),
      headers: {},
      httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
      defaultHttpTimeoutMs: 30_000,
      signal: options.signal,
      resultStatuses: [200],
    };
  }
}

/** What happens where a watch looks. What happened while nobody was connected is not kept: it does not go on. */
class FileEvents extends EventSource<FileEvent> {
  readonly #call: Call<never>;

  constructor(call: Call<never>) {
    super();
    this.#call = call;
  }

  call(): Call<never> {
    return this.#call;
  }

  read(members: Members): FileEvent {
    return {
      event: members.string("event"),
      path: members.optionalString("path"),
      from: members.optionalString("from"),
      type: members.optionalString("type"),
    };
  }
}

function readInfo(value: unknown): FileInfo {
  return readFileInfo(new Members(value));
}

function readFileInfo(from: Members): FileInfo {
  return {
    path: from.string("path"),
    pathBase64: from.optionalString("path_base64"),
    name: from.string("name"),
    type: from.string("type"),
    sizeBytes: from.integer("size_bytes"),
    mode: from.string("mode"),
    uid: from.integer("uid"),
    gid: from.integer("gid"),
    owner: from.optionalString("owner"),
    group: from.optionalString("group"),
    modifiedAt: from.string("modified_at"),
    target: from.optionalString("target"),
  };
}

function readUnpacked(value: unknown): UnpackedTar {
  const from = new Members(value);
  return { files: from.integer("files"), bytes: from.integer("bytes") };
}

function range(offset: number, length: number | undefined): string | undefined {
  const isPart = Number.isSafeInteger(offset) && offset >= 0;
  if (!isPart || (length !== undefined && !(Number.isSafeInteger(length) && length > 0))) {
    throw new RangeError(`offset ${offset} and length ${length} are no part of a file`);
  }
  if (length === undefined) {
    return offset === 0 ? undefined : `bytes=${offset}-`;
  }
  return `bytes=${offset}-${offset + length - 1}`;
}

function octal(mode: number | string | undefined): string | undefined {
  return typeof mode === "number" ? mode.toString(8).padStart(4, "0") : mode;
}

function flag(is: boolean | undefined): string | undefined {
  return is === true ? "true" : undefined;
}

function text(path: unknown): string {
  if (typeof path !== "string") {
    throw new TypeError(`a path is a string, not ${path === null ? "null" : typeof path}`);
  }
  return path;
}
