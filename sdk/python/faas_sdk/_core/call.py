"""One request to the gateway and the answer to it, as values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from faas_sdk.options import Reader
from faas_sdk.types import ImageProgress

IDEMPOTENCY_KEY = "idempotency-key"
"""The header of such a key."""

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Something of the caller's that gives its bytes by itself."""

    iterator: Iterator[object] | AsyncIterator[object]
    """Whether these are bytes is looked at when they are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A body that is read while it is sent, so that it is never in memory as a whole."""

    source: Path | Reader | Pieces
    """A file, opened for each attempt; or something of the caller's, read where it stands and never closed."""
    size_bytes: int | None
    """How long it is, where that is known."""
    once: bool
    """Whether it cannot be read a second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T_co]):
    """A request, and how to read the answer to it."""

    method: str
    path: str
    """Beneath the base URL, with a leading slash."""
    read: Callable[[object, Mapping[str, str]], T_co]
    """Makes the result from the parsed JSON (None where the answer is 204, or 202 without a body) and the answer's
    headers (by lower-case name); raises :class:`faas_sdk._core.decode.DecodeError`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Upload | None = None
    """JSON, where `headers` does not say otherwise."""
    on_progress: Callable[[ImageProgress], None] | None = None
    """Is told of the steps in an answer of events, which `headers` have to ask for; the last event is the answer."""
    http_timeout_s: float | None = None
    """What the caller of this one call asks for, or None."""
    default_http_timeout_s: float = 30.0
    """What applies where neither the call nor the client says."""
    least_http_timeout_s: float = 0.0
    """What applies where the client says less, but not where the call does."""
    result_statuses: frozenset[int] = frozenset({200})
    """The statuses whose body is a result."""
    raw: bool = False
    """Whether the body of a result is bytes: `read` is given them then."""
    idempotent: bool = False
    """Whether it does nothing and is no error when it has been done before."""

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.method == "GET" or self.idempotent or self.keyed

    @property
    def keyed(self) -> bool:
        """Whether it has an idempotency key: the gateway then does it once, however often it is sent."""
        return IDEMPOTENCY_KEY in self.headers

    @property
    def once(self) -> bool:
        """Whether there is no second attempt, whatever the first one came to: its body is gone."""
        return isinstance(self.body, Upload) and self.body.once


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
