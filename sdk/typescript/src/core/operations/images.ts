// `/api/v1/images`: the gateway's image store.

import type {
  AddImageOptions,
  CallOptions,
  ImportImageOptions,
  ListImagesOptions,
  PullImageOptions,
} from "../../options.js";
import type { ImageInfo } from "../../types.js";
import { type Call, IDEMPOTENCY_KEY, type Upload } from "../call.js";
import { checkedHttpTimeoutMs, refuseUnknown } from "../config.js";
import { DecodeError, Members } from "../decode.js";
import { givenHeaders } from "../headers.js";

const PATH = "/api/v1/images";

/** How long adding an image may take: the gateway's own limit for a pull (30 min by default), and a minute. */
const HTTP_TIMEOUT_MS = 1_860_000;

/** The images of the store. */
export function listed(options: ListImagesOptions): Listed<ImageInfo> {
  refuseUnknown(options, ["name", "limit", "httpTimeoutMs", "signal"]);
  const asked = { name: options.name === undefined ? undefined : checkedName(options.name) };
  return { path: PATH, asked, options, read: readImage };
}

/** Fetch an image from its registry. */
export function pull(name: string, options: PullImageOptions): Call<ImageInfo> {
  refuseUnknown(options, ["onProgress", "idempotencyKey", "httpTimeoutMs", "signal"]);
  if (options.onProgress !== undefined && options.idempotencyKey !== undefined) {
    throw new TypeError("idempotencyKey is for a pull without onProgress: an answer in steps is not kept");
  }
  const call = adding(PATH, options);
  return {
    ...call,
    headers: { ...call.headers, ...givenHeaders({ [IDEMPOTENCY_KEY]: options.idempotencyKey }) },
    body: JSON.stringify({ name: checkedName(name) }),
    read: (value) => {
      const images = readAdded(value);
      const [image] = images;
      if (image === undefined || images.length !== 1) {
        throw new DecodeError(`/images has ${images.length} entries for one image that was pulled`);
      }
      return image;
    },
  };
}

/** Add the images of an archive. */
export function importArchive(archive: Upload, options: ImportImageOptions): Call<ImageInfo[]> {
  refuseUnknown(options, ["name", "onProgress", "httpTimeoutMs", "signal"]);
  const call = adding(
    withQuery(PATH, { name: options.name === undefined ? undefined : checkedName(options.name) }),
    options,
  );
  return {
    ...call,
    headers: { ...call.headers, "content-type": "application/octet-stream" },
    body: archive,
    read: readAdded,
  };
}

/** Remove a name, or an image with all its names. */
export function remove(name: string, options: CallOptions): Call<void> {
  refuseUnknown(options, ["httpTimeoutMs", "signal"]);
  return {
    method: "DELETE",
    path: withQuery(PATH, { name: checkedName(name) }),
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: options.signal,
    resultStatuses: [204],
    read: () => undefined,
  };
}

/** What pull and import have in common. */
import { type Listed, withQuery } from "../pages.js";

function adding(to: string, options: AddImageOptions): Omit<Call<unknown>, "read" | "body"> {
  return {
    method: "POST",
    path: to,
    headers: options.onProgress === undefined ? {} : { accept: "application/x-ndjson" },
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: HTTP_TIMEOUT_MS,
    signal: options.signal,
    resultStatuses: [201],
    onProgress: options.onProgress,
  };
}

function readAdded(value: unknown): ImageInfo[] {
  return new Members(value).children("images").map(readImage);
}

function readImage(members: Members): ImageInfo {
  return {
    id: members.string("id"),
    names: members.strings("names"),
    repoDigests: members.strings("repo_digests"),
    architecture: members.string("architecture"),
    createdAt: members.optionalString("created_at"),
    sizeBytes: members.integer("size_bytes"),
    layers: members.integer("layers"),
    addedAt: members.string("added_at"),
    lastUsedAt: members.string("last_used_at"),
    inUse: members.boolean("in_use"),
    envVars: members.stringMap("env_vars"),
    workingDir: members.string("working_dir"),
    user: members.string("user"),
    entrypoint: members.strings("entrypoint"),
    cmd: members.strings("cmd"),
  };
}

function checkedName(name: unknown): string {
  if (typeof name !== "string") {
    throw new TypeError(`name is a string, not ${name === null ? "null" : typeof name}`);
  }
  return name;
}
