// The I/O of the client, over fetch: sends a `Call`, waits between attempts. Decides nothing itself.

import { isResult, readAnswer } from "../core/answer.js";
import type { Call } from "../core/call.js";
import { type ClientConfig, httpTimeoutMs, requestHeaders } from "../core/config.js";
import { type EventSource, LineReader } from "../core/event-source.js";
import { eventReader } from "../core/events.js";
import { asLost, retryWaitMs } from "../core/retry.js";
import { TransportTimeoutError } from "../errors.js";
import { patientDispatcher } from "./dispatcher.js";
import { transportError } from "./failure.js";

/** The longest delay setTimeout knows, in milliseconds: longer ones would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Sends calls to one gateway. */
export class FetchTransport {
  /** The client's settings. */
  readonly config: ClientConfig;
  readonly #fetch: typeof globalThis.fetch;
  #dispatcher: RequestInit | undefined;

  constructor(config: ClientConfig, fetch: typeof globalThis.fetch | undefined) {
    this.config = config;
    this.#fetch = fetch ?? globalThis.fetch;
    if (fetch !== undefined) {
      this.#dispatcher = {};
    }
  }

  /** Sends a call, again where that is safe, and reads the answer. Rejects with the last attempt's failure. */
  async send<T>(call: Call<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#exchange(call);
      } catch (error) {
        const waitMs = retryWaitMs(this.config.retry, call, error, attempt, Math.random());
        if (waitMs === null) {
          throw error;
        }
        await sleep(waitMs, call.signal);
      }
    }
  }

  /**
   * Gives the events of a source as they come. Returning from the generator closes the connection.
   *
   * A call is sent again where that is safe. After an event only a source that resumes goes on, over another connection.
   */
  async *stream<E>(source: EventSource<E>): AsyncGenerator<E, void, undefined> {
    for (let attempt = 0; ; attempt++) {
      const call = source.call();
      let begun = false;
      try {
        for await (const event of this.#events(call, source)) {
          begun = true;
          source.took(event);
          yield event;
        }
        return;
      } catch (error) {
        attempt = begun ? 0 : attempt;
        const isFinal = source.saidError || (begun && !source.resumes);
        const told = source.resumes ? asLost(error, call) : error;
        const waitMs = isFinal ? null : retryWaitMs(this.config.retry, call, told, attempt, Math.random());
        if (waitMs === null) {
          throw error;
        }
        await sleep(waitMs, call.signal);
      }
    }
  }

  /** Sends a call, again where that is safe, and gives the body of its answer as it comes. */
  async open(call: Call<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
    for (let attempt = 0; ; attempt++) {
      const exchange = this.#begin(call);
      try {
        const { body, status, headers } = await exchange.response();
        if (!isResult(call, { status, headers })) {
          readAnswer(call, { status, headers, body: await exchange.text() });
        }
        return bodyOf(body, exchange);
      } catch (error) {
        exchange.end();
        const waitMs = retryWaitMs(this.config.retry, call, error, attempt, Math.random());
        if (waitMs === null) {
          throw error;
        }
        await sleep(waitMs, call.signal);
      }
    }
  }

  async *#events<E>(call: Call<never>, source: EventSource<E>): AsyncGenerator<E, void, undefined> {
    const exchange = this.#begin(call);
    try {
      const { body, status, headers } = await exchange.response();
      const reader = new LineReader(source, call, status, headers);
      const pieces = body?.getReader();
      while (pieces !== undefined) {
        const piece = await exchange.received(() => pieces.read());
        if (piece.done) {
          break;
        }
        yield* reader.feed(piece.value);
      }
      reader.end();
    } finally {
      // Of an answer that nobody reads on, the connection is closed; one that was read to its end is not touched by this.
      exchange.end();
    }
  }

  /** An exchange whose answer is read step by step. */
  #begin(call: Call<unknown>): Exchange {
    call.signal?.throwIfAborted();
    this.#dispatcher ??= patientDispatcher();
    const url = this.config.baseUrl + call.path;
    return new Exchange(call, url, httpTimeoutMs(this.config, call), (signal) =>
      this.#fetch(url, {
        ...this.#dispatcher,
        method: call.method,
        headers: requestHeaders(this.config, call),
        ...bodyMembers(typeof call.body === "string" ? call.body : undefined),
        signal,
      }),
    );
  }

  async #exchange<T>(call: Call<T>): Promise<T> {
    call.signal?.throwIfAborted();
    const url = this.config.baseUrl + call.path;
    const timeoutMs = httpTimeoutMs(this.config, call);
    const ours = new AbortController();
    const timer = setTimeout(() => ours.abort(), Math.min(timeoutMs, LONGEST_TIMER_MS));
    const reading = typeof call.body === "object" ? call.body.read() : undefined;
    this.#dispatcher ??= patientDispatcher();
    /** The same, with what it rejects with made into what the call rejects with. */
    const received = async <R>(step: Promise<R>): Promise<R> => {
      try {
        return await step;
      } catch (error) {
        call.signal?.throwIfAborted();
        if (ours.signal.aborted) {
          throw new TransportTimeoutError(`no answer from ${url} within ${timeoutMs} ms`, true, { cause: error });
        }
        throw reading?.failure() ?? transportError(error, url);
      }
    };
    try {
      const response = await received(
        this.#fetch(url, {
          ...this.#dispatcher,
          method: call.method,
          headers: requestHeaders(this.config, call),
          ...bodyMembers(typeof call.body === "string" ? call.body : reading?.body),
          signal: call.signal === undefined ? ours.signal : AbortSignal.any([ours.signal, call.signal]),
        }),
      );
      const { status, headers } = response;
      if (call.raw === true && isResult(call, { status, headers })) {
        return call.read(new Uint8Array(await received(response.arrayBuffer())), headers);
      }
      const events = eventReader(call, status, headers);
      if (events === undefined || response.body === null) {
        return readAnswer(call, { status, headers, body: await received(response.text()) });
      }
      const body = response.body.getReader();
      for (let piece = await received(body.read()); !piece.done; piece = await received(body.read())) {
        events.feed(piece.value);
      }
      return events.result();
    } catch (error) {
      // Of an answer that nobody reads on, the connection is closed.
      ours.abort();
      throw error;
    } finally {
      clearTimeout(timer);
      await reading?.close();
    }
  }
}

