"""One request to the gateway and the answer to it, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T_co]):
    """A request, and how to read the answer to it."""

    method: str
    path: str
    """Beneath the base URL, with a leading slash."""
    read: Callable[[object], T_co]
    """Makes the result from the parsed JSON; raises :class:`faas_sdk._core.decode.DecodeError`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    http_timeout_s: float | None = None
    """What the caller of this one call asks for, or None."""
    default_http_timeout_s: float = 30.0
    """What applies where neither the call nor the client says."""
    result_statuses: frozenset[int] = frozenset({200})
    """The statuses whose body is a result."""

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.method == "GET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
