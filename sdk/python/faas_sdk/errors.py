"""Everything that a call can raise, as one tree.

    FaaSError
      TransportError              no answer came; `request_sent` tells whether the command may have run
        ConnectFailedError        the gateway could not be reached; nothing was sent
        ConnectionLostError       the connection broke before the whole answer was there
        TransportTimeoutError     the gateway was silent for longer than the HTTP timeout
      ResponseFormatError         an answer came that is not the gateway's
      APIError                    the gateway refused or failed; one subclass for each `code`

A command that exits with another code than 0 raises nothing: that is a result.
"""

from __future__ import annotations

from dataclasses import dataclass

from faas_sdk.types import ExecuteResult, FieldError


class FaaSError(Exception):
    """The root of all errors of this package."""


class TransportError(FaaSError):
    """No answer came."""

    def __init__(self, message: str, request_sent: bool) -> None:
        super().__init__(message, request_sent)
        self.message = message
        self.request_sent = request_sent
        """Whether the request may have reached the gateway, so that the command may have run."""

    def __str__(self) -> str:
        return self.message


class ConnectFailedError(TransportError, ConnectionError):
    """The gateway could not be reached; nothing was sent."""


class ConnectionLostError(TransportError, ConnectionError):
    """The connection broke before the whole answer was there. The command may have run."""


class TransportTimeoutError(TransportError, TimeoutError):
    """The gateway was silent for longer than the HTTP timeout."""


class ResponseFormatError(FaaSError):
    """An answer came that is not the gateway's: another program listens there, or a proxy stands between."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status
        """The HTTP status of that answer."""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The gateway's error answer (``application/problem+json``, RFC 9457), read."""

    status: int
    code: str | None
    title: str | None
    detail: str
    request_id: str | None
    retryable: bool
    errors: tuple[FieldError, ...]
    retry_after_s: float | None
    execution: ExecuteResult | None
    first_offset: int | None
    next_offset: int | None


class APIError(FaaSError):
    """The gateway answered with an error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.status = problem.status
        """The HTTP status."""
        self.code = problem.code
        """What a program decides by; None where the answer did not come from the gateway (a proxy's error page)."""
        self.title = problem.title
        """The code in words, or None."""
        self.detail = problem.detail
        """What happened this time and what to do about it."""
        self.request_id = problem.request_id
        """The id of the request, as in the gateway's log, or None."""
        self.retryable = problem.retryable
        """Whether the gateway says that the same request may succeed later without a change."""
        self.errors = problem.errors
        """The members of the request that are not valid."""
        self.retry_after_s = problem.retry_after_s
        """How many seconds the gateway asks to wait, or None."""

    def __str__(self) -> str:
        text = f"{self.code or 'no code'} ({self.status}): {self.detail}"
        for error in self.errors:
            # With one field alone the detail is its message.
            if error.message in self.detail:
                continue
            text += f"; {error.pointer or 'body'}: {error.message}"
        if self.request_id is not None:
            text += f" [request {self.request_id}]"
        return text


class InvalidRequestError(APIError):
    """``invalid_request``: the request cannot be parsed (400), or is parsed and not valid (422)."""


class UnauthorizedError(APIError):
    """``unauthorized``: no valid credentials."""


class ForbiddenError(APIError):
    """``forbidden``: valid credentials that do not allow this."""


class NotFoundError(APIError):
    """``not_found``: no such route or resource."""


class MethodNotAllowedError(APIError):
    """``method_not_allowed``: the route exists, not with this method."""


class RequestTimeoutError(APIError):
    """``request_timeout``: the request arrived too slowly."""


class ConflictError(APIError):
    """``conflict``: the resource's state does not allow this."""


class GoneError(APIError):
    """``gone``: what was asked for is no longer held."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.first_offset = problem.first_offset
        """The first offset of output that is still held, or the first event; None where the gateway did not say."""


class PayloadTooLargeError(APIError):
    """``payload_too_large``: the body is larger than the gateway takes."""


class UnsupportedMediaTypeError(APIError):
    """``unsupported_media_type``: the content type is not one the route takes."""


class RangeNotSatisfiableError(APIError):
    """``range_not_satisfiable``: the range asked for lies outside the content."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.next_offset = problem.next_offset
        """The offset after the last byte of output, where output was asked for; None where the gateway did not say."""


class RateLimitedError(APIError):
    """``rate_limited``: too many requests in too short a time."""


class QuotaExceededError(APIError):
    """``quota_exceeded``: a quota is used up."""


class RuntimeUnavailableError(APIError):
    """``runtime_unavailable``: the runtime asked for cannot be used on the gateway's host."""


class UnsupportedError(APIError):
    """``unsupported``: this gateway, or the runtime asked for, does not do this."""


class OverloadedError(APIError):
    """``overloaded``: more work than the gateway takes at once. Nothing was run."""


class ImageUnavailableError(APIError):
    """``image_unavailable``: the image cannot be had."""


class SandboxLostError(APIError):
    """``sandbox_lost``: the sandbox died under the execution."""


class InsufficientStorageError(APIError):
    """``insufficient_storage``: the gateway's host has no room left."""


class InternalError(APIError):
    """``internal``: a fault of the gateway."""


class ExecutionTimeoutError(APIError):
    """``execution_timeout``: the command was still running at its timeout and was killed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.execution = problem.execution
        """What it had done until then, output included, or None where the gateway did not say."""


BY_CODE: dict[str, type[APIError]] = {
    "invalid_request": InvalidRequestError,
    "unauthorized": UnauthorizedError,
    "forbidden": ForbiddenError,
    "not_found": NotFoundError,
    "method_not_allowed": MethodNotAllowedError,
    "request_timeout": RequestTimeoutError,
    "conflict": ConflictError,
    "gone": GoneError,
    "payload_too_large": PayloadTooLargeError,
    "unsupported_media_type": UnsupportedMediaTypeError,
    "range_not_satisfiable": RangeNotSatisfiableError,
    "rate_limited": RateLimitedError,
    "quota_exceeded": QuotaExceededError,
    "runtime_unavailable": RuntimeUnavailableError,
    "unsupported": UnsupportedError,
    "overloaded": OverloadedError,
    "image_unavailable": ImageUnavailableError,
    "sandbox_lost": SandboxLostError,
    "insufficient_storage": InsufficientStorageError,
    "execution_timeout": ExecutionTimeoutError,
    "internal": InternalError,
}
"""The class for each code of the contract. A code that is not here is raised as :class:`APIError` itself."""
