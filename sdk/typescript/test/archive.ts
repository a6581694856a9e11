// Archives of images as `docker save` writes them, for the tests that talk to a gateway.

import { createHash } from "node:crypto";

const BLOCK = 512;

/** A tar (POSIX ustar) with these files, all of them executable. */
export function tar(files: Readonly<Record<string, Uint8Array>>): Buffer {
  const blocks = Object.entries(files).flatMap(([name, data]) => {
    const header = Buffer.alloc(BLOCK);
    header.write(name, 0);
    header.write(`0000755\0${"0000000\0".repeat(2)}`, 100);
    header.write(`${data.length.toString(8).padStart(11, "0")}\0${"0".repeat(11)}\0`, 124);
    header.write("        0", 148);
    header.write("ustar\x0000", 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    return [header, data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}

/** An image of one layer with these files. */
export function saved(files: Readonly<Record<string, Uint8Array>>, name: string, architecture: string): Buffer {
  const layer = tar(files);
  const config = {
    architecture,
    os: "linux",
    config: { Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: [`sha256:${createHash("sha256").update(layer).digest("hex")}`] },
  };
  const manifest = [{ Config: "config.json", RepoTags: [name], Layers: ["layer.tar"] }];
  return tar({
    "layer.tar": layer,
    "config.json": Buffer.from(JSON.stringify(config)),
    "manifest.json": Buffer.from(JSON.stringify(manifest)),
  });
}
