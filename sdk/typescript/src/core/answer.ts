// Reads an answer: the result of the call, or the error in it.

import { ResponseFormatError } from "../errors.js";
import type { Answer, Call } from "./call.js";
import { DecodeError } from "./decode.js";
import { apiError } from "./problem.js";

/**
 * The call's result.
 *
 * @throws APIError where the answer is an error.
 * @throws ResponseFormatError where the status is a result's and the body is not.
 */
export function readAnswer<T>(call: Call<T>, answer: Answer): T {
  if (answer.status >= 300 && answer.status < 400) {
    const location = answer.headers.get("location") ?? "nowhere";
    throw new ResponseFormatError(
      `${call.path} is redirected to ${location} (${answer.status}); set the base URL to where the gateway is`,
      answer.status,
    );
  }
  if (!isResult(call, answer)) {
    throw apiError(answer);
  }
  // One that says that something goes on has a body or has none.
  const isEmpty = answer.status === 204 || (answer.status === 202 && answer.body === "");
  const value = isEmpty ? null : parsed(call, answer);
  try {
    return call.read(value, answer.headers);
  } catch (error) {
    if (!(error instanceof DecodeError)) {
      throw error;
    }
    throw new ResponseFormatError(`the answer to ${call.path} is not the contract's: ${error.message}`, answer.status, {
      cause: error,
    });
  }
}

function parsed(call: Call<unknown>, answer: Answer): unknown {
  try {
    return JSON.parse(answer.body);
  } catch (error) {
    const kind = answer.headers.get("content-type") ?? "no content type";
    throw new ResponseFormatError(
      `the answer to ${call.path} is not JSON (${answer.status}, ${kind}): is this a FaaS gateway?`,
      answer.status,
      { cause: error },
    );
  }
}

/** Whether an answer is the call's result, and no error. */
export function isResult(call: Call<unknown>, answer: Pick<Answer, "status" | "headers">): boolean {
  const isProblem = answer.headers.get("content-type")?.startsWith("application/problem+json") ?? false;
  return call.resultStatuses.includes(answer.status) && !isProblem;
}
