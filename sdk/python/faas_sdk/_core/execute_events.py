"""Reads the events of an execution, one JSON object a line."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Literal, Never

from faas_sdk._core.answer import WholeReader
from faas_sdk._core.call import Answer, Call
from faas_sdk._core.decode import DecodeError, Members
from faas_sdk._core.operations.execute import read_exit
from faas_sdk._core.problem import api_error
from faas_sdk.errors import ConnectionLostError, ResponseFormatError
from faas_sdk.types import ExecuteEvent, ExitEvent, GapEvent, OutputEvent, StartedEvent


class ExecuteEventReader:
    """Takes the pieces of a body as they come, and gives the events in them.

    Events of a name that this version does not know are passed over, and so are empty lines: a gateway that has nothing
    to say sends one from time to time.
    """

    def __init__(self, call: Call[Never], status: int, headers: Mapping[str, str]) -> None:
        self._call = call
        self._status = status
        self._headers = headers
        self._rest = b""
        self._ended = False
        are_events = status in call.result_statuses and headers.get("content-type", "").startswith(
            "application/x-ndjson"
        )
        self._document = None if are_events else WholeReader(call, status, headers)

    def feed(self, piece: bytes) -> Iterator[ExecuteEvent]:
        """Takes the next piece.

        Raises:
            APIError: the event ``error``.
            ResponseFormatError: a line that is no event.
        """
        if self._document is not None:
            self._document.feed(piece)
            return
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.strip() and not self._ended and (event := self._event(line)) is not None:
                self._ended = isinstance(event, ExitEvent)
                yield event

    def end(self) -> None:
        """All pieces have come.

        Raises:
            APIError: the answer is an error and no stream.
            ConnectionLostError: they ended before the last event.
        """
        if self._document is not None:
            self._document.result()
        if not self._ended:
            raise ConnectionLostError(f"the events of {self._call.path} ended before the last of them", True)

    def _event(self, line: bytes) -> ExecuteEvent | None:
        try:
            members = Members(json.loads(line))
            match members.string("event"):
                case "started":
                    return StartedEvent(
                        request_id=members.string("request_id"), execution_id=members.string("execution_id")
                    )
                case "stdout":
                    return _output("stdout", members)
                case "stderr":
                    return _output("stderr", members)
                case "gap":
                    return GapEvent(start=members.integer("from"), end=members.integer("to"))
                case "exit":
                    return read_exit(members)
                case "error":
                    status = members.optional_integer("status") or self._status
                    raise api_error(Answer(status=status, headers=self._headers, body=line))
                case _:
                    return None
        except (ValueError, RecursionError) as error:  # a DecodeError is a ValueError
            words = str(error) if isinstance(error, DecodeError) else "a line is not JSON"
            raise ResponseFormatError(
                f"the events of {self._call.path} are not the contract's: {words}", self._status
            ) from error


def _output(stream: Literal["stdout", "stderr"], members: Members) -> OutputEvent:
    encoded = members.optional_string("data_base64")
    if encoded is None:
        data = members.string("data").encode()
    else:
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DecodeError(f"/data_base64 is not base64: {error}") from error
    return OutputEvent(stream=stream, offset=members.integer("offset"), data=data, is_text=encoded is None)
