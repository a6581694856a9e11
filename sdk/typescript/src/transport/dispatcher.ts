// Node's fetch gives up on an answer whose first byte takes longer than 300 s (undici's `headersTimeout`), and so would
// on a command that runs longer. The limit can be changed only on a dispatcher; undici keeps its global one under a
// registered symbol (undici, lib/global.js), from whose class another is made. Elsewhere fetch has no such limit.

const GLOBAL_DISPATCHER = Symbol.for("undici.globalDispatcher.1");

type AgentClass = new (options: { headersTimeout: number; bodyTimeout: number }) => object;

/** What to give to fetch beside the request, so that only our own timeout applies: `dispatcher`, or nothing. */
export function patientDispatcher(): RequestInit {
  // Node loads undici, and sets the symbol, when one of fetch's names is first looked at.
  if (typeof globalThis.Headers !== "function") {
    return {};
  }
  const dispatcher: unknown = Reflect.get(globalThis, GLOBAL_DISPATCHER);
  // A dispatcher that somebody has set (a proxy, a mock) is left in its place.
  if (typeof dispatcher !== "object" || dispatcher === null || dispatcher.constructor.name !== "Agent") {
    return {};
  }
  const Agent = dispatcher.constructor as AgentClass;
  return { dispatcher: new Agent({ headersTimeout: 0, bodyTimeout: 0 }) } as RequestInit;
}
