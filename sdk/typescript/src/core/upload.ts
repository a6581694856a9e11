// Bodies that are there as a whole.

import type { Upload } from "./call.js";

/** The body that bytes are sent as. */
export function bytesUpload(bytes: Uint8Array): Upload {
  return {
    sizeBytes: undefined,
    once: false,
    read: () => ({ body: bytes, failure: () => undefined, close: async () => {} }),
  };
}
