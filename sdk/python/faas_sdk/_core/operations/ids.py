"""Ids in paths."""

from __future__ import annotations

from urllib.parse import quote


def segment(name: str, value: object) -> str:
    """An id as a segment of a path.

    Raises:
        TypeError: it is no string.
        ValueError: it would lead to another path.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {type(value).__name__}")
    if value in ("", ".", ".."):
        raise ValueError(f"{name} is {value!r}, which is no id")
    return quote(value, safe="")
