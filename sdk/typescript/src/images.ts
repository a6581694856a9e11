// The gateway's image store: the member `images` of the client. The image `host` is not in the store: it is the gateway's
// machine itself.

import { importArchive, listed, pull, remove } from "./core/operations/images.js";
import { list } from "./core/pages.js";
import type { ArchiveSource, CallOptions, ImportImageOptions, ListImagesOptions, PullImageOptions } from "./options.js";
import type { FetchTransport } from "./transport/fetch.js";
import { archiveOf } from "./transport/upload.js";
import type { ImageInfo } from "./types.js";

/** The image store of a `FaaSClient`. */
export class Images {
  readonly #transport: FetchTransport;

  constructor(transport: FetchTransport) {
    this.#transport = transport;
  }

  /** The images of the store, the latest first, however many pages they take. */
  async list(options: ListImagesOptions = {}): Promise<ImageInfo[]> {
    return list(listed(options), (call) => this.#transport.send(call));
  }

  /**
   * Fetches an image from its registry, whether or not the store has one of that name.
   *
   * @param name `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. Without a host it is one of Docker Hub's, without a tag `latest`.
   * @throws ImageUnavailableError where the registry does not have it, does not give it, or cannot be reached.
   * @throws APIError of another code, before the first step or after it.
   * @throws ConnectionLostError where the connection broke before the end. The gateway may have the image.
   */
  async pull(name: string, options: PullImageOptions = {}): Promise<ImageInfo> {
    return this.#transport.send(pull(name, options));
  }

  /**
   * Adds the images of an archive: an OCI layout as a tar or what `docker save` writes, also with gzip or zstd.
   *
   * @param archive a path or a `file:` URL, whose file is read piece by piece while it is sent; the archive's bytes; or a
   * stream of them, which is sent once: such a call is never tried again.
   * @throws TypeError where it is a directory, or none of these; the file system's error where the file cannot be read.
   * @throws InvalidRequestError where it is not an archive of images, or of none for the gateway's processor.
   * @throws PayloadTooLargeError where it is larger than all images may be on the gateway.
   */
  async import(archive: ArchiveSource, options: ImportImageOptions = {}): Promise<ImageInfo[]> {
    return this.#transport.send(importArchive(await archiveOf(archive), options));
  }

  /**
   * Removes a name, and the image with it when it was its last one; given an id, the image with all its names.
   *
   * @throws NotFoundError where there is none.
   * @throws ConflictError where a sandbox uses it.
   */
  async remove(name: string, options: CallOptions = {}): Promise<void> {
    return this.#transport.send(remove(name, options));
  }
}
