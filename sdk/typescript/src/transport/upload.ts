// Reads what is sent, a piece at a time: from a file, or from what the caller has.

import { Buffer } from "node:buffer";
import { type FileHandle, open, stat } from "node:fs/promises";
import type { Reading, Upload } from "../core/call.js";
import { bytesUpload } from "../core/upload.js";
import type { ArchiveSource, UploadSource } from "../options.js";

/** How much of a file is in memory at once. */
export const PIECE_BYTES = 256 * 1024;

/**
 * The body that an archive is sent as. Rejects with the file system's error where there is no such file, and with a
 * TypeError where it is a directory or none of what an archive can be.
 */
export async function archiveOf(source: ArchiveSource): Promise<Upload> {
  const upload = await uploadFrom(source, "not an archive; make a tar of it");
  if (upload === undefined) {
    throw new TypeError("an archive is a path, a file: URL, a Uint8Array or a ReadableStream");
  }
  return upload;
}

/** The body that a file is sent as: the same, and iterables too. */
export async function uploadOf(source: UploadSource): Promise<Upload> {
  const upload = await uploadFrom(source, "no file; make a tar of it, for uploadTar");
  if (upload !== undefined) {
    return upload;
  }
  const iterator = iteratorOf(source);
  if (iterator === undefined) {
    throw new TypeError("what is sent is a path, a file: URL, a Uint8Array, a ReadableStream or an iterable");
  }
  return { sizeBytes: undefined, once: true, read: () => new IteratorReading(iterator) };
}

async function uploadFrom(source: unknown, directory: string): Promise<Upload | undefined> {
  if (source instanceof Uint8Array) {
    return bytesUpload(source);
  }
  if (source instanceof ReadableStream) {
    const reading = { body: source, failure: () => undefined, close: async () => {} };
    return { sizeBytes: undefined, once: true, read: () => reading };
  }
  if (typeof source === "string" || source instanceof URL) {
    const found = await stat(source);
    if (found.isDirectory()) {
      throw new TypeError(`${source} is a directory, ${directory}`);
    }
    // Of a pipe, or a device, nobody knows the length, and it cannot be read twice.
    const sizeBytes = found.isFile() ? found.size : undefined;
    return { sizeBytes, once: !found.isFile(), read: () => new FileReading(source, sizeBytes) };
  }
  return undefined;
}

function iteratorOf(source: unknown): AsyncIterator<unknown> | Iterator<unknown> | undefined {
  if (typeof source !== "object" || source === null) {
    return undefined;
  }
  const iterable = source as Partial<AsyncIterable<unknown> & Iterable<unknown>>;
  return iterable[Symbol.asyncIterator]?.() ?? iterable[Symbol.iterator]?.();
}

/** The one pass over an iterator of the caller's. */
class IteratorReading implements Reading {
  readonly body: ReadableStream<Uint8Array>;
  readonly #iterator: AsyncIterator<unknown> | Iterator<unknown>;
  #failure: unknown;

  constructor(iterator: AsyncIterator<unknown> | Iterator<unknown>) {
    this.#iterator = iterator;
    this.body = new ReadableStream({ pull: (controller) => this.#pull(controller) }, { highWaterMark: 0 });
  }

  failure(): unknown {
    return this.#failure;
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await this.#iterator.next();
        if (done === true) {
          controller.close();
          return;
        }
        if (!(value instanceof Uint8Array)) {
          throw new TypeError(`the iterator gives ${value === null ? "null" : typeof value}, not a Uint8Array`);
        }
        if (value.length > 0) {
          controller.enqueue(value);
          return;
        }
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }
}

/** One pass over a file, opened when it begins. It is sent as long as it was when the call began. */
class FileReading implements Reading {
  readonly body: ReadableStream<Uint8Array>;
  readonly #path: string | URL;
  #left: number;
  #file: Promise<FileHandle> | undefined;
  #closed = false;
  #failure: unknown;

  constructor(path: string | URL, sizeBytes: number | undefined) {
    this.#path = path;
    this.#left = sizeBytes ?? Number.POSITIVE_INFINITY;
    this.body = new ReadableStream({ pull: (controller) => this.#pull(controller) }, { highWaterMark: 0 });
  }

  failure(): unknown {
    return this.#failure;
  }

  async close(): Promise<void> {
    this.#closed = true;
    // Waits for what is being read. What could not be opened is told of by `failure`.
    const file = await this.#file?.catch(() => undefined);
    await file?.close();
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    if (this.#closed) {
      controller.close();
      return;
    }
    try {
      this.#file ??= open(this.#path);
      const file = await this.#file;
      const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, this.#left));
      const { bytesRead } = await file.read(piece, 0, piece.length, null);
      if (bytesRead > 0) {
        this.#left -= bytesRead;
        controller.enqueue(piece.subarray(0, bytesRead));
      } else if (this.#left > 0 && Number.isFinite(this.#left)) {
        throw new Error(`${this.#path} is ${this.#left} bytes shorter than when the call began`);
      } else {
        controller.close();
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }
}
