"""The events of an execution while it runs, and of a lasting one at any time."""

from __future__ import annotations

import base64
import binascii
from typing import Literal, Never

from faas_sdk._core.call import Call
from faas_sdk._core.decode import DecodeError, Members
from faas_sdk._core.event_source import EventSource, stream_call
from faas_sdk._core.operations.execute import read_exit
from faas_sdk._core.operations.ids import segment
from faas_sdk.types import EndEvent, ExecuteEvent, ExecutionEvent, ExitEvent, GapEvent, OutputEvent, StartedEvent


class ExecuteEvents(EventSource[ExecuteEvent]):
    """Those of a command that ends with its connection: asked for once."""

    def __init__(self, call: Call[Never]) -> None:
        super().__init__()
        self._call = call

    def call(self) -> Call[Never]:
        return self._call

    def read(self, members: Members) -> ExecuteEvent | None:
        match members.string("event"):
            case "started":
                return StartedEvent(
                    request_id=members.string("request_id"), execution_id=members.string("execution_id")
                )
            case "exit":
                return read_exit(members)
            case name:
                return _output_or_gap(name, members)

    def is_last(self, event: ExecuteEvent) -> bool:
        return isinstance(event, ExitEvent)


class ExecutionEvents(EventSource[ExecutionEvent]):
    """Those of a lasting execution, from an offset on. Goes on there when its connection breaks."""

    resumes = True

    def __init__(self, execution_id: str, offset: int | None, http_timeout_s: float | None = None) -> None:
        super().__init__()
        if offset is not None and offset < 0:
            raise ValueError(f"offset is {offset}, which is negative")
        self._id = execution_id
        self._path = f"/api/v1/executions/{segment('execution_id', execution_id)}/stream"
        self._offset = offset
        self._http_timeout_s = http_timeout_s

    def call(self) -> Call[Never]:
        return stream_call(self._path, {"offset": self._offset}, self._http_timeout_s)

    def read(self, members: Members) -> ExecutionEvent | None:
        match members.string("event"):
            case "exit":
                return EndEvent(
                    execution_id=self._id,
                    exit_code=members.optional_integer("exit_code"),
                    signal=members.optional_string("signal"),
                    stdout_truncated=members.boolean("stdout_truncated"),
                    stderr_truncated=members.boolean("stderr_truncated"),
                    duration_ms=members.optional_integer("duration_ms"),
                    oom_killed=members.boolean("oom_killed"),
                    error=members.optional_string("error"),
                    raw=members.raw,
                )
            case name:
                return _output_or_gap(name, members)

    def is_last(self, event: ExecutionEvent) -> bool:
        return isinstance(event, EndEvent)

    def took(self, event: ExecutionEvent) -> None:
        match event:
            case OutputEvent():
                self._offset = event.offset + len(event.data)
            case GapEvent():
                self._offset = event.end
            case EndEvent():
                pass


def _output_or_gap(name: str, members: Members) -> OutputEvent | GapEvent | None:
    match name:
        case "stdout":
            return _output("stdout", members)
        case "stderr":
            return _output("stderr", members)
        case "gap":
            return GapEvent(start=members.integer("from"), end=members.integer("to"))
        case _:
            return None


def _output(stream: Literal["stdout", "stderr"], members: Members) -> OutputEvent:
    data, is_text = read_data(members)
    return OutputEvent(stream=stream, offset=members.integer("offset"), data=data, is_text=is_text)


def read_data(members: Members) -> tuple[bytes, bool]:
    """The member ``data`` or ``data_base64`` as bytes, and whether it was text.

    Raises:
        DecodeError: there is neither, or it is not base64.
    """
    encoded = members.optional_string("data_base64")
    if encoded is None:
        return members.string("data").encode(), True
    try:
        return base64.b64decode(encoded, validate=True), False
    except (binascii.Error, ValueError) as error:
        raise DecodeError(f"/data_base64 is not base64: {error}") from error
