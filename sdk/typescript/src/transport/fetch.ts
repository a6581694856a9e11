// The I/O of the client, over fetch: sends a `Call`, waits between attempts. Decides nothing itself.

import { readAnswer } from "../core/answer.js";
import type { Call } from "../core/call.js";
import { type ClientConfig, httpTimeoutMs, requestHeaders } from "../core/config.js";
import { eventReader } from "../core/events.js";
import { ExecuteEventReader } from "../core/execute-events.js";
import { retryWaitMs } from "../core/retry.js";
import { TransportTimeoutError } from "../errors.js";
import type { ExecuteEvent } from "../types.js";
import { patientDispatcher } from "./dispatcher.js";
import { transportError } from "./failure.js";

/** The longest delay setTimeout knows, in milliseconds: longer ones would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Sends calls to one gateway. */
export class FetchTransport {
  readonly #config: ClientConfig;
  readonly #fetch: typeof globalThis.fetch;
  #dispatcher: RequestInit | undefined;

  constructor(config: ClientConfig, fetch: typeof globalThis.fetch | undefined) {
    this.#config = config;
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
        const waitMs = retryWaitMs(this.#config.retry, call, error, attempt, Math.random());
        if (waitMs === null) {
          throw error;
        }
        await sleep(waitMs, call.signal);
      }
    }
  }

  /**
   * Sends a call whose answer is events, and gives them as they come. Returning from the generator closes the connection.
   * A call is sent again where that is safe, and never after its first event.
   */
  async *stream(call: Call<never>): AsyncGenerator<ExecuteEvent, void, undefined> {
    let begun = false;
    for (let attempt = 0; ; attempt++) {
      try {
        for await (const event of this.#events(call)) {
          begun = true;
          yield event;
        }
        return;
      } catch (error) {
        const waitMs = begun ? null : retryWaitMs(this.#config.retry, call, error, attempt, Math.random());
        if (waitMs === null) {
          throw error;
        }
        await sleep(waitMs, call.signal);
      }
    }
  }

  async *#events(call: Call<never>): AsyncGenerator<ExecuteEvent, void, undefined> {
    call.signal?.throwIfAborted();
    const url = this.#config.baseUrl + call.path;
    const timeoutMs = httpTimeoutMs(this.#config, call);
    const ours = new AbortController();
    this.#dispatcher ??= patientDispatcher();
    /** What the gateway does next, which it has so long for: a reader may take its time between two steps. */
    const received = async <R>(begin: () => Promise<R>): Promise<R> => {
      const timer = setTimeout(() => ours.abort(), Math.min(timeoutMs, LONGEST_TIMER_MS));
      try {
        return await begin();
      } catch (error) {
        call.signal?.throwIfAborted();
        if (ours.signal.aborted) {
          throw new TransportTimeoutError(`nothing from ${url} within ${timeoutMs} ms`, true, { cause: error });
        }
        throw transportError(error, url);
      } finally {
        clearTimeout(timer);
      }
    };
    try {
      const response = await received(() =>
        this.#fetch(url, {
          ...this.#dispatcher,
          method: call.method,
          headers: requestHeaders(this.#config, call),
          ...bodyMembers(typeof call.body === "string" ? call.body : undefined),
          signal: call.signal === undefined ? ours.signal : AbortSignal.any([ours.signal, call.signal]),
        }),
      );
      const reader = new ExecuteEventReader(call, response.status, response.headers);
      const body = response.body?.getReader();
      while (body !== undefined) {
        const piece = await received(() => body.read());
        if (piece.done) {
          break;
        }
        yield* reader.feed(piece.value);
      }
      reader.end();
    } finally {
      // Of an answer that nobody reads on, the connection is closed; one that was read to its end is not touched by this.
      ours.abort();
    }
  }

  async #exchange<T>(call: Call<T>): Promise<T> {
    call.signal?.throwIfAborted();
    const url = this.#config.baseUrl + call.path;
    const timeoutMs = httpTimeoutMs(this.#config, call);
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
          headers: requestHeaders(this.#config, call),
          ...bodyMembers(typeof call.body === "string" ? call.body : reading?.body),
          signal: call.signal === undefined ? ours.signal : AbortSignal.any([ours.signal, call.signal]),
        }),
      );
      const { status, headers } = response;
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
