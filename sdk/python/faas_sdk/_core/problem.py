"""Makes the error from an answer that is not a result."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

from faas_sdk._core.call import Answer
from faas_sdk._core.decode import DecodeError, Members
from faas_sdk._core.operations.execute import read_execution
from faas_sdk.errors import BY_CODE, APIError, Problem
from faas_sdk.types import ExecuteResult, FieldError

_EXCERPT = 300
"""How many characters of a foreign body are quoted."""


def api_error(answer: Answer) -> APIError:
    """The error for an answer, of the class of its code.

    Lenient where :mod:`decode` is strict: whatever the body, the status and as much as can be read are reported.
    """
    body = _json_object(answer.body)
    code = body.get("code") if isinstance(body.get("code"), str) else None
    problem = Problem(
        status=answer.status,
        code=code,
        title=_string(body, "title"),
        detail=_string(body, "detail") or _describe_foreign(answer),
        request_id=_string(body, "request_id") or answer.headers.get("x-request-id"),
        retryable=body.get("retryable") is True,
        errors=_field_errors(body.get("errors")),
        retry_after_s=retry_after_s(answer.headers.get("retry-after")),
        execution=_execution(body.get("execution")),
        first_offset=_offset(body, "first_offset"),
        next_offset=_offset(body, "next_offset"),
    )
    return BY_CODE.get(code or "", APIError)(problem)


def is_problem(members: Members) -> bool:
    """Whether something with a member ``type`` that says what it is is an error."""
    return members.raw.get("type") == "error"


def retry_after_s(header: str | None) -> float | None:
    """The seconds in a ``Retry-After`` header. Its other form, a date, is not one the gateway sends."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _json_object(body: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body)
        if isinstance(value, dict):
            return value
    return {}


def _string(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) else None


def _offset(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _field_errors(value: object) -> tuple[FieldError, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        FieldError(pointer=str(entry.get("pointer", "")), message=str(entry.get("message", "")))
        for entry in value
        if isinstance(entry, dict)
    )


def _execution(value: object) -> ExecuteResult | None:
    if value is None:
        return None
    try:
        return read_execution(value)
    except DecodeError:
        return None


def _describe_foreign(answer: Answer) -> str:
    kind = answer.headers.get("content-type", "no content type")
    text = " ".join(answer.body[: 4 * _EXCERPT].decode("utf-8", "replace").split())
    if not text:
        return f"the answer has no body ({kind})"
    return f"the answer is not a gateway's ({kind}): {text[:_EXCERPT]}"
