"""What a caller can set: the options of executions and instances, an archive to import, the policy of retries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, runtime_checkable

from faas_sdk.types import File, TerminalSize

RuntimeChoice = Literal["auto", "native", "docker", "firecracker"]
"""The runtime a caller asks for."""

Network = Literal["none", "egress"]
"""What a sandbox can reach: itself over loopback, or connections to the outside."""


OnTimeout = Literal["delete", "pause"]
"""What becomes of an instance whose time is over."""

Restart = Literal["never", "on_failure", "always"]
"""When an instance's main command is run again after it ended."""

InstanceStatus = Literal["creating", "running", "paused", "stopping", "stopped", "failed"]
"""Where an instance stands."""


class ExecuteOptions(TypedDict, total=False):
    """The keyword arguments of ``execute``. None is the same as not given: the gateway's default applies."""

    image: str | None
    """The image whose files the sandbox starts from."""
    runtime: RuntimeChoice | None
    """The runtime to use."""
    env_vars: Mapping[str, str] | None
    """Environment variables, added to those of the image."""
    working_dir: str | None
    """The working directory; it must exist in the sandbox."""
    user: str | None
    """The user: a name, ``uid`` or ``uid:gid``."""
    stdin: str | bytes | None
    """Standard input."""
    files: Mapping[str, str | bytes] | Sequence[File] | None
    """Files put into the sandbox before the command runs: path to content, or :class:`File` objects."""
    secrets: Mapping[str, str] | None
    """Secrets: each appears as the file ``/run/secrets/NAME``, readable by the command's user alone."""
    timeout_ms: int | None
    """Wall time of the command in milliseconds; the gateway's default is 30000."""
    memory_mb: int | None
    """Memory limit in MiB."""
    cpu_cores: float | None
    """CPU limit in cores; fractions are allowed."""
    pids_limit: int | None
    """The most processes and threads at once."""
    disk_mb: int | None
    """Disk limit in MiB."""
    network: Network | None
    """What the command can reach."""
    max_output_bytes: int | None
    """How many bytes are kept of each of stdout and stderr; the rest is read and dropped."""
    labels: Mapping[str, str] | None
    """Free words for the caller's own use; they appear in the gateway's log."""
    request_id: str | None
    """The id of this request, sent as ``x-request-id``; the gateway makes one when not given."""
    idempotency_key: str | None
    """With it the same call has its effect once, however often it is sent: what is sent again gets the first answer.
    1 to 255 visible ASCII characters; another call with the same key is refused."""
    http_timeout_s: float | None
    """The longest wait in seconds for the gateway's answer; the client's, or ``timeout_ms`` plus 60 s."""


class CreateInstanceOptions(TypedDict, total=False):
    """The keyword arguments of ``instances.create``. None is the same as not given: the gateway's default applies."""

    image: str | None
    """The image whose files it starts from."""
    name: str | None
    """A name of the caller's own: letters, digits, ``-``, ``_`` and ``.``; no two instances have the same."""
    runtime: RuntimeChoice | None
    """The runtime to use."""
    env_vars: Mapping[str, str] | None
    """Environment variables of every command in it, added to those of the image."""
    working_dir: str | None
    """The working directory of every command."""
    user: str | None
    """The user of every command: a name, ``uid`` or ``uid:gid``."""
    files: Mapping[str, str | bytes] | Sequence[File] | None
    """Files put into it before anything runs: path to content, or :class:`File` objects."""
    memory_mb: int | None
    """Memory limit in MiB."""
    cpu_cores: float | None
    """CPU limit in cores; fractions are allowed."""
    pids_limit: int | None
    """The most processes and threads at once."""
    disk_mb: int | None
    """Disk limit in MiB."""
    network: Network | None
    """What its commands can reach."""
    ttl_ms: int | None
    """How long it is there, in milliseconds from its creation; without one until it is deleted."""
    idle_timeout_ms: int | None
    """How long it may be idle, in milliseconds: running, and no request is about it."""
    on_timeout: OnTimeout | None
    """What becomes of it when one of these times is over; the gateway's default is ``delete``."""
    auto_resume: bool | None
    """Whether a command for it resumes it when it is paused."""
    command: str | Sequence[str] | None
    """Its main command, which runs from its start on: a string is run by ``/bin/sh -c``."""
    main: bool | None
    """Whether the image's own command (Entrypoint and Cmd) is the main command; ``command`` then replaces its Cmd."""
    restart: Restart | None
    """When the main command is run again after it ended; the gateway's default is ``never``."""
    labels: Mapping[str, str] | None
    """Free words for the caller's own use; the list can be asked for them."""
    idempotency_key: str | None
    """1 to 255 visible ASCII characters: however often the same call is made with it, there is one instance."""
    http_timeout_s: float | None
    """The longest wait in seconds for the gateway's answer; the client's, or 1860 s, since its image may be pulled."""


