"""``POST /api/v1/execute``: run one command in a fresh sandbox."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Never, Unpack

from faas_sdk._core.call import IDEMPOTENCY_KEY, Call
from faas_sdk._core.decode import DecodeError, Members, no_document
from faas_sdk._core.headers import given_headers
from faas_sdk.options import ExecuteOptions, Network, RuntimeChoice
from faas_sdk.types import ExecuteResult, ExitEvent, File, Timings, Usage

DEFAULT_TIMEOUT_MS = 30_000
"""The gateway's own timeout of a command, where the caller names none."""

HTTP_MARGIN_S = 60.0
"""What is waited beyond the command's timeout: for a place in the queue, the image and the sandbox."""


def execute(
    command: str | Sequence[str],
    *,
    image: str | None = None,
    runtime: RuntimeChoice | None = None,
    env_vars: Mapping[str, str] | None = None,
    working_dir: str | None = None,
    user: str | None = None,
    stdin: str | bytes | None = None,
    files: Mapping[str, str | bytes] | Sequence[File] | None = None,
    secrets: Mapping[str, str] | None = None,
    timeout_ms: int | None = None,
    memory_mb: int | None = None,
    cpu_cores: float | None = None,
    pids_limit: int | None = None,
    disk_mb: int | None = None,
    network: Network | None = None,
    max_output_bytes: int | None = None,
    labels: Mapping[str, str] | None = None,
    request_id: str | None = None,
    idempotency_key: str | None = None,
    http_timeout_s: float | None = None,
) -> Call[ExecuteResult]:
    """The call for one command; see :class:`faas_sdk.options.ExecuteOptions` for what each argument means."""
    body: dict[str, Any] = {
        "command": checked_command(command),
        "image": image,
        "runtime": runtime,
        "env_vars": None if env_vars is None else dict(env_vars),
        "working_dir": working_dir,
        "user": user,
        **text_or_base64("stdin", stdin),
        "files": file_entries(files),
        "secrets": None if secrets is None else dict(secrets),
        "timeout_ms": timeout_ms,
        "memory_mb": memory_mb,
        "cpu_cores": cpu_cores,
        "pids_limit": pids_limit,
        "disk_mb": disk_mb,
        "network": network,
        "max_output_bytes": max_output_bytes,
        "labels": None if labels is None else dict(labels),
    }
    return Call(
        method="POST",
        path="/api/v1/execute",
        headers=given_headers({"x-request-id": request_id, IDEMPOTENCY_KEY: idempotency_key}),
        body=encoded(body),
        http_timeout_s=http_timeout_s,
        default_http_timeout_s=patience_s(timeout_ms),
        read=lambda value, _headers: read_execution(value),
    )


def stream(command: str | Sequence[str], **options: Unpack[ExecuteOptions]) -> Call[Never]:
    """The same for an answer of events, which :class:`faas_sdk._core.execute_events.ExecuteEvents` reads."""
    return as_stream(execute(command, **options))


def as_stream(call: Call[ExecuteResult]) -> Call[Never]:
    """The same call for an answer of events."""
    return Call(
        method=call.method,
        path=call.path,
        headers={**call.headers, "accept": "application/x-ndjson"},
        body=call.body,
        http_timeout_s=call.http_timeout_s,
        default_http_timeout_s=call.default_http_timeout_s,
        read=no_document,
    )


def encoded(body: Mapping[str, Any]) -> bytes:
    """JSON of those members that are not None.

    Raises:
        ValueError: something in it cannot be JSON.
    """
    given = {name: value for name, value in body.items() if value is not None}
    return json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def patience_s(timeout_ms: int | None) -> float:
    """How long the answer to a command of this timeout is waited for, in seconds."""
    return (DEFAULT_TIMEOUT_MS if timeout_ms is None else max(timeout_ms, 0)) / 1000 + HTTP_MARGIN_S


def read_execution(value: object) -> ExecuteResult:
    """An ``ExecuteResponse``.

    Raises:
        DecodeError: it is not one.
    """
    members = Members(value)
    return ExecuteResult(
        request_id=members.string("request_id"),
        execution_id=members.string("execution_id"),
        exit_code=members.integer("exit_code"),
        signal=members.optional_string("signal"),
        stdout=members.string("stdout"),
        stderr=members.string("stderr"),
        stdout_base64=_base64(members, "stdout_base64"),
        stderr_base64=_base64(members, "stderr_base64"),
        stdout_truncated=members.boolean("stdout_truncated"),
        stderr_truncated=members.boolean("stderr_truncated"),
        duration_ms=members.integer("duration_ms"),
        timings=_timings(members.child("timings")),
        runtime=members.string("runtime"),
        image=members.string("image"),
        usage=_usage(members.child("usage")),
        oom_killed=members.boolean("oom_killed"),
        error=members.optional_string("error"),
        raw=members.raw,
    )


def read_exit(members: Members) -> ExitEvent:
    """The event ``exit``.

    Raises:
        DecodeError: it is not one.
    """
    return ExitEvent(
        request_id=members.string("request_id"),
        execution_id=members.string("execution_id"),
        exit_code=members.integer("exit_code"),
        signal=members.optional_string("signal"),
        stdout_truncated=members.boolean("stdout_truncated"),
        stderr_truncated=members.boolean("stderr_truncated"),
        duration_ms=members.integer("duration_ms"),
        timings=_timings(members.child("timings")),
        runtime=members.string("runtime"),
        image=members.string("image"),
        usage=_usage(members.child("usage")),
        oom_killed=members.boolean("oom_killed"),
        error=members.optional_string("error"),
        raw=members.raw,
    )


def _timings(members: Members) -> Timings:
    return Timings(
        queue_us=members.integer("queue_us"),
        create_us=members.integer("create_us"),
        exec_us=members.integer("exec_us"),
    )


def _usage(members: Members) -> Usage:
    return Usage(
        cpu_us=members.optional_integer("cpu_us"),
        memory_peak_bytes=members.optional_integer("memory_peak_bytes"),
    )


def _base64(members: Members, name: str) -> str | None:
    encoded = members.optional_string(name)
    if encoded is not None:
        try:
            base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DecodeError(f"/{name} is not base64: {error}") from error
    return encoded


def checked_command(command: object) -> str | list[str]:
    """The member ``command``.

    Raises:
        TypeError: it is none.
    """
    match command:
        case str():
            return command
        case bytes() | bytearray():
            pass
        case Sequence() if all(isinstance(word, str) for word in command):
            return list(command)
    raise TypeError("command is a string or a sequence of strings")


def file_entries(files: Mapping[str, str | bytes] | Sequence[File] | None) -> list[dict[str, str]] | None:
    """The member ``files``.

    Raises:
        TypeError: a file's content is neither text nor bytes.
    """
    if files is None:
        return None
    if isinstance(files, Mapping):
        files = [File(path=path, content=content) for path, content in files.items()]
    return [_file(entry) for entry in files]


def _file(file: File) -> dict[str, str]:
    entry = {"path": file.path, **text_or_base64("content", file.content)}
    if file.mode is not None:
        entry["mode"] = f"{file.mode:04o}" if isinstance(file.mode, int) else file.mode
    return entry


def text_or_base64(name: str, value: object) -> dict[str, str]:
    """The member for text, or the one beside it for bytes.

    Raises:
        TypeError: it is neither.
    """
    match value:
        case None:
            return {}
        case str():
            return {name: value}
        case bytes() | bytearray() | memoryview():
            return {f"{name}_base64": base64.b64encode(value).decode("ascii")}
        case _:
            raise TypeError(f"{name} is text or bytes, not {type(value).__name__}")
