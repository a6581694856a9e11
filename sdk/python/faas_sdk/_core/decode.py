"""Typed reading of parsed JSON: each member has the type the contract gives it, or the answer is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Never, TypeVar

T = TypeVar("T")


class DecodeError(ValueError):
    """The JSON is not what the contract says; the message names the place."""


def no_document(_value: object, _headers: Mapping[str, str]) -> Never:
    """What is made of a document where events were asked for.

    Raises:
        DecodeError: always.
    """
    raise DecodeError("the answer is one document and no stream of events")


class Members:
    """The members of one JSON object. Members that nobody asks for are no error."""

    def __init__(self, value: object, at: str = "") -> None:
        if not isinstance(value, dict):
            raise DecodeError(f"{at or 'the body'} is {_kind(value)}, not an object")
        self.raw: Mapping[str, object] = value
        self._at = at

    def string(self, name: str) -> str:
        """A string."""
        return self._typed(name, str, "a string")

    def optional_string(self, name: str) -> str | None:
        """A string, or null or absent."""
        return None if self.raw.get(name) is None else self.string(name)

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self._typed(name, int, "a whole number")
        if isinstance(value, bool):
            raise DecodeError(f"{self._where(name)} is a boolean, not a whole number")
        return value

    def optional_integer(self, name: str) -> int | None:
        """A whole number, or null or absent."""
        return None if self.raw.get(name) is None else self.integer(name)

    def number(self, name: str) -> float:
        """A number."""
        value = self._present(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DecodeError(f"{self._where(name)} is {_kind(value)}, not a number")
        return float(value)

    def boolean(self, name: str) -> bool:
        """True or false."""
        return self._typed(name, bool, "a boolean")

    def child(self, name: str) -> Members:
        """An object."""
        return Members(self._present(name), self._where(name))

    def map(self, name: str, read: Callable[[Members], T]) -> dict[str, T]:
        """An object whose members are all alike."""
        inner = self.child(name)
        return {key: read(inner.child(key)) for key in inner.raw}

    def children(self, name: str) -> list[Members]:
        """An array of objects."""
        return each(self._present(name), self._where(name))

    def string_map(self, name: str) -> dict[str, str]:
        """An object of strings."""
        inner = self.child(name)
        return {key: inner.string(key) for key in inner.raw}

    def strings(self, name: str) -> tuple[str, ...]:
        """An array of strings."""
        values = self._typed(name, list, "an array")
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise DecodeError(f"{self._where(name)}/{index} is {_kind(value)}, not a string")
        return tuple(values)

    def words(self, name: str) -> str | tuple[str, ...]:
        """A string, or an array of strings."""
        return self.string(name) if isinstance(self.raw.get(name), str) else self.strings(name)

    def optional_child(self, name: str) -> Members | None:
        """An object, or null or absent."""
        return None if self.raw.get(name) is None else self.child(name)

    def _present(self, name: str) -> object:
        if name not in self.raw:
            raise DecodeError(f"{self._where(name)} is missing")
        return self.raw[name]

    def _typed(self, name: str, kind: type[T], described: str) -> T:
        value = self._present(name)
        if not isinstance(value, kind):
            raise DecodeError(f"{self._where(name)} is {_kind(value)}, not {described}")
        return value

    def _where(self, name: str) -> str:
        return f"{self._at}/{name}"


def each(value: object, at: str = "") -> list[Members]:
    """An array of objects."""
    if not isinstance(value, list):
        raise DecodeError(f"{at or 'the body'} is {_kind(value)}, not an array")
    return [Members(entry, f"{at}/{index}") for index, entry in enumerate(value)]


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
