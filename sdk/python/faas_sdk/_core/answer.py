"""Reads an answer: the result of the call, or the error in it."""

from __future__ import annotations

import json
from typing import TypeVar

from faas_sdk._core.call import Answer, Call
from faas_sdk._core.decode import DecodeError
from faas_sdk._core.problem import api_error
from faas_sdk.errors import ResponseFormatError

T = TypeVar("T")


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
    if answer.status not in call.result_statuses or _is_problem(answer):
        raise api_error(answer)
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise ResponseFormatError(
            f"the answer to {call.path} is not JSON ({answer.status}, "
            f"{answer.headers.get('content-type', 'no content type')}): is this a FaaS gateway?",
            answer.status,
        ) from error
    try:
        return call.read(value)
    except DecodeError as error:
        raise ResponseFormatError(f"the answer to {call.path} is not the contract's: {error}", answer.status) from error


def _is_problem(answer: Answer) -> bool:
    return answer.headers.get("content-type", "").startswith("application/problem+json")
