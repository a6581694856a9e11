// A few calls to the gateway at FAAS_BASE_URL; without it these are skipped.

import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test as base, describe, expect } from "vitest";
import { FaaSClient } from "../src/client";
import {
  ConflictError,
  ExecutionTimeoutError,
  ImageUnavailableError,
  InvalidRequestError,
  NotFoundError,
} from "../src/index.js";
import { saved } from "./archive.js";
import { rejection } from "./stub.js";

const missing = !process.env.FAAS_BASE_URL;
const title = missing ? "live (skipped: FAAS_BASE_URL is not set, no gateway to talk to)" : "live";

const architecture = process.arch === "x64" ? "amd64" : process.arch;
const busybox = (process.env.PATH ?? "")
  .split(delimiter)
  .map((folder) => join(folder, "busybox"))
  .find((path) => existsSync(path));

const test = base.extend<{ tiny: { name: string; archive: Buffer; path: string } }>({
  /** An image that nobody else has: its name, its archive, and a file with that. */
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants the pattern
  tiny: async ({}, use) => {
    const name = `sdk-typescript-${randomUUID()}:1`;
    const programs =
      busybox === undefined ? {} : { "bin/busybox": readFileSync(busybox), "bin/cat": readFileSync(busybox) };
    const archive = saved({ marker: Buffer.from(name), ...programs }, "named-in-the-archive:1", architecture);
    const folder = await mkdtemp(join(tmpdir(), "faas-sdk-"));
    const path = join(folder, "image.tar");
    await writeFile(path, archive);
    await use({ name, archive, path });
    await rm(folder, { recursive: true });
    const { images } = new FaaSClient();
    for (const image of await images.list({ name })) {
      await images.remove(image.id);
    }
  },
});

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
    const error = await rejection(client().execute("echo begun; sleep 600", { timeoutMs: 2_000 }));
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

  test("a command that goes on by itself", async () => {
    const one = client();
    const instance = await one.instances.create({ image: "host", command: "echo main" });
    try {
      const script = "read line; echo got $line; exit 3";
      const started = await instance.exec(script, { background: true, stdinOpen: true });
      await started.input("x\n");
      await started.wait({ timeoutMs: 60_000 });
      expect([started.status, started.exitCode]).toEqual(["exited", 3]);
      expect((await (await one.executions.get(started.id)).output()).stdout).toBe("got x\n");
      expect(await rejection(started.input("more"))).toBeInstanceOf(ConflictError);
      expect(await rejection(started.stream({ offset: 1000 }).next())).toMatchObject({ nextOffset: 6 });
      const terminal = await instance.pty({ command: "read line; echo got $line" });
      await terminal.write("y\n");
      let shown = "";
      for await (const piece of terminal) {
        shown += Buffer.from(piece).toString();
      }
      await terminal.close();
      expect(shown).toContain("got y");
      expect(terminal.end?.exitCode).toBe(0);
      await (await one.executions.get(instance.main?.executionId ?? "")).wait();
      expect((await instance.logs()).flatMap(({ text }) => text ?? [])).toEqual(["main\n"]);
    } finally {
      await instance.delete();
    }
    for await (const { kind } of one.events({ after: 0, subject: instance.id })) {
      if (kind === "instance.deleted") {
        break;
      }
    }
  });

  test("files go both ways", async () => {
    const instance = await client().instances.create({ image: "host" });
    try {
      const { files } = instance;
      await files.write("/srv/a", new Uint8Array([0, 255]), { mode: 0o600 });
      expect([...(await files.read("/srv/a", { offset: 1 }))]).toEqual([255]);
      const pieces = Array.from({ length: 1000 }, () => new Uint8Array(1000));
      expect((await files.writeStream("/srv/b", pieces)).sizeBytes).toBe(1_000_000);
      let size = 0;
      for await (const piece of (await files.open("/srv/b")) as unknown as AsyncIterable<Uint8Array>) {
        size += piece.length;
      }
      expect(size).toBe(1_000_000);
      expect((await files.list("/srv")).map(({ name, mode }) => [name, mode])).toEqual([
        ["a", "0600"],
        ["b", "0644"],
      ]);
      for await (const { event } of files.watch("/srv")) {
        if (event === "deleted") {
          break;
        }
        expect(event).toBe("ready");
        await files.remove("/srv/a");
      }
    } finally {
      await instance.delete();
    }
  });

  test("an image is imported, listed and removed", async ({ tiny: { name, path } }) => {
    const { images } = client();
    const [image, ...others] = await images.import(path, { name });
    expect(image).toMatchObject({ architecture, envVars: { PATH: "/bin" }, layers: 1 });
    expect(image?.names).toEqual([`docker.io/library/${name}`]);
    expect(others).toEqual([]);
    expect((await images.list({ name })).map(({ id }) => id)).toEqual([image?.id]);
    expect((await images.list()).map(({ id }) => id)).toContain(image?.id);
    expect(await images.list({ limit: 1 })).toHaveLength(1);
    await images.remove(name);
    expect(await images.list({ name })).toEqual([]);
    expect(await rejection(images.remove(name))).toBeInstanceOf(NotFoundError);
  });

  test("a stream is imported, with progress", async ({ tiny: { name, archive } }) => {
    const { images } = client();
    const phases: string[] = [];
    const stream = new Blob([new Uint8Array(archive)]).stream();
    const [image] = await images.import(stream, { name, onProgress: (step) => phases.push(step.phase) });
    expect(phases).not.toEqual([]);
    expect((await images.list({ name }))[0]?.id).toBe(image?.id);
  });

  test("a command runs in an imported image", async ({ tiny: { name, archive }, skip }) => {
    skip(busybox === undefined, "busybox: it is not in PATH");
    const one = client();
    await one.images.import(archive, { name });
    const result = await one.execute(["cat", "/marker"], { image: name, runtime: "native" });
    expect(result.stdout).toBe(name);
    expect(result.raw.usage).toEqual({
      cpu_us: result.usage.cpuUs,
      memory_peak_bytes: result.usage.memoryPeakBytes,
    });
  });

  test("what is no archive is refused, however long it is", async () => {
    for (const archive of [Buffer.from("no tar"), Buffer.alloc(6 << 20, "no tar")]) {
      for (const options of [{}, { onProgress: () => {} }]) {
        expect(await rejection(client().images.import(archive, options))).toBeInstanceOf(InvalidRequestError);
      }
    }
  });

  test("a registry that is not there is an image that is not there", async () => {
    const { images } = client();
    for (const options of [{}, { onProgress: () => {} }]) {
      expect(await rejection(images.pull("127.0.0.1:1/none", options))).toBeInstanceOf(ImageUnavailableError);
      expect(await rejection(images.pull("No:Such:Name", options))).toBeInstanceOf(InvalidRequestError);
    }
  });
});
