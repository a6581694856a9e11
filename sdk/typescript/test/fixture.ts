// A stub gateway and a client of it for each test.

import { test as base } from "vitest";
import { FaaSClient } from "../src/index.js";
import { StubGateway } from "./stub.js";

/** Two retries without a wait. */
export const QUICK = { initialBackoffMs: 0, maxBackoffMs: 0 };

export const test = base.extend<{ stub: StubGateway; client: FaaSClient }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants the pattern
  stub: async ({}, use) => {
    const stub = await StubGateway.start();
    await use(stub);
    await stub.stop();
  },
  client: async ({ stub }, use) => {
    await use(new FaaSClient({ baseUrl: stub.url, retry: QUICK }));
  },
});
