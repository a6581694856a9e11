// Reads an answer of events, one JSON object a line: tells of the progress, and makes the result of the last one.

import { ConnectionLostError, ResponseFormatError } from "../errors.js";
import type { ImageProgress } from "../types.js";
import type { Call } from "./call.js";
import { DecodeError, Members } from "./decode.js";
import { apiError } from "./problem.js";

/** What takes the pieces of an answer's body, or undefined where the answer is one document. */
export function eventReader<T>(call: Call<T>, status: number, headers: Headers): EventReader<T> | undefined {
  const areEvents =
    call.onProgress !== undefined &&
    call.resultStatuses.includes(status) &&
    headers.get("content-type")?.startsWith("application/x-ndjson");
  return areEvents ? new EventReader(call, status, headers) : undefined;
}

/**
 * Takes the pieces of a body as they come.
 *
 * Events of a name that this version does not know are passed over, and so are empty lines: a gateway that has nothing to
 * say sends one from time to time.
 */
export class EventReader<T> {
  readonly #call: Call<T>;
  readonly #status: number;
  readonly #headers: Headers;
  readonly #decoder = new TextDecoder();
  #rest = "";
  #done: { readonly result: T } | undefined;

  constructor(call: Call<T>, status: number, headers: Headers) {
    this.#call = call;
    this.#status = status;
    this.#headers = headers;
  }

  /**
   * Takes the next piece.
   *
   * @throws APIError of the event `error`.
   * @throws ResponseFormatError where a line is no event.
   */
  feed(piece: Uint8Array): void {
    const lines = (this.#rest + this.#decoder.decode(piece, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() !== "" && this.#done === undefined) {
        const step = this.#take(line);
        if (step !== undefined) {
          this.#call.onProgress?.(step);
        }
      }
    }
  }

  /**
   * What the event `done` said, when all pieces have come.
   *
   * @throws ConnectionLostError where they ended before the last event.
   */
  result(): T {
    if (this.#done === undefined) {
      throw new ConnectionLostError(`the events of ${this.#call.path} ended before the last of them`, true);
    }
    return this.#done.result;
  }

  #take(line: string): ImageProgress | undefined {
    try {
      const members = new Members(JSON.parse(line));
      switch (members.string("event")) {
        case "progress":
          return readProgress(members);
        case "done":
          this.#done = { result: this.#call.read(members.raw, this.#headers) };
          return undefined;
        case "error":
          throw apiError({
            status: members.optionalInteger("status") ?? this.#status,
            headers: this.#headers,
            body: line,
          });
        default:
          return undefined;
      }
    } catch (error) {
      if (!(error instanceof DecodeError || error instanceof SyntaxError)) {
        throw error;
      }
      const words = error instanceof DecodeError ? error.message : "a line is not JSON";
      throw new ResponseFormatError(`the events of ${this.#call.path} are not the contract's: ${words}`, this.#status, {
        cause: error,
      });
    }
  }
}

function readProgress(members: Members): ImageProgress {
  return {
    phase: members.string("phase"),
    layer: members.optionalString("layer"),
    doneBytes: members.integer("done_bytes"),
    totalBytes: members.optionalInteger("total_bytes"),
  };
}
