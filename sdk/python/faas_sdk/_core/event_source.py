"""A stream of events: what is asked for, how an event is read, and where it is taken up again."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Generic, Never, TypeVar

from faas_sdk._core.answer import WholeReader
from faas_sdk._core.call import Answer, Call
from faas_sdk._core.decode import DecodeError, Members, no_document
from faas_sdk._core.pages import with_query
from faas_sdk._core.problem import api_error
from faas_sdk.errors import ConnectionLostError, ResponseFormatError

E = TypeVar("E")

SILENCE_S = 60.0
"""How long a stream may be silent: the gateway says something every 15 s."""

LEAST_SILENCE_S = 20.0
"""The same where the client's own timeout, which is for answers, is shorter."""


class EventSource(ABC, Generic[E]):
    """One stream, over as many connections as it takes."""

    resumes: ClassVar[bool] = False
    """Whether it goes on after its last event when its connection breaks."""
    ends_quietly: ClassVar[bool] = False
    """Whether it may end without a last event."""

    def __init__(self) -> None:
        self.said_error = False
        """Whether its last event was an error: it is not asked for again then."""

    @abstractmethod
    def call(self) -> Call[Never]:
        """What is asked for now."""

    @abstractmethod
    def read(self, members: Members) -> E | None:
        """An event, or None for one that this version does not know.

        Raises:
            DecodeError: it is not the contract's.
        """

    def is_error(self, members: Members) -> bool:
        """Whether it says why the stream does not go on, in the members of a problem."""
        return members.raw.get("event") == "error"

    def is_last(self, _event: E) -> bool:
        """Whether nothing comes after it."""
        return False

    def took(self, _event: E) -> None:
        """The event is the caller's now."""


class LineReader(Generic[E]):
    """Takes the pieces of a body as they come, and gives the events in them: a JSON object a line.

    Events of a name that this version does not know are passed over, and so are empty lines: a gateway that has nothing
    to say sends one from time to time.
    """

    def __init__(self, source: EventSource[E], call: Call[Never], status: int, headers: Mapping[str, str]) -> None:
        self._source = source
        self._call = call
        self._status = status
        self._headers = headers
        self._rest: list[bytes] = []
        self._ended = False
        are_events = status in call.result_statuses and headers.get("content-type", "").startswith(
            "application/x-ndjson"
        )
        self._document = None if are_events else WholeReader(call, status, headers)

    def feed(self, piece: bytes) -> Iterator[E]:
        """Takes the next piece.

        Raises:
            APIError: the event ``error``.
            ResponseFormatError: a line that is no event.
        """
        if self._document is not None:
            self._document.feed(piece)
            return
        first, *others = piece.split(b"\n")
        self._rest.append(first)
        for other in others:
            line, self._rest = b"".join(self._rest), [other]
            if line.strip() and not self._ended and (event := self._event(line)) is not None:
                self._ended = self._source.is_last(event)
                yield event

    def end(self) -> None:
        """All pieces have come.

        Raises:
            APIError: the answer is an error and no stream.
            ConnectionLostError: they ended before the last event.
        """
        if self._document is not None:
            self._document.result()
        if not self._ended and not self._source.ends_quietly:
            raise ConnectionLostError(f"the events of {self._call.path} ended before the last of them", True)

    def _event(self, line: bytes) -> E | None:
        try:
            members = Members(json.loads(line))
            if not self._source.is_error(members):
                return self._source.read(members)
            self._source.said_error = True
            status = members.optional_integer("status") or self._status
        except (ValueError, RecursionError) as error:  # a DecodeError is a ValueError
            words = str(error) if isinstance(error, DecodeError) else "a line is not JSON"
            raise ResponseFormatError(
                f"the events of {self._call.path} are not the contract's: {words}", self._status
            ) from error
        raise api_error(Answer(status=status, headers=self._headers, body=line))


def stream_call(path: str, asked: Mapping[str, str | int | None], http_timeout_s: float | None = None) -> Call[Never]:
    """The call for a stream of events."""
    return Call(
        method="GET",
        path=with_query(path, asked),
        headers={"accept": "application/x-ndjson"},
        http_timeout_s=http_timeout_s,
        default_http_timeout_s=SILENCE_S,
        least_http_timeout_s=LEAST_SILENCE_S,
        read=no_document,
    )
