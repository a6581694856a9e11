// `/api/v1/instances/{id}/pty`: what is said over a terminal's connection, without the connection.

import { ResponseFormatError } from "../../errors.js";
import type { TerminalOptions } from "../../options.js";
import type { ExecutionInfo, GapEvent } from "../../types.js";
import { refuseUnknown } from "../config.js";
import { DecodeError, Members } from "../decode.js";
import { withQuery } from "../pages.js";
import { apiError, isProblem } from "../problem.js";
import { readExecutionInfo } from "./executions.js";
import { segment } from "./ids.js";

const SWITCHING_PROTOCOLS = 101;

/** The path for a new terminal, or for one that is there. */
export function terminalPath(instanceId: string, options: TerminalOptions): string {
  const { rows = 24, cols = 80, command, user, workingDir, executionId, offset } = options;
  refuseUnknown(options, ["rows", "cols", "command", "user", "workingDir", "executionId", "offset", "signal"]);
  const path = `/api/v1/instances/${segment(instanceId)}/pty`;
  if (executionId !== undefined) {
    segment(executionId);
    return withQuery(path, { execution_id: executionId, offset: offset?.toString() });
  }
  if (offset !== undefined) {
    throw new TypeError("offset is for a terminal that is there: give its executionId");
  }
  return withQuery(path, { rows: String(rows), cols: String(cols), command, user, working_dir: workingDir });
}

/** Says that the terminal has another size. */
export function resizeFrame(rows: number, cols: number): string {
  return JSON.stringify({ type: "resize", rows, cols });
}

/** What was said over the connections of one terminal. */
export class TerminalState {
  executionId: string | undefined;
  offset = 0;
  readonly gaps: GapEvent[] = [];
  end: ExecutionInfo | null = null;
  #begun = false;

  /**
   * Takes the first frame of a connection.
   *
   * @throws APIError of the frame `error`.
   * @throws ResponseFormatError where it is not the contract's, or not the first.
   */
  begin(frame: string | Uint8Array): void {
    this.#begun = false;
    this.take(frame);
    if (!this.#begun) {
      throw new ResponseFormatError("the terminal does not say first that it is there", SWITCHING_PROTOCOLS);
    }
  }

  /**
   * The output in a frame, or undefined where it says something else.
   *
   * @throws APIError of the frame `error`.
   * @throws ResponseFormatError where it is not the contract's.
   */
  take(frame: string | Uint8Array): Uint8Array | undefined {
    if (typeof frame !== "string") {
      this.offset += frame.length;
      return frame;
    }
    try {
      this.#told(new Members(JSON.parse(frame)), frame);
    } catch (error) {
      if (!(error instanceof DecodeError || error instanceof SyntaxError)) {
        throw error;
      }
      const words = error instanceof DecodeError ? error.message : "a text frame is not JSON";
      throw new ResponseFormatError(`what the terminal says is not the contract's: ${words}`, SWITCHING_PROTOCOLS, {
        cause: error,
      });
    }
    return undefined;
  }

  #told(members: Members, frame: string): void {
    if (isProblem(members)) {
      const status = members.optionalInteger("status") ?? SWITCHING_PROTOCOLS;
      throw apiError({ status, headers: new Headers(), body: frame });
    }
    switch (members.string("type")) {
      case "started":
        this.executionId = members.string("execution_id");
        this.offset = members.integer("offset");
        this.#begun = true;
        break;
      case "gap": {
        const gap: GapEvent = { event: "gap", from: members.integer("from"), to: members.integer("to") };
        this.gaps.push(gap);
        this.offset = gap.to;
        break;
      }
      case "exit":
        this.end = readExecutionInfo(members);
        break;
    }
  }
}
