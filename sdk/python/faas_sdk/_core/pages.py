"""A list that the gateway tells of page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

from faas_sdk._core.call import Call
from faas_sdk._core.decode import DecodeError, Members, each

T = TypeVar("T")

LARGEST_PAGE = 1000
"""The most entries that the gateway tells of at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A part of the list."""

    entries: tuple[T, ...]
    next_cursor: str | None
    """What the next page is asked for with, or None where this is the last one."""


class Listing(Generic[T]):
    """The list, page by page: asks for the next one until there is none or there are enough entries."""

    def __init__(
        self, path: str, asked: Mapping[str, str | None], limit: int | None, read: Callable[[Members], T]
    ) -> None:
        self._path = path
        self._asked = asked
        self._limit = limit
        self._read = read
        self._cursor: str | None = None
        self._ended = False
        self._found: list[T] = []

    def next_call(self) -> Call[Page[T]] | None:
        """The call for the next page, or None when there is none to ask for."""
        if self._ended:
            return None
        left = None if self._limit is None else min(self._limit - len(self._found), LARGEST_PAGE)
        cursor = self._cursor

        def read(value: object, headers: Mapping[str, str]) -> Page[T]:
            entries = tuple(self._read(members) for members in each(value))
            next_cursor = headers.get("x-next-cursor")
            if next_cursor is not None and (not entries or next_cursor == cursor):
                raise DecodeError("there is a next page, and it is this one again")
            return Page(entries=entries, next_cursor=next_cursor)

        asked = {**self._asked, "limit": left, "cursor": cursor}
        return Call(method="GET", path=with_query(self._path, asked), read=read)

    def add(self, found: Page[T]) -> None:
        """Takes the answer to that call."""
        self._found += found.entries
        enough = self._limit is not None and len(self._found) >= self._limit
        self._cursor, self._ended = found.next_cursor, found.next_cursor is None or enough

    def entries(self) -> tuple[T, ...]:
        """All that were found."""
        return tuple(self._found)


def with_query(path: str, parameters: Mapping[str, str | int | None]) -> str:
    """The path with those parameters that are not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
