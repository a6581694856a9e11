"""``/api/v1/instances``: sandboxes that outlive one request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Never, Unpack

from faas_sdk._core.call import IDEMPOTENCY_KEY, Call
from faas_sdk._core.decode import Members
from faas_sdk._core.headers import given_headers
from faas_sdk._core.operations.execute import (
    as_stream,
    checked_command,
    encoded,
    file_entries,
    patience_s,
    read_execution,
    text_or_base64,
)
from faas_sdk._core.operations.executions import read_answer
from faas_sdk._core.operations.ids import segment
from faas_sdk._core.pages import Listing
from faas_sdk.options import ExecOptions, InstanceStatus, Network, OnTimeout, Restart, RuntimeChoice
from faas_sdk.types import ExecuteResult, ExecutionInfo, File, InstanceInfo, InstanceMetrics, MainInfo, TerminalSize

PATH = "/api/v1/instances"

CREATE_TIMEOUT_S = 1860.0
"""How long making one may take: the gateway's own limit for a pull of its image (30 min by default), and a minute."""

CHANGE_TIMEOUT_S = 150.0
"""How long a change of state may take: the longest grace of a stop (60 s), that of one before it, and the rest."""


class Given(Enum):
    """Stands for an argument that was not given, where None says something."""

    NOT = "not given"


def create(
    *,
    image: str | None = None,
    name: str | None = None,
    runtime: RuntimeChoice | None = None,
    env_vars: Mapping[str, str] | None = None,
    working_dir: str | None = None,
    user: str | None = None,
    files: Mapping[str, str | bytes] | Sequence[File] | None = None,
    memory_mb: int | None = None,
    cpu_cores: float | None = None,
    pids_limit: int | None = None,
    disk_mb: int | None = None,
    network: Network | None = None,
    ttl_ms: int | None = None,
    idle_timeout_ms: int | None = None,
    on_timeout: OnTimeout | None = None,
    auto_resume: bool | None = None,
    command: str | Sequence[str] | None = None,
    main: bool | None = None,
    restart: Restart | None = None,
    labels: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    http_timeout_s: float | None = None,
) -> Call[InstanceInfo]:
    """The call for a new instance; see :class:`faas_sdk.options.CreateInstanceOptions` for what each argument means."""
    body: dict[str, Any] = {
        "image": image,
        "name": name,
        "runtime": runtime,
        "env_vars": None if env_vars is None else dict(env_vars),
        "working_dir": working_dir,
        "user": user,
        "files": file_entries(files),
        "memory_mb": memory_mb,
        "cpu_cores": cpu_cores,
        "pids_limit": pids_limit,
        "disk_mb": disk_mb,
        "network": network,
        "ttl_ms": ttl_ms,
        "idle_timeout_ms": idle_timeout_ms,
        "on_timeout": on_timeout,
        "auto_resume": auto_resume,
        "command": None if command is None else checked_command(command),
        "main": main,
        "restart": restart,
        "labels": None if labels is None else dict(labels),
    }
    return Call(
        method="POST",
        path=PATH,
        headers=given_headers({IDEMPOTENCY_KEY: idempotency_key}),
        body=encoded(body),
        http_timeout_s=http_timeout_s,
        default_http_timeout_s=CREATE_TIMEOUT_S,
        result_statuses=frozenset({201}),
        read=_read,
    )


def listing(
    status: InstanceStatus | Sequence[InstanceStatus] | None, labels: Mapping[str, str] | None, limit: int | None
) -> Listing[InstanceInfo]:
    """The instances, page by page.

    Raises:
        ValueError: a label that a filter cannot express.
    """
    statuses = [status] if isinstance(status, str) else status
    asked = {
        "status": None if statuses is None else ",".join(statuses),
        "label": None if labels is None else ",".join(_label(key, value) for key, value in labels.items()),
    }
    return Listing(PATH, {name: value or None for name, value in asked.items()}, limit, read_instance)


def get(instance_id: str) -> Call[InstanceInfo]:
    """One instance."""
    return Call(method="GET", path=_path(instance_id), read=_read)


