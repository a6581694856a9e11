// What `execute` sends and what it makes of the answer.

import { describe, expect } from "vitest";
import { ResponseFormatError } from "../src/index.js";
import { test } from "./fixture.js";
import { execution, rejection, TIMINGS, USAGE } from "./stub.js";

test("the first example sends command and image and nothing else", async ({ client, stub }) => {
  const result = await client.execute('echo "Hello!"', "alpine");
  expect(result.stdout).toBe("Hello!\n");
  expect(stub.seen[0]).toMatchObject({ method: "POST", path: "/api/v1/execute" });
  expect(stub.seen[0]?.headers).toMatchObject({ "content-type": "application/json" });
  expect(stub.seen[0]?.headers["user-agent"]).toMatch(/^faas-sdk-typescript\//);
  expect(stub.seen[0]?.json).toEqual({ command: 'echo "Hello!"', image: "alpine" });
});

test("every option reaches its member", async ({ client, stub }) => {
  await client.execute(["python3", "-c", "print(1)"], {
    image: "host",
    runtime: "native",
    envVars: { A: "1", B: "x=y" },
    workingDir: "/tmp",
    user: "nobody",
    stdin: "in",
    files: { "a.txt": "text", "b.bin": new Uint8Array([0, 255]) },
    secrets: { token: "s3cret" },
    timeoutMs: 1000,
    memoryMb: 64,
    cpuCores: 0.5,
    pidsLimit: 32,
    diskMb: 16,
    network: "none",
    maxOutputBytes: 4096,
    labels: { job: "7" },
    requestId: "my-id",
  });
  expect(stub.seen[0]?.json).toEqual({
    command: ["python3", "-c", "print(1)"],
    image: "host",
    runtime: "native",
    env_vars: { A: "1", B: "x=y" },
    working_dir: "/tmp",
    user: "nobody",
    stdin: "in",
    files: [
      { path: "a.txt", content: "text" },
      { path: "b.bin", content_base64: "AP8=" },
    ],
    secrets: { token: "s3cret" },
    timeout_ms: 1000,
    memory_mb: 64,
    cpu_cores: 0.5,
    pids_limit: 32,
    disk_mb: 16,
    network: "none",
    max_output_bytes: 4096,
    labels: { job: "7" },
  });
  expect(stub.seen[0]?.headers["x-request-id"]).toBe("my-id");
});

test("files as objects keep their modes", async ({ client, stub }) => {
  await client.execute("x", {
    files: [
      { path: "run", content: "#!/bin/sh", mode: 0o755 },
      { path: "k", content: Buffer.from("k"), mode: "0600" },
    ],
  });
  expect(stub.seen[0]?.json.files).toEqual([
    { path: "run", content: "#!/bin/sh", mode: "0755" },
    { path: "k", content_base64: "aw==", mode: "0600" },
  ]);
});

test("stdin as bytes goes as base64, a view's bytes alone, and empty stdin is not none", async ({ client, stub }) => {
  await client.execute("cat", { stdin: new Uint8Array([9, 0, 1, 9]).subarray(1, 3) });
  await client.execute("cat", { stdin: "" });
  expect(stub.seen[0]?.json).toEqual({ command: "cat", stdin_base64: "AAE=" });
  expect(stub.seen[1]?.json).toEqual({ command: "cat", stdin: "" });
});

test("zero and empty values are sent and not swallowed", async ({ client, stub }) => {
  await client.execute("", { timeoutMs: 0, memoryMb: 0, envVars: {}, files: [], image: undefined });
  expect(stub.seen[0]?.json).toEqual({ command: "", timeout_ms: 0, memory_mb: 0, env_vars: {}, files: [] });
});

test("unicode goes both ways", async ({ client, stub }) => {
  const text = "naïve 日本語 \u{1f680} \u2028";
  stub.replies({ json: execution({ stdout: text }) });
  const result = await client.execute(["printf", text]);
  expect(stub.seen[0]?.json.command[1]).toBe(text);
  expect(result.stdout).toBe(text);
  expect(Buffer.from(result.stdoutBytes).equals(Buffer.from(text))).toBe(true);
});

describe("what cannot be sent is refused before anything is", () => {
  const cases: [string, unknown, unknown, string][] = [
    ["bytes as command", new Uint8Array([1]), {}, "command is a string or an array of strings"],
    ["a number among the words", ["ls", 1], {}, "command is a string or an array of strings"],
    ["no command", undefined, {}, "command is a string or an array of strings"],
    ["a number as stdin", "x", { stdin: 3 }, "stdin is a string or a Uint8Array"],
    ["a number as content", "x", { files: { a: 3 } }, "content is a string or a Uint8Array"],
    ["a misspelt option", "x", { imgae: "host" }, "execute has no option imgae"],
    ["not a number", "x", { cpuCores: Number.NaN }, "cpuCores is NaN"],
    ["no end", "x", { timeoutMs: Number.POSITIVE_INFINITY }, "timeoutMs is Infinity"],
    ["an HTTP timeout of 0", "x", { httpTimeoutMs: 0 }, "httpTimeoutMs is 0"],
    ["a request id with a line break", "x", { requestId: "a\r\nb: c" }, "x-request-id"],
    ["an empty request id", "x", { requestId: "" }, "x-request-id"],
  ];
  test.for(cases)("%s", async ([, command, options, words], { client, stub }) => {
    await expect(client.execute(command as string, options as object)).rejects.toThrow(words);
    expect(stub.seen).toEqual([]);
  });
});

test("every member of the answer is read", async ({ client, stub }) => {
  stub.replies({
    json: execution({
      exit_code: 137,
      signal: "SIGKILL",
      stdout: "a\ufffd",
      stdout_base64: Buffer.from([97, 255]).toString("base64"),
      stderr: "e",
      stdout_truncated: true,
      duration_ms: 12,
      oom_killed: true,
      error: "process exited with code 137",
    }),
  });
  const result = await client.execute("x");
  expect(result).toMatchObject({
    requestId: "req-1",
    executionId: "exec-1",
    exitCode: 137,
    signal: "SIGKILL",
    ok: false,
    stdout: "a\ufffd",
    stderr: "e",
    stderrBase64: null,
    stdoutTruncated: true,
    stderrTruncated: false,
    durationMs: 12,
    timings: { queueUs: TIMINGS.queue_us, createUs: TIMINGS.create_us, execUs: TIMINGS.exec_us },
    runtime: "native",
    image: "host",
    usage: { cpuUs: USAGE.cpu_us, memoryPeakBytes: USAGE.memory_peak_bytes },
    oomKilled: true,
    error: "process exited with code 137",
    output: "a\ufffd",
    logs: "e",
  });
  expect([...result.stdoutBytes]).toEqual([97, 255]);
  expect([...result.stderrBytes]).toEqual([101]);
});

test("a usage that nothing could tell is null", async ({ client, stub }) => {
  stub.replies({ json: execution({ usage: { cpu_us: null, memory_peak_bytes: null } }) });
  expect((await client.execute("x")).usage).toEqual({ cpuUs: null, memoryPeakBytes: null });
});

test("members of a newer gateway are kept and no error", async ({ client, stub }) => {
  stub.replies({ json: execution({ cold_start: true, timings: { ...TIMINGS, pool_us: 3 } }) });
  const result = await client.execute("x");
  expect(result.ok).toBe(true);
  expect(result.raw.cold_start).toBe(true);
});

test("a command that fails is a result", async ({ client, stub }) => {
  stub.replies({ json: execution({ exit_code: 3, error: "process exited with code 3" }) });
  expect((await client.execute("exit 3")).exitCode).toBe(3);
});

test("a huge answer is read whole", async ({ client, stub }) => {
  const text = "x".repeat(40 << 20);
  stub.replies({ json: execution({ stdout: text }) });
  expect((await client.execute("x")).stdout === text).toBe(true);
});

describe("an answer that is not the contract's is refused with the place", () => {
  const cases: [string, string][] = [
    ["<html>welcome</html>", "not JSON"],
    ["", "not JSON"],
    ["[]", "the body is an array, not an object"],
    [JSON.stringify(execution({ exit_code: "0" })), "/exit_code is a string, not a whole number"],
    [JSON.stringify(execution({ exit_code: true })), "/exit_code is a boolean, not a whole number"],
    [JSON.stringify(execution({ timings: { queue_us: 1 } })), "/timings/create_us is missing"],
    [JSON.stringify(execution({ timings: null })), "/timings is null, not an object"],
    [JSON.stringify(execution({ stdout_base64: "%" })), "/stdout_base64 is not base64"],
  ];
  test.for(cases)("%s", async ([body, words], { client, stub }) => {
    stub.replies({ body });
    const error = await rejection(client.execute("x"));
    expect(error).toBeInstanceOf(ResponseFormatError);
    expect(error).toMatchObject({ status: 200, message: expect.stringContaining(words) });
    expect(stub.seen).toHaveLength(1);
  });
});

test("a redirect is not followed and says where to", async ({ client, stub }) => {
  stub.replies({ status: 308, json: {}, headers: { location: "https://elsewhere/" } });
  await expect(client.execute("x")).rejects.toThrow("redirected to https://elsewhere/");
});
