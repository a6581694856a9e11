// A list that the gateway tells of page by page.

import type { CallOptions } from "../options.js";
import type { Call } from "./call.js";
import { checkedHttpTimeoutMs } from "./config.js";
import { DecodeError, each, type Members } from "./decode.js";

/** The most entries that the gateway tells of at once. */
const LARGEST_PAGE = 1000;

/** A part of the list. */
export interface Page<T> {
  readonly entries: readonly T[];
  /** What the next page is asked for with, or null where this is the last one. */
  readonly nextCursor: string | null;
}

/** What is asked for. */
export interface Listed<T> {
  readonly path: string;
  readonly asked: Readonly<Record<string, string | undefined>>;
  readonly options: CallOptions & { readonly limit?: number | undefined };
  readonly read: (members: Members) => T;
}

/** The entries, page by page until there is none left or there are enough. */
export async function list<T>(listed: Listed<T>, send: (call: Call<Page<T>>) => Promise<Page<T>>): Promise<T[]> {
  const { limit } = listed.options;
  const found: T[] = [];
  let cursor: string | null = null;
  do {
    const left = limit === undefined ? undefined : Math.min(limit - found.length, LARGEST_PAGE);
    const answer: Page<T> = await send(page(listed, left, cursor));
    found.push(...answer.entries);
    cursor = answer.nextCursor;
  } while (cursor !== null && (limit === undefined || found.length < limit));
  return found;
}

/** The path with those parameters that are given. */
export function withQuery(path: string, parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
}

function page<T>(listed: Listed<T>, limit: number | undefined, cursor: string | null): Call<Page<T>> {
  return {
    method: "GET",
    path: withQuery(listed.path, {
      ...listed.asked,
      limit: limit === undefined ? undefined : String(limit),
      cursor: cursor ?? undefined,
    }),
    headers: {},
    httpTimeoutMs: checkedHttpTimeoutMs(listed.options.httpTimeoutMs),
    defaultHttpTimeoutMs: 30_000,
    signal: listed.options.signal,
    resultStatuses: [200],
    read: (value, headers) => {
      const entries = each(value).map(listed.read);
      const nextCursor = headers.get("x-next-cursor");
      if (nextCursor !== null && (entries.length === 0 || nextCursor === cursor)) {
        throw new DecodeError("there is a next page, and it is this one again");
      }
      return { entries, nextCursor };
    },
  };
}
