// The built package, as programs load it: by its name, as ES module and as CommonJS.

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect } from "vitest";
import { test } from "./fixture.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));

const BODY = `
  const client = new FaaSClient();
  const result = await client.execute("x", "host");
  console.log(JSON.stringify([result.stdout, result instanceof ExecuteResult]));
`;

describe("a program that uses the package ends by itself", () => {
  const cases: [string, string[]][] = [
    ["ES module", ["--input-type=module", "-e", `import { ExecuteResult, FaaSClient } from "faas-sdk"; ${BODY}`]],
    [
      "ES module, client alone",
      [
        "--input-type=module",
        "-e",
        `import { FaaSClient } from "faas-sdk/client"; import { ExecuteResult } from "faas-sdk"; ${BODY}`,
      ],
    ],
    [
      "CommonJS",
      [
        "--input-type=commonjs",
        "-e",
        `const { ExecuteResult, FaaSClient } = require("faas-sdk"); (async () => { ${BODY} })();`,
      ],
    ],
  ];
  test.for(cases)("%s", async ([, args], { stub }) => {
    const env = { ...process.env, FAAS_BASE_URL: stub.url };
    const { stdout, stderr } = await run(process.execPath, args, { cwd: root, env, timeout: 50_000 });
    expect(stdout).toBe('["Hello!\\n",true]\n');
    expect(stderr).toBe("");
  });
});

test("the specification's program runs from the sources as it stands", async ({ stub }) => {
  const source = `import { FaaSClient } from './sdk/typescript/src/client';

const client = new FaaSClient({ baseUrl: '${stub.url}' });
const result = await client.execute('echo "Hello!"', 'alpine');
console.log(result.stdout);
`;
  const folder = await mkdtemp(join(tmpdir(), "faas-sdk-"));
  try {
    await mkdir(join(folder, "sdk"));
    await symlink(root, join(folder, "sdk", "typescript"));
    await writeFile(join(folder, "example.mts"), source);
    const tsx = fileURLToPath(new URL("../node_modules/tsx/dist/cli.mjs", import.meta.url));
    const { stdout } = await run(process.execPath, [tsx, "example.mts"], { cwd: folder, timeout: 50_000 });
    expect(stdout).toBe("Hello!\n\n");
  } finally {
    await rm(folder, { recursive: true });
  }
});
