// A stream of events: what is asked for, how an event is read, and where it is taken up again.

import { ConnectionLostError, ResponseFormatError } from "../errors.js";
import type { CallOptions } from "../options.js";
import { readAnswer } from "./answer.js";
import type { Call } from "./call.js";
import { checkedHttpTimeoutMs } from "./config.js";
import { DecodeError, Members, noDocument } from "./decode.js";
import { withQuery } from "./pages.js";
import { apiError } from "./problem.js";

/** How long a stream may be silent: the gateway says something every 15 s. */
const SILENCE_MS = 60_000;

/** The same where the client's own timeout, which is for answers, is shorter. */
const LEAST_SILENCE_MS = 20_000;

/** One stream, over as many connections as it takes. */
export abstract class EventSource<E> {
  /** Whether it goes on after its last event when its connection breaks. */
  readonly resumes: boolean = false;
  /** Whether it may end without a last event. */
  readonly endsQuietly: boolean = false;
  /** Whether its last event was an error: it is not asked for again then. */
  saidError = false;

  /** What is asked for now. */
  abstract call(): Call<never>;

  /** An event, or undefined for one that this version does not know; a `DecodeError` where it is not the contract's. */
  abstract read(members: Members): E | undefined;

  /** Whether it says why the stream does not go on, in the members of a problem. */
  isError(members: Members): boolean {
    return members.raw.event === "error";
  }

  /** Whether nothing comes after it. */
  isLast(_event: E): boolean {
    return false;
  }

  /** The event is the caller's now. */
  took(_event: E): void {}
}

/**
 * Takes the pieces of a body as they come, and gives the events in them: a JSON object a line.
 *
 * Events of a name that this version does not know are passed over, and so are empty lines: a gateway that has nothing to
 * say sends one from time to time.
 */
export class LineReader<E> {
  readonly #source: EventSource<E>;
  readonly #call: Call<never>;
  readonly #status: number;
  readonly #headers: Headers;
  readonly #areEvents: boolean;
  readonly #decoder = new TextDecoder();
  #rest = "";
  #ended = false;

  constructor(source: EventSource<E>, call: Call<never>, status: number, headers: Headers) {
    this.#source = source;
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
  *feed(piece: Uint8Array): Generator<E, void> {
    this.#rest += this.#decoder.decode(piece, { stream: true });
    if (!this.#areEvents) {
      return;
    }
    const lines = this.#rest.split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = line.trim() === "" || this.#ended ? undefined : this.#event(line);
      if (event !== undefined) {
        this.#ended = this.#source.isLast(event);
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
    if (!this.#ended && !this.#source.endsQuietly) {
      throw new ConnectionLostError(`the events of ${this.#call.path} ended before the last of them`, true);
    }
  }

  #event(line: string): E | undefined {
    try {
      const members = new Members(JSON.parse(line));
      if (!this.#source.isError(members)) {
        return this.#source.read(members);
      }
      this.#source.saidError = true;
      const status = members.optionalInteger("status") ?? this.#status;
      throw apiError({ status, headers: this.#headers, body: line });
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

/** The call for a stream of events. */
export function streamCall(
  path: string,
  asked: Readonly<Record<string, string | undefined>>,
  options: CallOptions,
): Call<never> {
  return {
    method: "GET",
    path: withQuery(path, asked),
    headers: { accept: "application/x-ndjson" },
    httpTimeoutMs: checkedHttpTimeoutMs(options.httpTimeoutMs),
    defaultHttpTimeoutMs: SILENCE_MS,
    leastHttpTimeoutMs: LEAST_SILENCE_MS,
    signal: options.signal,
    resultStatuses: [200],
    read: noDocument,
  };
}
