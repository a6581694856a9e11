// Reads an answer: the result of the call, or the error in it.

import { ResponseFormatError } from "../errors.js";
import type { Answer, Call } from "./call.js";
import { DecodeError } from "./decode.js";
import { apiError } from "./problem.js";

const NO_CONTENT: readonly number[] = [202, 204];

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
  if (!call.resultStatuses.includes(answer.status) || isProblem(answer)) {
    throw apiError(answer);
  }
  const value = NO_CONTENT.includes(answer.status) ? null : parsed(call, answer);
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

function isProblem(answer: Answer): boolean {
  return answer.headers.get("content-type")?.startsWith("application/problem+json") ?? false;
}
