// Settings: argument, then environment, then default; and what is derived from them.

import { describe, expect, vi } from "vitest";
import { clientConfig, httpTimeoutMs } from "../src/core/config.js";
import { execute } from "../src/core/operations/execute.js";
import { health } from "../src/core/operations/server.js";
import { FaaSClient } from "../src/index.js";
import { patientDispatcher } from "../src/transport/dispatcher.js";
import { test } from "./fixture.js";
import { execution } from "./stub.js";

test("the base URL comes from argument, then environment, then default", () => {
  const environment = { FAAS_BASE_URL: "http://from-environment:1/" };
  expect(clientConfig({ baseUrl: "http://from-argument:2" }, environment).baseUrl).toBe("http://from-argument:2");
  expect(clientConfig({}, environment).baseUrl).toBe("http://from-environment:1");
  expect(clientConfig({}, {}).baseUrl).toBe("http://localhost:8080");
  expect(clientConfig({}, { FAAS_BASE_URL: "" }).baseUrl).toBe("http://localhost:8080");
});

test("the client reads the environment", () => {
  vi.stubEnv("FAAS_BASE_URL", "http://127.0.0.1:9");
  try {
    expect(new FaaSClient().baseUrl).toBe("http://127.0.0.1:9");
  } finally {
    vi.unstubAllEnvs();
  }
});

describe("a base URL that is none is refused with its origin", () => {
  test.for(["localhost:8080", "ftp://x", "http://", "http://x:port", "http://[::1", "http://x?a", "http://x#a"])(
    "%s",
    (url) => {
      expect(() => clientConfig({ baseUrl: url }, {})).toThrow("baseUrl is");
      expect(() => clientConfig({}, { FAAS_BASE_URL: url })).toThrow("FAAS_BASE_URL is");
    },
  );
  test("an empty argument", () => {
    expect(() => clientConfig({ baseUrl: "" }, {})).toThrow("baseUrl is");
  });
});

test("a base URL may have a path", async ({ stub }) => {
  await new FaaSClient({ baseUrl: `${stub.url}/faas/` }).execute("x");
  expect(stub.seen[0]?.path).toBe("/faas/api/v1/execute");
});

test("options that do not exist or make no sense are refused", () => {
  expect(() => new FaaSClient({ baseURL: "http://x" } as object)).toThrow("no option baseURL");
  expect(() => new FaaSClient({ httpTimeoutMs: 0 })).toThrow("httpTimeoutMs");
  expect(() => new FaaSClient({ headers: { "x y": "z" } })).toThrow("header name");
  expect(() => new FaaSClient({ headers: { x: "a\nb" } })).toThrow("header cannot carry");
});

test("the HTTP timeout is the call's, then the client's, then derived", () => {
  const config = clientConfig({ httpTimeoutMs: 5_000 }, {});
  expect(httpTimeoutMs(config, execute("x", { httpTimeoutMs: 1_000 }))).toBe(1_000);
  expect(httpTimeoutMs(config, execute("x", { timeoutMs: 100_000 }))).toBe(5_000);
  const derived = clientConfig({}, {});
  expect(httpTimeoutMs(derived, execute("x", {}))).toBe(90_000);
  expect(httpTimeoutMs(derived, execute("x", { timeoutMs: 100_000 }))).toBe(160_000);
  expect(httpTimeoutMs(derived, execute("x", { timeoutMs: -5 }))).toBe(60_000);
  expect(httpTimeoutMs(derived, health({}))).toBe(30_000);
});

test("the client's headers are sent and the call's win", async ({ stub }) => {
  const headers = { Authorization: "Bearer k", "X-Request-Id": "client", "User-Agent": "mine" };
  await new FaaSClient({ baseUrl: stub.url, headers }).execute("x", { requestId: "call" });
  expect(stub.seen[0]?.headers).toMatchObject({
    authorization: "Bearer k",
    "x-request-id": "call",
    "user-agent": "mine",
  });
});

test("a fetch of the caller's own is used", async ({ stub }) => {
  const urls: unknown[] = [];
  const client = new FaaSClient({
    baseUrl: stub.url,
    fetch: (input, init) => {
      urls.push(input);
      return fetch(input, init);
    },
  });
  await client.execute("x");
  expect(urls).toEqual([`${stub.url}/api/v1/execute`]);
});

test("fetch's own limit on the wait for an answer is lifted", async ({ client, stub }) => {
  // With a limit of 1 ms in place of 300 s on fetch's global dispatcher, plain fetch gives up on this answer.
  const symbol = Symbol.for("undici.globalDispatcher.1");
  const { dispatcher } = patientDispatcher() as { dispatcher: object };
  const globals = globalThis as unknown as Record<symbol, object | undefined>;
  const before = globals[symbol];
  const Agent = dispatcher.constructor as new (options: object) => object & { close(): Promise<void> };
  const hasty = new Agent({ headersTimeout: 1, keepAliveTimeout: 1 });
  globals[symbol] = hasty;
  try {
    stub.replies({ json: execution(), hold: new Promise((resolve) => setTimeout(resolve, 4_000)) });
    const [plain, ours] = await Promise.allSettled([fetch(`${stub.url}/health`), client.execute("x")]);
    expect(plain).toMatchObject({ status: "rejected", reason: { cause: { code: "UND_ERR_HEADERS_TIMEOUT" } } });
    expect(ours).toMatchObject({ status: "fulfilled", value: { ok: true } });
  } finally {
    globals[symbol] = before;
    await hasty.close();
  }
});

test("a dispatcher that somebody has set is left in its place", () => {
  const symbol = Symbol.for("undici.globalDispatcher.1");
  const globals = globalThis as unknown as Record<symbol, object | undefined>;
  patientDispatcher();
  const before = globals[symbol];
  class ProxyAgent {}
  globals[symbol] = new ProxyAgent();
  try {
    expect(patientDispatcher()).toEqual({});
  } finally {
    globals[symbol] = before;
  }
});
