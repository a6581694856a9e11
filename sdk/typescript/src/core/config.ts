// The client's settings: argument, then environment, then default.

import type { ClientOptions } from "../options.js";
import { VERSION } from "../version.js";
import type { Call } from "./call.js";
import { checkedHeaders } from "./headers.js";
import { type Retry, retryOf } from "./retry.js";

/** Where a gateway listens that was started without options. */
export const DEFAULT_BASE_URL = "http://localhost:8080";

/** Settings of one client, checked. */
export interface ClientConfig {
  /** Without a slash at its end. */
  readonly baseUrl: string;
  readonly httpTimeoutMs: number | undefined;
  readonly retry: Retry;
  readonly headers: Readonly<Record<string, string>>;
}

const OPTIONS: readonly string[] = ["baseUrl", "httpTimeoutMs", "retry", "headers", "fetch"];

/**
 * Settings from arguments and environment.
 *
 * @throws TypeError or RangeError where a setting is not valid; the message says which and where it came from.
 */
export function clientConfig(
  options: ClientOptions,
  environment: Readonly<Record<string, string | undefined>>,
): ClientConfig {
  const unknown = Object.keys(options).find((name) => !OPTIONS.includes(name));
  if (unknown !== undefined) {
    throw new TypeError(`FaaSClient has no option ${unknown}; it has ${OPTIONS.join(", ")}`);
  }
  return {
    baseUrl: baseUrl(options.baseUrl, environment),
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    retry: retryOf(options.retry),
    headers: checkedHeaders(options.headers ?? {}),
  };
}

/** A TypeError where there is an option of another name, misspelt most likely. */
export function refuseUnknown(options: object, names: readonly string[]): void {
  const unknown = Object.keys(options).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new TypeError(`this call has no option ${unknown}; it has ${names.join(", ")}`);
  }
}

/** The same time, or a RangeError where it is none. */
export function checkedHttpTimeoutMs(milliseconds: number | undefined): number | undefined {
  if (milliseconds !== undefined && !(milliseconds > 0)) {
    throw new RangeError(`httpTimeoutMs is ${milliseconds}, which is not a time in milliseconds`);
  }
  return milliseconds;
}

/** The HTTP timeout of one call in milliseconds: the call's own, the client's, or the derived one. */
export function httpTimeoutMs(config: ClientConfig, call: Call<unknown>): number {
  const ofClient =
    config.httpTimeoutMs === undefined ? undefined : Math.max(config.httpTimeoutMs, call.leastHttpTimeoutMs ?? 0);
  return call.httpTimeoutMs ?? ofClient ?? call.defaultHttpTimeoutMs;
}

/** All headers of a request; the call's own win over the client's. */
export function requestHeaders(config: ClientConfig, call: Call<unknown>): Record<string, string> {
  return {
    accept: "application/json",
    "user-agent": `faas-sdk-typescript/${VERSION}`,
    ...config.headers,
    ...(call.body === undefined ? {} : { "content-type": "application/json" }),
    ...(typeof call.body === "object" && call.body.sizeBytes !== undefined
      ? { "content-length": String(call.body.sizeBytes) }
      : {}),
    ...call.headers,
  };
}

function baseUrl(argument: string | undefined, environment: Readonly<Record<string, string | undefined>>): string {
  if (argument !== undefined) {
    return checkedUrl(argument, "baseUrl");
  }
  const variable = environment.FAAS_BASE_URL;
  return variable ? checkedUrl(variable, "FAAS_BASE_URL") : DEFAULT_BASE_URL;
}

function checkedUrl(text: string, origin: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol)) {
    throw new TypeError(`${origin} is ${JSON.stringify(text)}, which is not like http://HOST:PORT`);
  }
  if (/[?#]/.test(text)) {
    throw new TypeError(`${origin} is ${JSON.stringify(text)}; a base URL has no query and no fragment`);
  }
  return text.replace(/\/+$/, "");
}