class ExecOptions(TypedDict, total=False):
    """The keyword arguments of ``instances.exec``. None is the same as not given: the instance's default applies."""

    env_vars: Mapping[str, str] | None
    """Environment variables, added to those of the instance."""
    working_dir: str | None
    """The working directory; it must exist in the instance."""
    user: str | None
    """The user: a name, ``uid`` or ``uid:gid``."""
    stdin: str | bytes | None
    """Standard input."""
    files: Mapping[str, str | bytes] | Sequence[File] | None
    """Files put into the instance before the command runs: path to content, or :class:`File` objects."""
    secrets: Mapping[str, str] | None
    """Secrets: each appears as the file ``/run/secrets/NAME``, readable by the command's user alone."""
    timeout_ms: int | None
    """Wall time of the command in milliseconds, while the instance is not paused; the gateway's default is 30000, and
    none for a command in the background."""
    max_output_bytes: int | None
    """How many bytes are kept of each of stdout and stderr; the rest is read and dropped. For a command in
    the background there is no limit where none is given: of too much output the newest part is held."""
    keep_running: bool | None
    """Whether the command goes on when its caller goes away; it can be found again by its id."""
    stdin_open: bool | None
    """Whether standard input stays open for :meth:`Execution.input`; for a command in the background, or one that is
    kept running."""
    tty: TerminalSize | None
    """The size of a terminal that the command gets; for one in the background."""
    labels: Mapping[str, str] | None
    """Free words for the caller's own use; they appear in the gateway's log."""
    request_id: str | None
    """The id of this request, sent as ``x-request-id``; the gateway makes one when not given."""
    idempotency_key: str | None
    """With it the same call has its effect once, however often it is sent: what is sent again gets the first answer.
    1 to 255 visible ASCII characters; another call with the same key is refused."""
    http_timeout_s: float | None
    """The longest wait in seconds for the gateway's answer; the client's, or ``timeout_ms`` plus 60 s."""


@runtime_checkable
class Reader(Protocol):
    """Something to read bytes from: a file opened with mode ``"rb"``, a pipe, a socket's file."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


UploadSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Reader | Iterable[bytes]
"""What a file is written from: the path of a file of this machine, bytes, or something to read them from."""

AsyncUploadSource = UploadSource | AsyncIterable[bytes]
"""The same with the asyncio client."""

ArchiveSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Reader
"""An archive: the path of one, its bytes, or something to read it from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently a call is tried again.

    Only what is safe is tried again: a connection that was never made, a refusal to start
    (503 ``overloaded``; 429 with ``Retry-After``), and for GETs, ``instances.delete``, ``cancel`` of an execution,
    ``files.write``, ``files.mkdir`` and calls with an ``idempotency_key`` also a lost connection and 502, 503, 504 (but
    for ``execution_timeout``). Another execution that may have begun is never sent twice, nor is what changes an
    instance, nor what comes from a :class:`Reader` or an iterator.

    A stream that can be taken up again (of a lasting execution, of the gateway's events) is tried as often after each
    of its events.
    """

    max_retries: int = 2
    """The most attempts after the first; 0 switches retries off."""
    initial_backoff_s: float = 0.2
    """The wait before the first retry where the gateway names none; doubled for each further one, half of it random."""
    max_backoff_s: float = 5.0
    """The longest such wait."""
    max_retry_after_s: float = 30.0
    """The longest ``Retry-After`` that is waited for; where the gateway asks for more, the error is raised."""

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ValueError(f"max_retries is {self.max_retries}, which is negative")
        for name in ("initial_backoff_s", "max_backoff_s", "max_retry_after_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, which is not a wait in seconds")