def delete(instance_id: str) -> Call[None]:
    """Remove an instance. Once more is no error."""
    return Call(
        method="DELETE",
        path=_path(instance_id),
        result_statuses=frozenset({202, 204}),
        idempotent=True,
        read=lambda _value, _headers: None,
    )


def exec_members(
    command: str | Sequence[str],
    *,
    env_vars: Mapping[str, str] | None = None,
    working_dir: str | None = None,
    user: str | None = None,
    stdin: str | bytes | None = None,
    files: Mapping[str, str | bytes] | Sequence[File] | None = None,
    secrets: Mapping[str, str] | None = None,
    timeout_ms: int | None = None,
    max_output_bytes: int | None = None,
    keep_running: bool | None = None,
    stdin_open: bool | None = None,
    tty: TerminalSize | None = None,
    labels: Mapping[str, str] | None = None,
    request_id: str | None = None,
    idempotency_key: str | None = None,
    http_timeout_s: float | None = None,
) -> dict[str, Any]:
    """What is asked for with a command; see :class:`faas_sdk.options.ExecOptions` for the arguments.

    The last three are no members: they are taken so that all options can be given.
    """
    return {
        "command": checked_command(command),
        "env_vars": None if env_vars is None else dict(env_vars),
        "working_dir": working_dir,
        "user": user,
        **text_or_base64("stdin", stdin),
        "files": file_entries(files),
        "secrets": None if secrets is None else dict(secrets),
        "timeout_ms": timeout_ms,
        "max_output_bytes": max_output_bytes,
        "keep_running": keep_running,
        "stdin_open": stdin_open,
        "tty": None if tty is None else {"rows": tty.rows, "cols": tty.cols},
        "labels": None if labels is None else dict(labels),
    }


