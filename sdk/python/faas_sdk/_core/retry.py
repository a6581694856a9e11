"""Decides whether a failed attempt is followed by another, and after which wait."""

from __future__ import annotations

from typing import TypeVar

from faas_sdk._core.call import Call
from faas_sdk.errors import (
    APIError,
    ConnectFailedError,
    ConnectionLostError,
    ExecutionTimeoutError,
    FaaSError,
    OverloadedError,
    TransportTimeoutError,
)
from faas_sdk.options import RetryPolicy

T = TypeVar("T")

_GATEWAY_STATUSES = frozenset({502, 503, 504})
"""Statuses of a proxy or of a gateway that is starting or going; safe to repeat for a GET, or with a key."""


def retry_wait_s(policy: RetryPolicy, call: Call[T], error: FaaSError, attempt: int, fraction: float) -> float | None:
    """Seconds to wait before the next attempt, or None when there is none.

    Args:
        policy: the client's policy.
        call: what was sent.
        error: how this attempt failed.
        attempt: which attempt it was, from 0.
        fraction: a random number from 0 to 1, for the random half of the wait.
    """
    if attempt >= policy.max_retries or call.once or not _may_repeat(call, error):
        return None
    asked = error.retry_after_s if isinstance(error, APIError) else None
    if asked is not None:
        return asked if asked <= policy.max_retry_after_s else None
    backoff = min(policy.initial_backoff_s * 2.0**attempt, policy.max_backoff_s)
    return backoff / 2 + backoff / 2 * fraction


def as_lost(error: FaaSError, call: Call[T]) -> FaaSError:
    """A stream's silence, whose gateway says something all the time, as the loss of its connection that it is.

    Not where the caller chose how long it may be.
    """
    if isinstance(error, TransportTimeoutError) and call.http_timeout_s is None:
        return ConnectionLostError(error.message, error.request_sent)
    return error


def _may_repeat(call: Call[T], error: FaaSError) -> bool:
    match error:
        case ConnectFailedError() | OverloadedError():
            return True
        case ConnectionLostError():
            return call.repeatable
        case APIError(status=429):
            return error.retry_after_s is not None
        case APIError(status=409):
            # The first attempt, whose answer was lost, is still running there.
            return call.keyed and error.retryable
        case ExecutionTimeoutError():
            return False
        case APIError(status=status):
            return call.repeatable and status in _GATEWAY_STATUSES
        case _:
            return False
