"""Checks text that becomes a header, so that no request is half sent and no header smuggled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[!-~]([ -~\t]*[!-~])?")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The same headers, by lower-case name.

    Raises:
        ValueError: a name is not an RFC 9110 token, or a value is empty or not printable ASCII.
    """
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{name} is {value!r}, which a header cannot carry: printable ASCII is needed")
    return {name.lower(): value for name, value in headers.items()}


def given_headers(headers: Mapping[str, str | None]) -> dict[str, str]:
    """Those of them that are not None, checked.

    Raises:
        ValueError: as :func:`checked_headers`.
    """
    return checked_headers({name: value for name, value in headers.items() if value is not None})
