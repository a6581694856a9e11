"""``/api/v1/events``, what became of instances and executions; and the log of one instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Never

from faas_sdk._core.call import Call
from faas_sdk._core.decode import Members, each
from faas_sdk._core.event_source import EventSource, stream_call
from faas_sdk._core.execute_events import read_data
from faas_sdk._core.operations.ids import segment
from faas_sdk._core.pages import with_query
from faas_sdk._core.problem import is_problem
from faas_sdk.types import GatewayEvent, LogEntry


class GatewayEvents(EventSource[GatewayEvent]):
    """Those after a number. Goes on after the last one when its connection breaks; never ends."""

    resumes = True

    def __init__(self, after: int | None, kind: str | Sequence[str] | None, subject: str | None) -> None:
        super().__init__()
        kinds = [kind] if isinstance(kind, str) else kind
        self._after = after
        self._asked = {"kind": None if kinds is None else ",".join(kinds) or None, "subject": subject}

    def call(self) -> Call[Never]:
        return stream_call("/api/v1/events", {"after": self._after, **self._asked})

    def read(self, members: Members) -> GatewayEvent | None:
        return GatewayEvent(
            seq=members.integer("seq"),
            at=members.string("at"),
            kind=members.string("kind"),
            subject=members.string("subject"),
            data=members.child("data").raw,
            raw=members.raw,
        )

    def took(self, event: GatewayEvent) -> None:
        self._after = event.seq


class LogEntries(EventSource[LogEntry]):
    """The log of an instance, and what is added to it. Ends with the instance."""

    ends_quietly = True

    def __init__(self, instance_id: str, tail: int | None) -> None:
        super().__init__()
        self._call = stream_call(_path(instance_id), {"tail": tail})

    def call(self) -> Call[Never]:
        return self._call

    def is_error(self, members: Members) -> bool:
        return is_problem(members) or super().is_error(members)

    def read(self, members: Members) -> LogEntry | None:
        return _read_entry(members)


def logs(instance_id: str, tail: int | None) -> Call[tuple[LogEntry, ...]]:
    """The log of an instance as it is now."""

    def read(value: object, _headers: Mapping[str, str]) -> tuple[LogEntry, ...]:
        return tuple(_read_entry(members) for members in each(value))

    return Call(method="GET", path=with_query(_path(instance_id), {"tail": tail}), read=read)


def _read_entry(members: Members) -> LogEntry:
    kind = members.string("type")
    return LogEntry(
        at=members.string("at"),
        type=kind,
        execution_id=members.optional_string("execution_id"),
        data=read_data(members)[0] if kind in ("stdout", "stderr") else None,
        kind=members.optional_string("kind"),
        reason=members.optional_string("reason"),
        raw=members.raw,
    )


def _path(instance_id: str) -> str:
    return f"/api/v1/instances/{segment('instance_id', instance_id)}/logs"
