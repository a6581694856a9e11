"""Reads an answer: the result of the call, or the error in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Generic, TypeVar

from faas_sdk._core.call import Answer, Call
from faas_sdk._core.decode import DecodeError
from faas_sdk._core.events import EventReader
from faas_sdk._core.problem import api_error
from faas_sdk.errors import ResponseFormatError

T = TypeVar("T")


def answer_reader(call: Call[T], status: int, headers: Mapping[str, str]) -> WholeReader[T] | EventReader[T]:
    """What takes the pieces of an answer's body, by its status and its headers (by lower-case name)."""
    if (
        call.on_progress is not None
        and status in call.result_statuses
        and headers.get("content-type", "").startswith("application/x-ndjson")
    ):
        return EventReader(call, call.on_progress, status, headers)
    return WholeReader(call, status, headers)


class WholeReader(Generic[T]):
    """An answer that is one document."""

    def __init__(self, call: Call[T], status: int, headers: Mapping[str, str]) -> None:
        self._call = call
        self._status = status
        self._headers = headers
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        """Takes the next piece of the body."""
        self._pieces.append(piece)

    def result(self) -> T:
        """The call's result, when all pieces have come; see :func:`read_answer`."""
        answer = Answer(status=self._status, headers=self._headers, body=b"".join(self._pieces))
        return read_answer(self._call, answer)


def read_answer(call: Call[T], answer: Answer) -> T:
    """The call's result.

    Raises:
        APIError: the answer is an error.
        ResponseFormatError: the status is a result's and the body is not.
    """
    if 300 <= answer.status < 400:
        location = answer.headers.get("location", "nowhere")
        raise ResponseFormatError(
            f"{call.path} is redirected to {location} ({answer.status}); set the base URL to where the gateway is",
            answer.status,
        )
    if not is_result(call, answer.status, answer.headers):
        raise api_error(answer)
    # One that says that something goes on has a body or has none.
    is_empty = answer.status == 204 or (answer.status == 202 and not answer.body)
    try:
        value: object = answer.body if call.raw else None if is_empty else json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise ResponseFormatError(
            f"the answer to {call.path} is not JSON ({answer.status}, "
            f"{answer.headers.get('content-type', 'no content type')}): is this a FaaS gateway?",
            answer.status,
        ) from error
    try:
        return call.read(value, answer.headers)
    except DecodeError as error:
        raise ResponseFormatError(f"the answer to {call.path} is not the contract's: {error}", answer.status) from error


def is_result(call: Call[T], status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer is the call's result, and no error."""
    is_problem = headers.get("content-type", "").startswith("application/problem+json")
    return status in call.result_statuses and not is_problem
