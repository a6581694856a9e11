"""Reads an answer of events, one JSON object a line: tells of the progress, and makes the result of the last one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from faas_sdk._core.call import Answer, Call
from faas_sdk._core.decode import DecodeError, Members
from faas_sdk._core.problem import api_error
from faas_sdk.errors import ConnectionLostError, ResponseFormatError
from faas_sdk.types import ImageProgress

T = TypeVar("T")


class EventReader(Generic[T]):
    """Takes the pieces of a body as they come.

    Events of a name that this version does not know are passed over, and so are empty lines: a gateway that has nothing
    to say sends one from time to time.
    """

    def __init__(
        self, call: Call[T], on_progress: Callable[[ImageProgress], None], status: int, headers: Mapping[str, str]
    ) -> None:
        self._call = call
        self._on_progress = on_progress
        self._status = status
        self._headers = headers
        self._rest = b""
        self._results: list[T] = []

    def feed(self, piece: bytes) -> None:
        """Takes the next piece.

        Raises:
            APIError: the event ``error``.
            ResponseFormatError: a line that is no event.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.strip() and not self._results:
                self._take(line)

    def result(self) -> T:
        """What the event ``done`` said, when all pieces have come.

        Raises:
            ConnectionLostError: they ended before the last event.
        """
        if not self._results:
            raise ConnectionLostError(f"the events of {self._call.path} ended before the last of them", True)
        return self._results[0]

    def _take(self, line: bytes) -> None:
        try:
            members = Members(json.loads(line))
            match members.string("event"):
                case "progress":
                    step = _read_progress(members)
                case "done":
                    self._results.append(self._call.read(members.raw, self._headers))
                    return
                case "error":
                    status = members.optional_integer("status") or self._status
                    raise api_error(Answer(status=status, headers=self._headers, body=line))
                case _:
                    return
        except (ValueError, RecursionError) as error:  # a DecodeError is a ValueError
            words = str(error) if isinstance(error, DecodeError) else "a line is not JSON"
            raise ResponseFormatError(
                f"the events of {self._call.path} are not the contract's: {words}", self._status
            ) from error
        self._on_progress(step)


def _read_progress(members: Members) -> ImageProgress:
    return ImageProgress(
        phase=members.string("phase"),
        layer=members.optional_string("layer"),
        done_bytes=members.integer("done_bytes"),
        total_bytes=members.optional_integer("total_bytes"),
    )
