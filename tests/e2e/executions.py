"""What tests of lasting executions share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from faas_sdk import EndEvent, FaaSError, OutputEvent

import leftovers


def log_of(events: Iterable[Any], offset: int | None = None) -> tuple[bytes, Any]:
    """The output in some events, in its order, and the last event or the error; asserts that nothing is missing."""
    log, at, end = b"", offset, None
    try:
        for event in events:
            if isinstance(event, OutputEvent):
                assert event.offset == (event.offset if at is None else at), event
                log, at = log + event.data, event.offset + len(event.data)
            else:
                assert isinstance(event, EndEvent), event
                end = event
    except FaaSError as error:
        return log, error
    assert end is not None
    return log, end


def until(events: Iterable[Any], wanted: bytes) -> bytes:
    """The output up to something in it."""
    got = b""
    for event in events:
        if isinstance(event, OutputEvent):
            got += event.data
            if wanted in got:
                return got
    raise AssertionError(f"the stream ended without {wanted!r}: {got!r}")


def runs(mark: str, count: int = 1) -> None:
    """Waits until so many processes with a mark run."""

    def missing() -> list[str]:
        found = leftovers.pids_with(mark)
        return [] if len(found) >= count else [f"{len(found)} of {count} processes with {mark}"]

    assert leftovers.eventually(missing) == []


def gone(mark: str) -> None:
    """Waits until no process with a mark runs."""
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