def execute(instance_id: str, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> Call[ExecuteResult]:
    """The call for one command in an instance."""
    return Call(
        method="POST",
        path=_path(instance_id, "/exec"),
        headers=_exec_headers(options),
        body=encoded(exec_members(command, **options)),
        http_timeout_s=options.get("http_timeout_s"),
        default_http_timeout_s=patience_s(options.get("timeout_ms")),
        read=lambda value, _headers: read_execution(value),
    )


def stream(instance_id: str, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> Call[Never]:
    """The same for an answer of events."""
    return as_stream(execute(instance_id, command, **options))


def background(instance_id: str, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> Call[ExecutionInfo]:
    """The same for a command that is not waited for."""
    return Call(
        method="POST",
        path=_path(instance_id, "/exec"),
        headers=_exec_headers(options),
        body=encoded({**exec_members(command, **options), "background": True}),
        http_timeout_s=options.get("http_timeout_s"),
        default_http_timeout_s=patience_s(None),
        result_statuses=frozenset({202}),
        read=read_answer,
    )


def _exec_headers(options: ExecOptions) -> dict[str, str]:
    return given_headers({"x-request-id": options.get("request_id"), IDEMPOTENCY_KEY: options.get("idempotency_key")})


def stop(instance_id: str, grace_ms: int | None) -> Call[InstanceInfo]:
    """End its processes and keep its files."""
    return _change(instance_id, "/stop", {} if grace_ms is None else {"grace_ms": grace_ms})


def start(instance_id: str) -> Call[InstanceInfo]:
    """Make its sandbox again, over its files."""
    return _change(instance_id, "/start", {})


def pause(instance_id: str) -> Call[InstanceInfo]:
    """Stop its processes where they are."""
    return _change(instance_id, "/pause", {})


def resume(instance_id: str) -> Call[InstanceInfo]:
    """Let its processes go on."""
    return _change(instance_id, "/resume", {})


def set_timeout(
    instance_id: str, ttl_ms: int | Given | None, idle_timeout_ms: int | Given | None
) -> Call[InstanceInfo]:
    """Give it other times, from now on. None takes a time away."""
    asked = {"ttl_ms": ttl_ms, "idle_timeout_ms": idle_timeout_ms}
    return _change(instance_id, "/timeout", {name: ms for name, ms in asked.items() if ms is not Given.NOT})


def update(
    instance_id: str, memory_mb: int | None, cpu_cores: float | None, pids_limit: int | None
) -> Call[InstanceInfo]:
    """Give it other limits."""
    body = {"memory_mb": memory_mb, "cpu_cores": cpu_cores, "pids_limit": pids_limit}
    return Call(
        method="PATCH",
        path=_path(instance_id),
        body=encoded(body),
        default_http_timeout_s=CHANGE_TIMEOUT_S,
        read=_read,
    )


def metrics(instance_id: str) -> Call[InstanceMetrics]:
    """What it uses now."""
    return Call(method="GET", path=_path(instance_id, "/metrics"), read=_read_metrics)


def read_instance(members: Members) -> InstanceInfo:
    """An ``Instance``.

    Raises:
        DecodeError: it is not one.
    """
    return InstanceInfo(
        id=members.string("id"),
        name=members.optional_string("name"),
        image=members.string("image"),
        runtime=members.string("runtime"),
        status=members.string("status"),
        status_reason=members.optional_string("status_reason"),
        created_at=members.string("created_at"),
        cpu_cores=members.number("cpu_cores"),
        memory_mb=members.integer("memory_mb"),
        pids_limit=members.integer("pids_limit"),
        disk_mb=members.optional_integer("disk_mb"),
        network=members.string("network"),
        labels=members.string_map("labels"),
        parent_id=members.optional_string("parent_id"),
        snapshot_id=members.optional_string("snapshot_id"),
        ttl_ms=members.optional_integer("ttl_ms"),
        idle_timeout_ms=members.optional_integer("idle_timeout_ms"),
        expires_at=members.optional_string("expires_at"),
        on_timeout=members.string("on_timeout"),
        auto_resume=members.boolean("auto_resume"),
        main=_read_main(members.optional_child("main")),
        raw=members.raw,
    )


def _read_main(members: Members | None) -> MainInfo | None:
    if members is None:
        return None
    return MainInfo(
        command=None if members.raw.get("command") is None else members.words("command"),
        main=members.boolean("main"),
        restart=members.string("restart"),
        execution_id=members.optional_string("execution_id"),
        restarts=members.integer("restarts"),
    )


def _read(value: object, _headers: Mapping[str, str]) -> InstanceInfo:
    return read_instance(Members(value))


def _read_metrics(value: object, _headers: Mapping[str, str]) -> InstanceMetrics:
    members = Members(value)
    return InstanceMetrics(
        instance_id=members.string("instance_id"),
        status=members.string("status"),
        cpu_us=members.optional_integer("cpu_us"),
        memory_bytes=members.optional_integer("memory_bytes"),
        memory_peak_bytes=members.optional_integer("memory_peak_bytes"),
        memory_limit_bytes=members.integer("memory_limit_bytes"),
        pids=members.optional_integer("pids"),
        pids_limit=members.integer("pids_limit"),
        disk_bytes=members.optional_integer("disk_bytes"),
        network_received_bytes=members.optional_integer("network_received_bytes"),
        network_sent_bytes=members.optional_integer("network_sent_bytes"),
        raw=members.raw,
    )


def _change(instance_id: str, verb: str, body: Mapping[str, int | Given | None]) -> Call[InstanceInfo]:
    return Call(
        method="POST",
        path=_path(instance_id, verb),
        body=json.dumps(body).encode(),
        default_http_timeout_s=CHANGE_TIMEOUT_S,
        read=_read,
    )


def _path(instance_id: object, verb: str = "") -> str:
    return f"{PATH}/{segment('instance_id', instance_id)}{verb}"


def _label(key: str, value: str) -> str:
    """A label of a filter, in which a backslash stands before what is part of it and would divide it."""
    key, value = re.sub(r"[\\,=]", r"\\\g<0>", key), re.sub(r"[\\,]", r"\\\g<0>", value)
    return f"{key}={value}"