/** A request and its answer, read step by step: the gateway has so long for each, and a reader may take its time. */
class Exchange {
  readonly #call: Call<unknown>;
  readonly #url: string;
  readonly #timeoutMs: number;
  readonly #send: (signal: AbortSignal) => Promise<Response>;
  readonly #ours = new AbortController();
  #response: Response | undefined;

  constructor(call: Call<unknown>, url: string, timeoutMs: number, send: (signal: AbortSignal) => Promise<Response>) {
    this.#call = call;
    this.#url = url;
    this.#timeoutMs = timeoutMs;
    this.#send = send;
  }

  /** Sends the request; the answer as far as its headers. */
  async response(): Promise<Response> {
    const { signal } = this.#call;
    const either = signal === undefined ? this.#ours.signal : AbortSignal.any([this.#ours.signal, signal]);
    this.#response = await this.received(() => this.#send(either));
    return this.#response;
  }

  /** The body as text. */
  async text(): Promise<string> {
    return this.received(async () => (await this.#response?.text()) ?? "");
  }

  /** What the gateway does next, with what it rejects with made into what the call rejects with. */
  async received<R>(begin: () => Promise<R>): Promise<R> {
    const timer = setTimeout(() => this.#ours.abort(), Math.min(this.#timeoutMs, LONGEST_TIMER_MS));
    try {
      return await begin();
    } catch (error) {
      this.#call.signal?.throwIfAborted();
      if (this.#ours.signal.aborted) {
        const message = `nothing from ${this.#url} within ${this.#timeoutMs} ms`;
        throw new TransportTimeoutError(message, true, { cause: error });
      }
      throw transportError(error, this.#url);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes the connection, where the answer was not read to its end. */
  end(): void {
    this.#ours.abort();
  }
}

/** The body of an answer, with errors of this package's. Cancelling it closes the connection. */
function bodyOf(body: ReadableStream<Uint8Array> | null, exchange: Exchange): ReadableStream<Uint8Array> {
  const pieces = body?.getReader();
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const piece = await exchange.received(async () => pieces?.read());
        if (piece === undefined || piece.done) {
          controller.close();
        } else {
          controller.enqueue(piece.value);
        }
      },
      cancel: () => exchange.end(),
    },
    { highWaterMark: 0 },
  );
}

/**
 * The members of a request that its body decides.
 *
 * Of a body that is a stream the Fetch standard wants said that it is sent before the answer comes (`duplex`). undici keeps
 * a copy of all that such a stream gives, for a request after a redirect, unless there can be none and there is no window
 * (`httpNetworkOrCacheFetch` in its lib/web/fetch/index.js).
 */
function bodyMembers(body: string | Uint8Array | ReadableStream<Uint8Array> | undefined): RequestInit {
  const init = { body: (body ?? null) as NonNullable<RequestInit["body"]> | null };
  return body instanceof ReadableStream
    ? { ...init, duplex: "half", redirect: "error", window: null }
    : { ...init, redirect: "manual" };
}

/** Resolves after some time, or rejects with the signal's reason. */
function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}
