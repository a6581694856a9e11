"""``/api/v1/executions``: commands that go on by themselves."""

from __future__ import annotations

from collections.abc import Mapping

from faas_sdk._core.call import Call
from faas_sdk._core.decode import Members
from faas_sdk._core.operations.execute import encoded
from faas_sdk._core.operations.ids import segment
from faas_sdk._core.pages import Listing, with_query
from faas_sdk.types import ExecutionInfo, TerminalSize

PATH = "/api/v1/executions"

CANCEL_TIMEOUT_S = 90.0
"""How long the end of what is cancelled is waited for."""


def get(execution_id: str) -> Call[ExecutionInfo]:
    """One execution."""
    return Call(method="GET", path=_path(execution_id), read=read_answer)


def listing(instance_id: str, limit: int | None) -> Listing[ExecutionInfo]:
    """Those of an instance, page by page."""
    path = f"/api/v1/instances/{segment('instance_id', instance_id)}/executions"
    return Listing(path, {}, limit, read_execution_info)


def write(execution_id: str, data: object, eof: bool) -> Call[None]:
    """Give it input."""
    if not isinstance(data, str | bytes | bytearray | memoryview):
        raise TypeError(f"data is text or bytes, not {type(data).__name__}")
    return Call(
        method="POST",
        path=with_query(_path(execution_id, "/input"), {"eof": "true" if eof else None}),
        headers={"content-type": "application/octet-stream"},
        body=data.encode() if isinstance(data, str) else bytes(data),
        result_statuses=frozenset({204}),
        read=_nothing,
    )


def signal(execution_id: str, name: str | int) -> Call[None]:
    """Send it a signal."""
    return Call(
        method="POST",
        path=_path(execution_id, "/signal"),
        body=encoded({"signal": name if isinstance(name, str) else int(name)}),
        result_statuses=frozenset({204}),
        read=_nothing,
    )


def cancel(execution_id: str) -> Call[None]:
    """End it with all that it started. Once more is no error."""
    return Call(
        method="DELETE",
        path=_path(execution_id),
        default_http_timeout_s=CANCEL_TIMEOUT_S,
        result_statuses=frozenset({204}),
        idempotent=True,
        read=_nothing,
    )


def read_answer(value: object, _headers: Mapping[str, str]) -> ExecutionInfo:
    """An ``Execution`` as an answer."""
    return read_execution_info(Members(value))


def read_execution_info(members: Members) -> ExecutionInfo:
    """An ``Execution``.

    Raises:
        DecodeError: it is not one.
    """
    tty = members.optional_child("tty")
    return ExecutionInfo(
        execution_id=members.string("execution_id"),
        instance_id=members.string("instance_id"),
        kind=members.string("kind"),
        status=members.string("status"),
        status_reason=members.optional_string("status_reason"),
        command=members.words("command"),
        background=members.boolean("background"),
        tty=None if tty is None else TerminalSize(rows=tty.integer("rows"), cols=tty.integer("cols")),
        labels=members.string_map("labels"),
        timeout_ms=members.optional_integer("timeout_ms"),
        created_at=members.string("created_at"),
        ended_at=members.optional_string("ended_at"),
        exit_code=members.optional_integer("exit_code"),
        signal=members.optional_string("signal"),
        oom_killed=members.boolean("oom_killed"),
        stdout_truncated=members.boolean("stdout_truncated"),
        stderr_truncated=members.boolean("stderr_truncated"),
        duration_ms=members.optional_integer("duration_ms"),
        error=members.optional_string("error"),
        first_offset=members.integer("first_offset"),
        next_offset=members.integer("next_offset"),
        raw=members.raw,
    )


def _nothing(_value: object, _headers: Mapping[str, str]) -> None:
    return None


def _path(execution_id: object, verb: str = "") -> str:
    return f"{PATH}/{segment('execution_id', execution_id)}{verb}"
