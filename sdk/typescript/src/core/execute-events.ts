// Reads the events of an execution, one JSON object a line.

import { Buffer } from "node:buffer";
import { ConnectionLostError, ResponseFormatError } from "../errors.js";
import type { ExecuteEvent, OutputEvent } from "../types.js";
import { readAnswer } from "./answer.js";
import type { Call } from "./call.js";
import { DecodeError, Members } from "./decode.js";
import { base64, readExit } from "./operations/execute.js";
import { apiError } from "./problem.js";

/**
 * Takes the pieces of a body as they come, and gives the events in them.
 *
 * Events of a name that this version does not know are passed over, and so are empty lines: a gateway that has nothing to
 * say sends one from time to time.
 */
export class ExecuteEventReader {
  readonly #call: Call<never>;
  readonly #status: number;
  readonly #headers: Headers;
  readonly #areEvents: boolean;
  readonly #decoder = new TextDecoder();
  #rest = "";
  #ended = false;

  constructor(call: Call<never>, status: number, headers: Headers) {
    this.#call = call;
    this.#status = status;
    this.#headers = headers;
    const isStream = headers.get("content-type")?.startsWith("application/x-ndjson") ?? false;
    this.#areEvents = call.resultStatuses.includes(status) && isStream;
  }

  /**
   * Takes the next piece.
   *
   * @throws APIError of the event `error`.
   * @throws ResponseFormatError where a line is no event.
   */
  *feed(piece: Uint8Array): Generator<ExecuteEvent, void> {
    this.#rest += this.#decoder.decode(piece, { stream: true });
    if (!this.#areEvents) {
      return;
    }
    const lines = this.#rest.split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = line.trim() === "" || this.#ended ? undefined : this.#event(line);
      if (event !== undefined) {
        this.#ended = event.event === "exit";
        yield event;
      }
    }
  }

  /**
   * All pieces have come.
   *
   * @throws APIError where the answer is an error and no stream.
   * @throws ConnectionLostError where they ended before the last event.
   */
  end(): void {
    if (!this.#areEvents) {
      readAnswer(this.#call, { status: this.#status, headers: this.#headers, body: this.#rest });
    }
    if (!this.#ended) {
      throw new ConnectionLostError(`the events of ${this.#call.path} ended before the last of them`, true);
    }
  }

  #event(line: string): ExecuteEvent | undefined {
    try {
      const members = new Members(JSON.parse(line));
      const event = members.string("event");
      switch (event) {
        case "started":
          return { event, requestId: members.string("request_id"), executionId: members.string("execution_id") };
        case "stdout":
        case "stderr":
          return readOutput(event, members);
        case "gap":
          return { event, from: members.integer("from"), to: members.integer("to") };
        case "exit":
          return readExit(members);
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

function readOutput(event: "stdout" | "stderr", members: Members): OutputEvent {
  const encoded = base64(members, "data_base64");
  const bytes = encoded === null ? Buffer.from(members.string("data"), "utf8") : Buffer.from(encoded, "base64");
  return {
    event,
    offset: members.integer("offset"),
    text: bytes.toString("utf8"),
    bytes: new Uint8Array(bytes),
    isText: encoded === null,
  };
}
