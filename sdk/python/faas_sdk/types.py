"""What the gateway answers, and the one thing besides plain values that it is asked with: :class:`File`.

Data only; `_core` builds these from JSON. A newer gateway may add members: they are no error, and :attr:`raw`
of the outermost object has them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file put into the sandbox before the command runs."""

    path: str
    """Absolute, or relative to the working directory. Missing parents are made."""
    content: str | bytes
    """Its content; text is stored as UTF-8."""
    mode: int | str | None = None
    """Permission bits: a number (``0o755``) or octal digits (``"0755"``); the gateway's 0644 when not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of one execution went. Measured by the gateway, in microseconds."""

    queue_us: int
    """Waiting for a place among the executions that run at once."""
    create_us: int
    """Making the sandbox."""
    exec_us: int
    """Running the command, from the start of its process until its end was known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one execution used up, as the kernel or the engine counted it; None where nothing could tell."""

    cpu_us: int | None
    """CPU time of all of its processes, in microseconds."""
    memory_peak_bytes: int | None
    """The most memory that it held at once, page cache and tmpfs included, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteResult:
    """What one execution did. A command that fails is a result too: see :attr:`exit_code` and :attr:`ok`."""

    request_id: str
    """The id of the HTTP request."""
    execution_id: str
    """The id of this run."""
    exit_code: int
    """The exit code; 128 + n when signal n ended the command."""
    signal: str | None
    """The name of the signal that ended it (``"SIGKILL"``), or None."""
    stdout: str
    """Standard output. Where its bytes are not UTF-8, U+FFFD stands for them; :attr:`stdout_bytes` is exact."""
    stderr: str
    """Standard error, likewise."""
    stdout_base64: str | None = field(repr=False)
    """The exact bytes of standard output in base64, where they are not UTF-8."""
    stderr_base64: str | None = field(repr=False)
    """The exact bytes of standard error in base64, where they are not UTF-8."""
    stdout_truncated: bool
    """Whether standard output went on after ``max_output_bytes``."""
    stderr_truncated: bool
    """Whether standard error went on after ``max_output_bytes``."""
    duration_ms: int
    """Wall time of the command in milliseconds: whole, rounded up, at least 1."""
    timings: Timings
    """Where the time went."""
    runtime: str
    """The runtime that ran it."""
    image: str
    """The image it ran in."""
    usage: Usage
    """What it used up."""
    oom_killed: bool
    """Whether the kernel killed a process of the sandbox for want of memory."""
    error: str | None
    """None, or ``process exited with code N``."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole answer as it came, members unknown to this version included."""

    @property
    def ok(self) -> bool:
        """Whether the command exited with code 0."""
        return self.exit_code == 0

    @property
    def stdout_bytes(self) -> bytes:
        """Standard output, byte for byte."""
        return _exact_bytes(self.stdout, self.stdout_base64)

    @property
    def stderr_bytes(self) -> bytes:
        """Standard error, byte for byte."""
        return _exact_bytes(self.stderr, self.stderr_base64)

    @property
    def output(self) -> str:
        """The same as :attr:`stdout`."""
        return self.stdout

    @property
    def logs(self) -> str:
        """The same as :attr:`stderr`."""
        return self.stderr


