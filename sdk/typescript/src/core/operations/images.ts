// `/api/v1/images`: the gateway's image store.

import type { AddImageOptions, CallOptions, ImportImageOptions, ListImagesOptions, PullImageOptions } from "../../options.js";
import type { ImageInfo } from "../../types.js";
import { type Call, IDEMPOTENCY_KEY, type Upload } from "../call.js";
import { checkedHttpTimeoutMs, refuseUnknown } from "../config.js";
import { DecodeError, each, Members } from "../decode.js";
import { givenHeaders } from "../headers.js";

const PATH = "/api/v1/images";

/** How long adding an image may take: the gateway's own limit for a pull (30 min by default), and a minute. */
const HTTP_TIMEOUT_MS = 1_860_000;

/** The most images that the gateway tells of at once. */
const LARGEST_PAGE = 1000;

/** A part of the list. */
interface Page {
  readonly images: readonly ImageInfo[];
  /** What the next page is asked for with, or null where this is the last one. */
  readonly nextCursor: string | null;
}

/** The images of the store, page by page until there is none left or there are enough. */
export async function list(
  options: ListImagesOptions,
  send: (call: Call<Page>) => Promise<Page>,
): Promise<ImageInfo[]> {
  refuseUnknown(options, ["name", "limit", "httpTimeoutMs", "signal"]);
  const found: ImageInfo[] = [];
  let cursor: string | null = null;
  do {
    const left = options.limit === undefined ? undefined : Math.min(options.limit - found.length, LARGEST_PAGE);
    const answer: Page = await send(page(options, left, cursor));
    found.push(...answer.images);
    cursor = answer.nextCursor;
  } while (cursor !== null && (options.limit === undefined || found.length < options.limit));
  return found;
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
  const call = adding(path({ name: options.name === undefined ? undefined : checkedName(options.name) }), options);
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
    path: path({ name: checkedName(name) }),
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: options.signal,
    resultStatuses: [204],
    read: () => undefined,
  };
}

function page(options: ListImagesOptions, limit: number | undefined, cursor: string | null): Call<Page> {
  return {
    method: "GET",
    path: path({
      name: options.name === undefined ? undefined : checkedName(options.name),
      limit: limit === undefined ? undefined : String(limit),
      cursor: cursor ?? undefined,
    }),
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: options.signal,
    resultStatuses: [200],
    read: (value, headers) => {
      const images = each(value).map(readImage);
      const nextCursor = headers.get("x-next-cursor");
      if (nextCursor !== null && (images.length === 0 || nextCursor === cursor)) {
        throw new DecodeError("there is a next page, and it is this one again");
      }
      return { images, nextCursor };
    },
  };
}

/** What pull and import have in common. */
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

function path(parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return given.length === 0 ? PATH : `${PATH}?${new URLSearchParams(given)}`;
}

function checkedName(name: unknown): string {
  if (typeof name !== "string") {
    throw new TypeError(`name is a string, not ${name === null ? "null" : typeof name}`);
  }
  return name;
}
