"""``/api/v1/instances/{id}/pty``: what is said over a terminal's connection, without the connection."""

from __future__ import annotations

import json

from faas_sdk._core.call import Answer
from faas_sdk._core.decode import DecodeError, Members
from faas_sdk._core.operations.executions import read_execution_info
from faas_sdk._core.operations.ids import segment
from faas_sdk._core.pages import with_query
from faas_sdk._core.problem import api_error, is_problem
from faas_sdk.errors import ResponseFormatError
from faas_sdk.types import ExecutionInfo, GapEvent

SWITCHING_PROTOCOLS = 101


def path(
    instance_id: str,
    rows: int,
    cols: int,
    command: str | None,
    user: str | None,
    working_dir: str | None,
    execution_id: str | None,
    offset: int | None,
) -> str:
    """The path for a new terminal, or for one that is there."""
    if execution_id is not None:
        return old_path(instance_id, execution_id, offset)
    if offset is not None:
        raise ValueError("offset is for a terminal that is there: give its execution_id")
    asked = {"rows": rows, "cols": cols, "command": command, "user": user, "working_dir": working_dir}
    return with_query(_path(instance_id), asked)


def old_path(instance_id: str, execution_id: str, offset: int | None) -> str:
    """The path for one that is there."""
    segment("execution_id", execution_id)
    return with_query(_path(instance_id), {"execution_id": execution_id, "offset": offset})


def resize_frame(rows: int, cols: int) -> str:
    """Says that the terminal has another size."""
    return json.dumps({"type": "resize", "rows": rows, "cols": cols})


class TerminalState:
    """What was said over the connections of one terminal."""

    def __init__(self) -> None:
        self.execution_id: str | None = None
        self.offset = 0
        self.gaps: list[GapEvent] = []
        self.end: ExecutionInfo | None = None
        self._begun = False

    def begin(self, frame: str | bytes) -> None:
        """Takes the first frame of a connection.

        Raises:
            APIError: the frame ``error``.
            ResponseFormatError: it is not the contract's, or not the first.
        """
        self._begun = False
        self.take(frame)
        if not self._begun:
            raise ResponseFormatError("the terminal does not say first that it is there", SWITCHING_PROTOCOLS)

    def take(self, frame: str | bytes) -> bytes:
        """The output in a frame, empty where it says something else.

        Raises:
            APIError: the frame ``error``.
            ResponseFormatError: it is not the contract's.
        """
        if isinstance(frame, bytes):
            self.offset += len(frame)
            return frame
        try:
            members = Members(json.loads(frame))
            if is_problem(members):
                status = members.optional_integer("status") or SWITCHING_PROTOCOLS
                raise api_error(Answer(status=status, headers={}, body=frame.encode()))
            match members.string("type"):
                case "started":
                    self.execution_id = members.string("execution_id")
                    self.offset = members.integer("offset")
                    self._begun = True
                case "gap":
                    gap = GapEvent(start=members.integer("from"), end=members.integer("to"))
                    self.gaps.append(gap)
                    self.offset = gap.end
                case "exit":
                    self.end = read_execution_info(members)
        except (ValueError, RecursionError) as error:  # a DecodeError is a ValueError
            words = str(error) if isinstance(error, DecodeError) else "a text frame is not JSON"
            raise ResponseFormatError(
                f"what the terminal says is not the contract's: {words}", SWITCHING_PROTOCOLS
            ) from error
        return b""


def _path(instance_id: str) -> str:
    return f"/api/v1/instances/{segment('instance_id', instance_id)}/pty"