def _exact_bytes(text: str, encoded: str | None) -> bytes:
    return text.encode() if encoded is None else base64.b64decode(encoded, validate=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedEvent:
    """The command runs: the first event of a stream."""

    request_id: str
    """The id of the HTTP request."""
    execution_id: str
    """The id of this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputEvent:
    """A piece of output, as it was written."""

    stream: Literal["stdout", "stderr"]
    """Which of the two."""
    offset: int
    """How many bytes of output came before it, of both streams together."""
    data: bytes
    """The piece, byte for byte."""
    is_text: bool
    """Whether it is UTF-8; no character is cut in two then."""

    @property
    def text(self) -> str:
        """The piece as text; U+FFFD stands for bytes that are not UTF-8."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class GapEvent:
    """Output that was lost, since this reader was too slow for it."""

    start: int
    """The offset of the first byte of it."""
    end: int
    """The offset after the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitEvent:
    """The command has ended: the last event. The same as in :class:`ExecuteResult`, but for the output."""

    request_id: str
    """The id of the HTTP request."""
    execution_id: str
    """The id of this run."""
    exit_code: int
    """The exit code; 128 + n when signal n ended the command."""
    signal: str | None
    """The name of the signal that ended it (``"SIGKILL"``), or None."""
    stdout_truncated: bool
    """Whether standard output went on after ``max_output_bytes``."""
    stderr_truncated: bool
    """Whether standard error went on after ``max_output_bytes``."""
    duration_ms: int
    """Wall time of the command in milliseconds: whole, rounded up, at least 1."""
    timings: Timings
    """Where the time went."""
    runtime: str
    """The runtime that ran it."""
    image: str
    """The image it ran in."""
    usage: Usage
    """What it used up."""
    oom_killed: bool
    """Whether the kernel killed a process of the sandbox for want of memory."""
    error: str | None
    """None, or ``process exited with code N``."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole event as it came, members unknown to this version included."""

    @property
    def ok(self) -> bool:
        """Whether the command exited with code 0."""
        return self.exit_code == 0


ExecuteEvent = StartedEvent | OutputEvent | GapEvent | ExitEvent
"""One event of :meth:`faas_sdk.client.FaaSClient.stream`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """The size of a terminal, in characters."""

    rows: int
    """Lines."""
    cols: int
    """Columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """An execution as the gateway tells of it."""

    execution_id: str
    """Its id."""
    instance_id: str
    """The instance that it runs in, or ran in."""
    kind: str
    """``command``, ``main`` (the main command of its instance) or ``terminal``."""
    status: str
    """``running``, ``exited``, ``timed_out``, ``cancelled``, ``failed`` (it could not be started) or ``lost`` (its
    sandbox or agent ended)."""
    status_reason: str | None
    """Why it stands there, or None."""
    command: str | tuple[str, ...]
    """What it runs."""
    background: bool
    """Whether it was started in the background."""
    tty: TerminalSize | None
    """Its terminal, or None."""
    labels: Mapping[str, str]
    """The caller's own words."""
    timeout_ms: int | None
    """Its timeout, or None."""
    created_at: str
    """When it was started (RFC 3339)."""
    ended_at: str | None
    """When it ended (RFC 3339), or None."""
    exit_code: int | None
    """Its exit code, 128 + n when signal n ended it; None while it has none."""
    signal: str | None
    """The name of the signal that ended it (``"SIGKILL"``), or None."""
    oom_killed: bool
    """Whether the kernel killed a process of its instance for want of memory while it ran."""
    stdout_truncated: bool
    """Whether not all of standard output was kept."""
    stderr_truncated: bool
    """Whether not all of standard error was kept."""
    duration_ms: int | None
    """Its wall time in milliseconds, or None while it runs."""
    error: str | None
    """None, or ``process exited with code N``."""
    first_offset: int
    """The offset of the first byte of its output that is still held."""
    next_offset: int
    """The offset after the last."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """All of it as it came, members unknown to this version included."""

    @property
    def ok(self) -> bool:
        """Whether it exited with code 0."""
        return self.exit_code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndEvent:
    """A lasting execution has ended: the last event of its stream."""

    execution_id: str
    """Its id."""
    exit_code: int | None
    """The exit code; 128 + n when signal n ended it."""
    signal: str | None
    """The name of the signal that ended it (``"SIGKILL"``), or None."""
    stdout_truncated: bool
    """Whether not all of standard output was kept."""
    stderr_truncated: bool
    """Whether not all of standard error was kept."""
    duration_ms: int | None
    """Its wall time in milliseconds."""
    oom_killed: bool
    """Whether the kernel killed a process of its instance for want of memory while it ran."""
    error: str | None
    """None, or ``process exited with code N``."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole event as it came, members unknown to this version included."""

    @property
    def ok(self) -> bool:
        """Whether it exited with code 0."""
        return self.exit_code == 0


ExecutionEvent = OutputEvent | GapEvent | EndEvent
"""One event of the stream of a lasting execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOutput:
    """What a lasting execution wrote, as far as it was held."""

    stdout: bytes
    """Standard output; of one with a terminal, all that it wrote."""
    stderr: bytes
    """Standard error."""
    gaps: tuple[GapEvent, ...]
    """What is missing in the middle."""

    @property
    def stdout_text(self) -> str:
        """Standard output as text; U+FFFD stands for bytes that are not UTF-8."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def stderr_text(self) -> str:
        """Standard error, likewise."""
        return self.stderr.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class MainInfo:
    """The main command of an instance."""

    command: str | tuple[str, ...] | None
    """What was asked for; None where it is the image's own command alone."""
    main: bool
    """Whether it is the image's own command (its entrypoint, with `command` as its arguments where there is one)."""
    restart: str
    """When it is run again after it ended: ``never``, ``on_failure`` or ``always``."""
    execution_id: str | None
    """Its newest run, or None."""
    restarts: int
    """How often it was run again since the instance was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A file in an instance, or a directory, or what else stands at a path."""

    path: str
    """Where it is. Where its name is not UTF-8, U+FFFD stands for that; :attr:`path_base64` is exact."""
    path_base64: str | None
    """The exact bytes of the path in base64, where they are not UTF-8."""
    name: str
    """The last part of the path."""
    type: str
    """``file``, ``directory``, ``symlink``, ``fifo``, ``socket``, ``block_device`` or ``char_device``."""
    size_bytes: int
    """Its size."""
    mode: str
    """Its permission bits in octal digits, such as ``0644``."""
    uid: int
    """Its owner."""
    gid: int
    """Its group."""
    owner: str | None
    """The owner's name in the instance, or None where it has none."""
    group: str | None
    """The group's name, likewise."""
    modified_at: str
    """When its content was last changed (RFC 3339)."""
    target: str | None
    """Where a symbolic link leads, or None."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """All of it as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedTar:
    """What came out of a tar archive."""

    files: int
    """How many entries."""
    bytes: int
    """How many bytes of content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvent:
    """Something that happened where a watch looks."""

    kind: str
    """``ready`` (the first: changes are seen from now on), ``created``, ``modified``, ``deleted``, ``moved``, or
    ``overflow`` (changes were missed)."""
    path: str | None
    """What it happened to; None for ``ready`` and ``overflow``."""
    moved_from: str | None
    """Where it was before it was moved, where that is known."""
    type: str | None
    """What it is: see :attr:`FileInfo.type`."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """All of it as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEvent:
    """Something that became of an instance or an execution."""

    seq: int
    """Its number; each is higher than the one before."""
    at: str
    """When it was (RFC 3339)."""
    kind: str
    """What: ``instance.running``, ``execution.ended``, ..."""
    subject: str
    """The id of the instance or the execution."""
    data: Mapping[str, Any]
    """What more is said of it."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """All of it as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A piece of output of an instance's main command, or something that became of the instance."""

    at: str
    """When it was (RFC 3339)."""
    type: str
    """``stdout``, ``stderr`` or ``event``."""
    execution_id: str | None
    """The run of the main command, or None."""
    data: bytes | None
    """The output, byte for byte; None for an event."""
    kind: str | None
    """What became of the instance, such as ``instance.running``; None for output."""
    reason: str | None
    """Why, or None."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """All of it as it came."""

    @property
    def text(self) -> str:
        """The output as text; U+FFFD stands for bytes that are not UTF-8. Empty for an event."""
        return (self.data or b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One member of a request that is not valid."""

    pointer: str
    """Where: a JSON Pointer (RFC 6901) into the body, ``""`` for the whole of it."""
    message: str
    """What is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Whether one thing is there."""

    supported: bool
    """Whether it is there."""
    detail: str
    """How it is done where it is there, or why it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSupport:
    """Which limits a runtime enforces."""

    memory: Support
    """``memory_mb``."""
    cpu: Support
    """``cpu_cores``."""
    pids: Support
    """``pids_limit``."""
    disk: Support
    """``disk_mb``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeCapabilities:
    """What one runtime can do on the gateway's host."""

    available: bool
    """Whether it can run a sandbox now."""
    reason: str | None
    """Why it cannot, or None."""
    features: Mapping[str, Support]
    """Optional abilities by name."""
    limits: LimitsSupport
    """Which limits are enforced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What every runtime can do on the gateway's host, probed by it."""

    default_runtime: str | None
    """The runtime that ``auto`` picks when nothing else is asked, or None where there is none."""
    default_image: str
    """The image that is used when none is named."""
    runtimes: Mapping[str, RuntimeCapabilities]
    """Every runtime, by name."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole answer as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeHealth:
    """One runtime in :class:`Health`."""

    available: bool
    """Whether it can run a sandbox now."""
    reason: str | None
    """Why it cannot, or None."""
    unenforced_limits: tuple[str, ...]
    """Limits that are not enforced there, each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """Where the gateway keeps what lasts, in :class:`Health`."""

    kind: str
    """The kind of database: ``sqlite`` or ``postgresql``."""
    available: bool
    """Whether it answers now. Without it executions run; what needs it is refused as ``overloaded``."""
    reason: str | None
    """Why it does not, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the gateway says of itself."""

    status: str
    """``healthy``, ``degraded`` or ``unhealthy``."""
    version: str
    """The gateway's version."""
    uptime_ms: int
    """Milliseconds since it started."""
    runtimes: Mapping[str, RuntimeHealth]
    """Every runtime, by name."""
    store: StoreHealth
    """Where it keeps what lasts."""
    docker: bool
    """Whether the runtime ``docker`` is available."""
    firecracker: bool
    """Whether the runtime ``firecracker`` is available."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole answer as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """Versions of the gateway and of what it speaks."""

    version: str
    """The gateway's version."""
    api: str
    """The version of the HTTP contract."""
    guest_protocol: int
    """The version of the frames spoken with the guest agent."""
    guest_agent: str
    """The digest of the guest agent that the gateway puts into sandboxes."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole answer as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """One image of the gateway's store."""

    id: str
    """The digest of its configuration: ``sha256:`` and 64 digits. Can be used wherever a name can."""
    names: tuple[str, ...]
    """Its names, whole: ``docker.io/library/alpine:latest``."""
    repo_digests: tuple[str, ...]
    """``REGISTRY/REPOSITORY@DIGEST`` of what it was pulled from."""
    architecture: str
    """The processor that it is for, in Go's words: ``amd64``, ``arm64``."""
    created_at: str | None
    """When it was built, as the image says it (RFC 3339), or None."""
    size_bytes: int
    """Disk that it takes, in bytes, layers that other images have too included."""
    layers: int
    """How many layers it has."""
    added_at: str
    """When it came to the store (RFC 3339)."""
    last_used_at: str
    """When it was last used, to a minute (RFC 3339)."""
    in_use: bool
    """Whether a sandbox uses it now; it cannot be removed then."""
    env_vars: Mapping[str, str]
    """Environment variables of its programs."""
    working_dir: str
    """Where its programs start."""
    user: str
    """As whom its programs run: ``user``, ``uid``, ``user:group``, or empty for root."""
    entrypoint: tuple[str, ...]
    """Its main program with the first arguments."""
    cmd: tuple[str, ...]
    """The main program's arguments, or the main program where there is no entrypoint."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """All of it as it came, members unknown to this version included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProgress:
    """How far a pull or an import has come. Steps of one layer come in order, those of several layers mixed."""

    phase: str
    """What is being done: ``resolving``, ``receiving``, ``unpacking``, ``present`` (the layer was there already),
    ``unpacked``, ``merging`` or ``committing``; a newer gateway may have others."""
    layer: str | None
    """The digest of the layer that it is about, or None."""
    done_bytes: int
    """Bytes that have come, as they come: compressed."""
    total_bytes: int | None
    """How many there are, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """One instance, as the gateway told of it."""

    id: str
    """Its id. Also its host name."""
    name: str | None
    """The caller's name for it, or None."""
    image: str
    """The image it was made from."""
    runtime: str
    """The runtime it is on."""
    status: str
    """Where it stands: ``creating``, ``running``, ``paused``, ``stopping``, ``stopped`` or ``failed``."""
    status_reason: str | None
    """Why it stands there, where that does not go without saying."""
    created_at: str
    """When it was asked for (RFC 3339)."""
    cpu_cores: float
    """CPU limit in cores."""
    memory_mb: int
    """Memory limit in MiB."""
    pids_limit: int
    """The most processes and threads at once."""
    disk_mb: int | None
    """Disk limit in MiB, where one was asked for."""
    network: str
    """What its commands can reach."""
    labels: Mapping[str, str]
    """The caller's own words."""
    parent_id: str | None
    """The instance that it is a branch of, or None."""
    snapshot_id: str | None
    """The snapshot that it was made from, or None."""
    ttl_ms: int | None
    """How long it is there, in milliseconds, as it was last set, or None."""
    idle_timeout_ms: int | None
    """How long it may be idle, in milliseconds, or None."""
    expires_at: str | None
    """When its time is over (RFC 3339): the earlier of both limits as things stand now, or None."""
    on_timeout: str
    """What becomes of it then: ``delete`` or ``pause``."""
    auto_resume: bool
    """Whether a command for it resumes it when it is paused."""
    main: MainInfo | None
    """Its main command, or None."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """All of it as it came, members unknown to this version included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMetrics:
    """What an instance uses now; None where its runtime does not tell, or where it does not run."""

    instance_id: str
    """Its id."""
    status: str
    """Where it stands."""
    cpu_us: int | None
    """CPU time of all of its processes since it was created or started, in microseconds."""
    memory_bytes: int | None
    """Memory that it holds, page cache and tmpfs included."""
    memory_peak_bytes: int | None
    """The most that it held at once."""
    memory_limit_bytes: int
    """Its memory limit."""
    pids: int | None
    """Processes and threads."""
    pids_limit: int
    """The most of them at once."""
    disk_bytes: int | None
    """What its files take, those of its image aside."""
    network_received_bytes: int | None
    """Bytes that came in over its network, loopback aside."""
    network_sent_bytes: int | None
    """Bytes that went out."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole answer as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Something on the gateway's host that bears its mark and belongs to nobody."""

    runtime: str
    """The runtime that it comes from."""
    kind: str
    """What it is: ``cgroup``, ``process``, ``directory``, ``container``, ..."""
    name: str
    """Its path, number or name on the host."""
