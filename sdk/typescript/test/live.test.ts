// A few calls to the gateway at FAAS_BASE_URL; without it these are skipped.

import { describe, expect, test } from "vitest";
import { FaaSClient } from "../src/client";
import { ExecutionTimeoutError, ImageUnavailableError, InvalidRequestError } from "../src/index.js";
import { rejection } from "./stub.js";

const missing = !process.env.FAAS_BASE_URL;
const title = missing ? "live (skipped: FAAS_BASE_URL is not set, no gateway to talk to)" : "live";

describe.skipIf(missing)(title, () => {
  const client = (): FaaSClient => new FaaSClient();

  test("the specification's example", async () => {
    const result = await client().execute('echo "Hello!"', "host");
    expect(result).toMatchObject({ stdout: "Hello!\n", exitCode: 0, ok: true });
  });

  test("bytes and files", async () => {
    const result = await client().execute("cat data; cat", {
      stdin: new Uint8Array([0, 255]),
      files: { "/tmp/data": new Uint8Array([254]) },
      workingDir: "/tmp",
    });
    expect([...result.stdoutBytes]).toEqual([254, 0, 255]);
  });

  test("a failing command is a result", async () => {
    const result = await client().execute(["sh", "-c", "echo oops >&2; exit 3"]);
    expect(result).toMatchObject({ exitCode: 3, stderr: "oops\n", error: "process exited with code 3" });
  });

  test("a timeout has the output so far", async () => {
    const error = await rejection(client().execute("echo begun; sleep 600", { timeoutMs: 300 }));
    expect(error).toBeInstanceOf(ExecutionTimeoutError);
    expect((error as ExecutionTimeoutError).execution?.stdout).toBe("begun\n");
  });

  test("errors are typed", async () => {
    expect(await rejection(client().execute(""))).toBeInstanceOf(InvalidRequestError);
    expect(await rejection(client().execute("true", "no-such-image"))).toBeInstanceOf(ImageUnavailableError);
  });

  test("the gateway tells of itself", async () => {
    const health = await client().health();
    expect(["healthy", "degraded"]).toContain(health.status);
    expect((await client().capabilities()).defaultImage).not.toBe("");
    expect((await client().version()).version).toBe(health.version);
  });

  test("several at once", async () => {
    const one = client();
    const results = await Promise.all(Array.from({ length: 8 }, (_, n) => one.execute(["echo", String(n)])));
    expect(results.map((result) => result.stdout)).toEqual(Array.from({ length: 8 }, (_, n) => `${n}\n`));
  });
});
