// The files of an instance: the member `files` of an instance.
//
// Paths in an instance are absolute, or relative to its working directory. Nothing of a file is in memory as a whole but
// with `read` and `readText`.

import { FileRoute } from "./core/operations/files.js";
import { list } from "./core/pages.js";
import { bytesUpload } from "./core/upload.js";
import type {
  FileOptions,
  ListFilesOptions,
  MakeDirectoryOptions,
  ReadFileOptions,
  RemoveFileOptions,
  UploadSource,
  WatchFilesOptions,
  WriteFileOptions,
} from "./options.js";
import type { FetchTransport } from "./transport/fetch.js";
import { uploadOf } from "./transport/upload.js";
import type { FileEvent, FileInfo, UnpackedTar } from "./types.js";

/** The files of an `Instance`. */
export class Files {
  readonly #transport: FetchTransport;
  readonly #route: FileRoute;

  constructor(transport: FetchTransport, instanceId: string) {
    this.#transport = transport;
    this.#route = new FileRoute(instanceId);
  }

  /**
   * The bytes of a file, or a part of them.
   *
   * @throws NotFoundError where there is none.
   * @throws ForbiddenError where the user may not read it.
   * @throws RangeNotSatisfiableError where the file ends before `offset`.
   * @throws InvalidRequestError where it is a directory, or leads nowhere.
   */
  async read(path: string, options: ReadFileOptions = {}): Promise<Uint8Array> {
    return this.#transport.send(this.#route.read(path, options));
  }

  /** The text in a file, which is UTF-8; a TypeError where it is not. */
  async readText(path: string, options: FileOptions = {}): Promise<string> {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await this.read(path, options));
  }

  /**
   * A file, or a part of it, which is read while it comes. To be cancelled, or read to its end.
   *
   * @throws NotFoundError where there is none; and so on as for `read`.
   * @throws ConnectionLostError when read, where the connection broke before its end.
   */
  async open(path: string, options: ReadFileOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.#transport.open(this.#route.read(path, options));
  }

  /**
   * Makes a file, or another one in its place: it is whole at its path, or what was there before is. Missing parents are
   * made.
   *
   * @param content its content; text is stored as UTF-8.
   * @throws ForbiddenError where the user may not write there.
   * @throws InsufficientStorageError where there is no room for it.
   */
  async write(path: string, content: string | Uint8Array, options: WriteFileOptions = {}): Promise<FileInfo> {
    if (typeof content !== "string" && !(content instanceof Uint8Array)) {
      throw new TypeError("content is a string or a Uint8Array");
    }
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    return this.#transport.send(this.#route.write(path, bytesUpload(bytes), options));
  }

  /**
   * The same from a file of this machine, a stream or an iterable, a piece at a time.
   *
   * @param source what cannot be read a second time is sent once.
   */
  async writeStream(path: string, source: UploadSource, options: WriteFileOptions = {}): Promise<FileInfo> {
    return this.#transport.send(this.#route.write(path, await uploadOf(source), options));
  }

  /**
   * What stands at a path; of a symbolic link the link itself.
   *
   * @throws NotFoundError where nothing does.
   */
  async stat(path: string, options: FileOptions = {}): Promise<FileInfo> {
    return this.#transport.send(this.#route.stat(path, options));
  }

  /** What is in a directory, by name, however many pages it takes. */
  async list(path: string, options: ListFilesOptions = {}): Promise<FileInfo[]> {
    return list(this.#route.listed(path, options), (call) => this.#transport.send(call));
  }

  /**
   * Makes a directory, with missing parents. One that is there is no error.
   *
   * @throws ConflictError where something else stands there.
   */
  async mkdir(path: string, options: MakeDirectoryOptions = {}): Promise<FileInfo> {
    return this.#transport.send(this.#route.mkdir(path, options));
  }

  /** Gives it another path, in place of what is there. */
  async move(path: string, to: string, options: FileOptions = {}): Promise<FileInfo> {
    return this.#transport.send(this.#route.move(path, to, options));
  }

  /**
   * Removes a file, or a directory.
   *
   * @throws NotFoundError where there is none.
   * @throws ConflictError where the directory is not empty, without `recursive`.
   */
  async remove(path: string, options: RemoveFileOptions = {}): Promise<void> {
    return this.#transport.send(this.#route.remove(path, options));
  }

  /** A tar archive of a directory or a file, which is read while it comes. To be cancelled, or read to its end. */
  async downloadTar(path: string, options: FileOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.#transport.open(this.#route.tar(path, options));
  }

  /** Unpacks a tar archive into a directory. What would come to lie outside it is refused. */
  async uploadTar(path: string, source: UploadSource, options: FileOptions = {}): Promise<UnpackedTar> {
    return this.#transport.send(this.#route.unpack(path, await uploadOf(source), options));
  }

  /**
   * What happens to a file, or in a directory, from the first event on, which is `ready`.
   *
   * Nothing is watched before that one is asked for. Leaving the loop ends it.
   *
   * @throws SandboxLostError where the instance ended.
   * @throws ConnectionLostError where the connection broke: what happens from then on is not seen.
   */
  watch(path: string, options: WatchFilesOptions = {}): AsyncGenerator<FileEvent, void, undefined> {
    return this.#transport.stream(this.#route.watch(path, options));
  }
}
