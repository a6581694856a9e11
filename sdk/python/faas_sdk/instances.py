"""Sandboxes that outlive one request: the attribute ``instances`` of the two clients. Same verbs, same arguments.

A verb takes an instance's id, or is called on the :class:`Instance` that ``create``, ``get`` and ``list`` give.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from faas_sdk._core.execute_events import ExecuteEvents
from faas_sdk._core.operations import events, executions, instances, terminals
from faas_sdk._core.operations.instances import Given
from faas_sdk._transport.aio import AsyncTransport
from faas_sdk._transport.blocking import BlockingTransport
from faas_sdk.executions import AsyncExecution, Execution
from faas_sdk.files import AsyncFiles, Files
from faas_sdk.options import CreateInstanceOptions, ExecOptions, InstanceStatus
from faas_sdk.terminals import AsyncTerminal, Terminal, connected
from faas_sdk.types import ExecuteEvent, ExecuteResult, InstanceInfo, InstanceMetrics, LogEntry, MainInfo

__all__ = ["AsyncInstance", "AsyncInstances", "Instance", "Instances"]


class _Told:
    """What was last told of an instance."""

    def __init__(self, info: InstanceInfo) -> None:
        self.info = info
        """All that the gateway said of it, at the last call that told of it."""

    @property
    def id(self) -> str:
        """Its id. Also its host name."""
        return self.info.id

    @property
    def name(self) -> str | None:
        """The caller's name for it, or None."""
        return self.info.name

    @property
    def status(self) -> str:
        """Where it stood at the last call that told of it: see :attr:`InstanceInfo.status`."""
        return self.info.status

    @property
    def labels(self) -> Mapping[str, str]:
        """The caller's own words."""
        return self.info.labels

    @property
    def main(self) -> MainInfo | None:
        """Its main command, as it was at the last call that told of it; None where it has none."""
        return self.info.main

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"{type(self).__name__}(id={self.id!r}{name}, status={self.status!r})"


class Instance(_Told):
    """One instance of a :class:`faas_sdk.client.FaaSClient`.

    In a ``with`` statement it is deleted at the end of it.
    """

    def __init__(self, transport: BlockingTransport, info: InstanceInfo) -> None:
        super().__init__(info)
        self._transport = transport
        self.files = Files(transport, info.id)
        """Its files."""

    @overload
    def exec(
        self, command: str | Sequence[str], *, background: Literal[False] = False, **options: Unpack[ExecOptions]
    ) -> ExecuteResult: ...

    @overload
    def exec(
        self, command: str | Sequence[str], *, background: Literal[True], **options: Unpack[ExecOptions]
    ) -> Execution: ...

    @overload
    def exec(
        self, command: str | Sequence[str], *, background: bool, **options: Unpack[ExecOptions]
    ) -> ExecuteResult | Execution: ...

    def exec(
        self, command: str | Sequence[str], *, background: bool = False, **options: Unpack[ExecOptions]
    ) -> ExecuteResult | Execution:
        """Runs one command in it; see :meth:`Instances.exec`."""
        if background:
            call = instances.background(self.id, command, **options)
            return Execution(self._transport, self._transport.send(call))
        return self._transport.send(instances.execute(self.id, command, **options))

    def stream(self, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> Generator[ExecuteEvent]:
        """See :meth:`Instances.stream`."""
        return self._transport.stream(ExecuteEvents(instances.stream(self.id, command, **options)))

    def executions(self, *, limit: int | None = None) -> tuple[Execution, ...]:
        """See :meth:`Instances.executions`."""
        listing = executions.listing(self.id, limit)
        while (call := listing.next_call()) is not None:
            listing.add(self._transport.send(call))
        return tuple(Execution(self._transport, info) for info in listing.entries())

    @overload
    def logs(self, *, tail: int | None = None, follow: Literal[False] = False) -> tuple[LogEntry, ...]: ...

    @overload
    def logs(self, *, tail: int | None = None, follow: Literal[True]) -> Generator[LogEntry]: ...

    def logs(self, *, tail: int | None = None, follow: bool = False) -> tuple[LogEntry, ...] | Generator[LogEntry]:
        """See :meth:`Instances.logs`."""
        if follow:
            return self._transport.stream(events.LogEntries(self.id, tail))
        return self._transport.send(events.logs(self.id, tail))

    def pty(
        self,
        *,
        rows: int = 24,
        cols: int = 80,
        command: str | None = None,
        user: str | None = None,
        working_dir: str | None = None,
        execution_id: str | None = None,
        offset: int | None = None,
    ) -> Terminal:
        """See :meth:`Instances.pty`."""
        path = terminals.path(self.id, rows, cols, command, user, working_dir, execution_id, offset)
        return Terminal(self._transport.config, self.id, path)

    def stop(self, *, grace_ms: int | None = None) -> Self:
        """Ends its processes and keeps its files; see :meth:`Instances.stop`."""
        return self._now(self._transport.send(instances.stop(self.id, grace_ms)))

    def start(self) -> Self:
        """Makes its sandbox again, over its files; see :meth:`Instances.start`."""
        return self._now(self._transport.send(instances.start(self.id)))

    def pause(self) -> Self:
        """Stops its processes where they are; see :meth:`Instances.pause`."""
        return self._now(self._transport.send(instances.pause(self.id)))

    def resume(self) -> Self:
        """Lets its processes go on; see :meth:`Instances.resume`."""
        return self._now(self._transport.send(instances.resume(self.id)))

    def set_timeout(
        self, *, ttl_ms: int | Given | None = Given.NOT, idle_timeout_ms: int | Given | None = Given.NOT
    ) -> Self:
        """Gives it other times, from now on; see :meth:`Instances.set_timeout`."""
        return self._now(self._transport.send(instances.set_timeout(self.id, ttl_ms, idle_timeout_ms)))

    def update(
        self, *, memory_mb: int | None = None, cpu_cores: float | None = None, pids_limit: int | None = None
    ) -> Self:
        """Gives it other limits; see :meth:`Instances.update`."""
        return self._now(self._transport.send(instances.update(self.id, memory_mb, cpu_cores, pids_limit)))

    def metrics(self) -> InstanceMetrics:
        """What it uses now."""
        return self._transport.send(instances.metrics(self.id))

    def refresh(self) -> Self:
        """Asks the gateway for it once more."""
        return self._now(self._transport.send(instances.get(self.id)))

    def delete(self) -> None:
        """Removes it with its files, whatever its status; see :meth:`Instances.delete`."""
        self._transport.send(instances.delete(self.id))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.delete()

    def _now(self, info: InstanceInfo) -> Self:
        self.info = info
        return self


class Instances:
    """The instances of a :class:`faas_sdk.client.FaaSClient`."""

    def __init__(self, transport: BlockingTransport) -> None:
        self._transport = transport

    def create(self, **options: Unpack[CreateInstanceOptions]) -> Instance:
        """Makes an instance and returns when commands can be run in it.

        It is there until it is deleted or its time is over, whatever becomes of the client and of the gateway. Where
        no answer comes it may have been made.

        Args:
            **options: see :class:`faas_sdk.options.CreateInstanceOptions`.

        Raises:
            ConflictError: another one has this ``name``.
            QuotaExceededError: there are as many as the gateway keeps.
            APIError: another error of the gateway; a subclass for each code.
            TransportError: no answer came.
        """
        return self._told(self._transport.send(instances.create(**options)))

    def list(
        self,
        *,
        status: InstanceStatus | Sequence[InstanceStatus] | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> tuple[Instance, ...]:
        """The instances, the newest first, however many pages they take.

        Args:
            status: only those that stand there, or at one of these.
            labels: only those with all of these labels.
            limit: the most instances to tell of; all of them when not given.

        Raises:
            ValueError: a label has ``,`` in it, or its key has ``=``.
        """
        listing = instances.listing(status, labels, limit)
        while (call := listing.next_call()) is not None:
            listing.add(self._transport.send(call))
        return tuple(self._told(info) for info in listing.entries())

    def get(self, instance_id: str) -> Instance:
        """One instance.

        Raises:
            NotFoundError: there is none of that id.
        """
        return self._told(self._transport.send(instances.get(instance_id)))

    @overload
    def exec(
        self,
        instance_id: str,
        command: str | Sequence[str],
        *,
        background: Literal[False] = False,
        **options: Unpack[ExecOptions],
    ) -> ExecuteResult: ...

    @overload
    def exec(
        self,
        instance_id: str,
        command: str | Sequence[str],
        *,
        background: Literal[True],
        **options: Unpack[ExecOptions],
    ) -> Execution: ...

    @overload
    def exec(
        self, instance_id: str, command: str | Sequence[str], *, background: bool, **options: Unpack[ExecOptions]
    ) -> ExecuteResult | Execution: ...

    def exec(
        self,
        instance_id: str,
        command: str | Sequence[str],
        *,
        background: bool = False,
        **options: Unpack[ExecOptions],
    ) -> ExecuteResult | Execution:
        """Runs one command in an instance and returns when it has ended. What it started in the background runs on.

        With ``background=True`` it returns at once, with the :class:`faas_sdk.executions.Execution` that it is: that
        has no timeout unless one is given, and goes on whatever becomes of the client and of the gateway.

        Args:
            instance_id: the instance's id.
            command: a string is run by ``/bin/sh -c``; a sequence of strings is executed as it is.
            background: whether it is not waited for.
            **options: see :class:`faas_sdk.options.ExecOptions`.

        Raises:
            ExecutionTimeoutError: the command was still running at ``timeout_ms``; has its output so far.
            ConflictError: the instance does not run; ``detail`` says where it stands and what it can be asked.
            SandboxLostError: the instance ended under the command, or was stopped or deleted.
            NotFoundError: there is none of that id.
            APIError: another error of the gateway; a subclass for each code.
            TransportError: no answer came.
        """
        if background:
            return Execution(
                self._transport, self._transport.send(instances.background(instance_id, command, **options))
            )
        return self._transport.send(instances.execute(instance_id, command, **options))

    def stream(
        self, instance_id: str, command: str | Sequence[str], **options: Unpack[ExecOptions]
    ) -> Generator[ExecuteEvent]:
        """Runs one command in an instance and gives its output while it runs.

        As :meth:`faas_sdk.client.FaaSClient.stream`: closing it before its end ends the command, unless it is one with
        ``keep_running``.

        Args:
            instance_id: the instance's id.
            command: as for :meth:`exec`.
            **options: as for :meth:`exec`.
        """
        return self._transport.stream(ExecuteEvents(instances.stream(instance_id, command, **options)))

    def executions(self, instance_id: str, *, limit: int | None = None) -> tuple[Execution, ...]:
        """The lasting executions of an instance, the newest first, however many pages they take.

        These are what was started in the background or with ``keep_running``, terminals, and runs of the main command.

        Args:
            instance_id: the instance's id.
            limit: the most executions to tell of; all of them when not given.
        """
        listing = executions.listing(instance_id, limit)
        while (call := listing.next_call()) is not None:
            listing.add(self._transport.send(call))
        return tuple(Execution(self._transport, info) for info in listing.entries())

    @overload
    def logs(
        self, instance_id: str, *, tail: int | None = None, follow: Literal[False] = False
    ) -> tuple[LogEntry, ...]: ...

    @overload
    def logs(self, instance_id: str, *, tail: int | None = None, follow: Literal[True]) -> Generator[LogEntry]: ...

    def logs(
        self, instance_id: str, *, tail: int | None = None, follow: bool = False
    ) -> tuple[LogEntry, ...] | Generator[LogEntry]:
        """What became of an instance and what its main command wrote, by time.

        Args:
            instance_id: the instance's id.
            tail: only so many, the newest; all that is kept when not given.
            follow: whether what comes later is waited for: an iterator of entries, which ends with the instance.
        """
        if follow:
            return self._transport.stream(events.LogEntries(instance_id, tail))
        return self._transport.send(events.logs(instance_id, tail))

    def pty(
        self,
        instance_id: str,
        *,
        rows: int = 24,
        cols: int = 80,
        command: str | None = None,
        user: str | None = None,
        working_dir: str | None = None,
        execution_id: str | None = None,
        offset: int | None = None,
    ) -> Terminal:
        """Opens a terminal in an instance, or connects to one that is there.

        What runs in it goes on when the connection ends, and is an execution like others:
        ``client.executions.cancel(terminal.execution_id)`` ends it.

        Args:
            instance_id: the instance's id.
            rows: its lines.
            cols: its columns.
            command: what runs in it; a login shell when not given.
            user: as whom.
            working_dir: where.
            execution_id: the one to connect to; what is above is of no account then.
            offset: the byte of its output to begin with; the first one that is still held when not given.

        Raises:
            ConflictError: the instance does not run.
            GoneError: output from `offset` on is no longer held; has ``first_offset``.
            NotFoundError: there is no such instance, or no such terminal.
        """
        path = terminals.path(instance_id, rows, cols, command, user, working_dir, execution_id, offset)
        return Terminal(self._transport.config, instance_id, path)

    def files(self, instance_id: str) -> Files:
        """The files of an instance."""
        return Files(self._transport, instance_id)

    def stop(self, instance_id: str, *, grace_ms: int | None = None) -> Instance:
        """Ends its processes and keeps its files, those in memory aside. Nothing is done to one that is stopped.

        Args:
            instance_id: the instance's id.
            grace_ms: how long its processes have after SIGTERM until they are killed: at most 60000; the gateway's
                default is 5000. 0 kills them at once.

        Raises:
            ConflictError: it is neither running nor paused.
        """
        return self._told(self._transport.send(instances.stop(instance_id, grace_ms)))

    def start(self, instance_id: str) -> Instance:
        """Makes its sandbox again, over its files. No process of before is there.

        Raises:
            ConflictError: it is neither stopped nor failed nor running.
            SandboxLostError: its files are not there any more.
        """
        return self._told(self._transport.send(instances.start(instance_id)))

    def pause(self, instance_id: str) -> Instance:
        """Stops its processes where they are; they use no CPU time. Nothing is done to one that is paused.

        Raises:
            ConflictError: it is not running.
        """
        return self._told(self._transport.send(instances.pause(instance_id)))

    def resume(self, instance_id: str) -> Instance:
        """Lets its processes go on. Nothing is done to one that runs.

        Raises:
            ConflictError: it is not paused.
        """
        return self._told(self._transport.send(instances.resume(instance_id)))

    def delete(self, instance_id: str) -> None:
        """Removes it with its files, whatever its status. Once more is no error.

        Returns when nothing of it is left. Where that takes the gateway longer than nine seconds it returns then, and
        the gateway goes on until nothing is left.

        Raises:
            NotFoundError: there never was one of that id.
        """
        self._transport.send(instances.delete(instance_id))

    def set_timeout(
        self,
        instance_id: str,
        *,
        ttl_ms: int | Given | None = Given.NOT,
        idle_timeout_ms: int | Given | None = Given.NOT,
    ) -> Instance:
        """Gives it other times, both counted from now on.

        Args:
            instance_id: the instance's id.
            ttl_ms: how long it is still there, in milliseconds; None: until it is deleted. Stays when not given.
            idle_timeout_ms: how long it may be idle, in milliseconds; None: for ever. Stays when not given.
        """
        return self._told(self._transport.send(instances.set_timeout(instance_id, ttl_ms, idle_timeout_ms)))

    def update(
        self,
        instance_id: str,
        *,
        memory_mb: int | None = None,
        cpu_cores: float | None = None,
        pids_limit: int | None = None,
    ) -> Instance:
        """Gives one that runs other limits, all of them or none. What is not given stays.

        Args:
            instance_id: the instance's id.
            memory_mb: memory limit in MiB; not below what is in use.
            cpu_cores: CPU limit in cores.
            pids_limit: the most processes and threads at once.

        Raises:
            ConflictError: it is not running.
        """
        return self._told(self._transport.send(instances.update(instance_id, memory_mb, cpu_cores, pids_limit)))

    def metrics(self, instance_id: str) -> InstanceMetrics:
        """What it uses now."""
        return self._transport.send(instances.metrics(instance_id))

    def _told(self, info: InstanceInfo) -> Instance:
        return Instance(self._transport, info)


class AsyncInstance(_Told):
    """One instance of a :class:`faas_sdk.client.AsyncFaaSClient`.

    In an ``async with`` statement it is deleted at the end of it.
    """

    def __init__(self, transport: AsyncTransport, info: InstanceInfo) -> None:
        super().__init__(info)
        self._transport = transport
        self.files = AsyncFiles(transport, info.id)
        """Its files."""

    @overload
    async def exec(
        self, command: str | Sequence[str], *, background: Literal[False] = False, **options: Unpack[ExecOptions]
    ) -> ExecuteResult: ...

    @overload
    async def exec(
        self, command: str | Sequence[str], *, background: Literal[True], **options: Unpack[ExecOptions]
    ) -> AsyncExecution: ...

    @overload
    async def exec(
        self, command: str | Sequence[str], *, background: bool, **options: Unpack[ExecOptions]
    ) -> ExecuteResult | AsyncExecution: ...

    async def exec(
        self, command: str | Sequence[str], *, background: bool = False, **options: Unpack[ExecOptions]
    ) -> ExecuteResult | AsyncExecution:
        """See :meth:`Instances.exec`."""
        if background:
            return AsyncExecution(
                self._transport, await self._transport.send(instances.background(self.id, command, **options))
            )
        return await self._transport.send(instances.execute(self.id, command, **options))

    def stream(self, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> AsyncGenerator[ExecuteEvent]:
        """See :meth:`Instances.stream`."""
        return self._transport.stream(ExecuteEvents(instances.stream(self.id, command, **options)))

    async def executions(self, *, limit: int | None = None) -> tuple[AsyncExecution, ...]:
        """See :meth:`Instances.executions`."""
        listing = executions.listing(self.id, limit)
        while (call := listing.next_call()) is not None:
            listing.add(await self._transport.send(call))
        return tuple(AsyncExecution(self._transport, info) for info in listing.entries())

    @overload
    def logs(
        self, *, tail: int | None = None, follow: Literal[False] = False
    ) -> Coroutine[Any, Any, tuple[LogEntry, ...]]: ...

    @overload
    def logs(self, *, tail: int | None = None, follow: Literal[True]) -> AsyncGenerator[LogEntry]: ...

    def logs(
        self, *, tail: int | None = None, follow: bool = False
    ) -> Coroutine[Any, Any, tuple[LogEntry, ...]] | AsyncGenerator[LogEntry]:
        """See :meth:`Instances.logs`."""
        if follow:
            return self._transport.stream(events.LogEntries(self.id, tail))
        return self._transport.send(events.logs(self.id, tail))

    async def pty(
        self,
        *,
        rows: int = 24,
        cols: int = 80,
        command: str | None = None,
        user: str | None = None,
        working_dir: str | None = None,
        execution_id: str | None = None,
        offset: int | None = None,
    ) -> AsyncTerminal:
        """See :meth:`Instances.pty`."""
        path = terminals.path(self.id, rows, cols, command, user, working_dir, execution_id, offset)
        return await connected(self._transport.config, self.id, path)

    async def stop(self, *, grace_ms: int | None = None) -> Self:
        """See :meth:`Instances.stop`."""
        return self._now(await self._transport.send(instances.stop(self.id, grace_ms)))

    async def start(self) -> Self:
        """See :meth:`Instances.start`."""
        return self._now(await self._transport.send(instances.start(self.id)))

    async def pause(self) -> Self:
        """See :meth:`Instances.pause`."""
        return self._now(await self._transport.send(instances.pause(self.id)))

    async def resume(self) -> Self:
        """See :meth:`Instances.resume`."""
        return self._now(await self._transport.send(instances.resume(self.id)))

    async def set_timeout(
        self, *, ttl_ms: int | Given | None = Given.NOT, idle_timeout_ms: int | Given | None = Given.NOT
    ) -> Self:
        """See :meth:`Instances.set_timeout`."""
        return self._now(await self._transport.send(instances.set_timeout(self.id, ttl_ms, idle_timeout_ms)))

    async def update(
        self, *, memory_mb: int | None = None, cpu_cores: float | None = None, pids_limit: int | None = None
    ) -> Self:
        """See :meth:`Instances.update`."""
        return self._now(await self._transport.send(instances.update(self.id, memory_mb, cpu_cores, pids_limit)))

    async def metrics(self) -> InstanceMetrics:
        """See :meth:`Instances.metrics`."""
        return await self._transport.send(instances.metrics(self.id))

    async def refresh(self) -> Self:
        """See :meth:`Instance.refresh`."""
        return self._now(await self._transport.send(instances.get(self.id)))

    async def delete(self) -> None:
        """See :meth:`Instances.delete`."""
        await self._transport.send(instances.delete(self.id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.delete()

    def _now(self, info: InstanceInfo) -> Self:
        self.info = info
        return self


class AsyncInstances:
    """The instances of a :class:`faas_sdk.client.AsyncFaaSClient`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, **options: Unpack[CreateInstanceOptions]) -> AsyncInstance:
        """See :meth:`Instances.create`. Cancelling it does not end what the gateway has begun to make."""
        return self._told(await self._transport.send(instances.create(**options)))

    async def list(
        self,
        *,
        status: InstanceStatus | Sequence[InstanceStatus] | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> tuple[AsyncInstance, ...]:
        """See :meth:`Instances.list`."""
        listing = instances.listing(status, labels, limit)
        while (call := listing.next_call()) is not None:
            listing.add(await self._transport.send(call))
        return tuple(self._told(info) for info in listing.entries())

    async def get(self, instance_id: str) -> AsyncInstance:
        """See :meth:`Instances.get`."""
        return self._told(await self._transport.send(instances.get(instance_id)))

    @overload
    async def exec(
        self,
        instance_id: str,
        command: str | Sequence[str],
        *,
        background: Literal[False] = False,
        **options: Unpack[ExecOptions],
    ) -> ExecuteResult: ...

    @overload
    async def exec(
        self,
        instance_id: str,
        command: str | Sequence[str],
        *,
        background: Literal[True],
        **options: Unpack[ExecOptions],
    ) -> AsyncExecution: ...

    @overload
    async def exec(
        self, instance_id: str, command: str | Sequence[str], *, background: bool, **options: Unpack[ExecOptions]
    ) -> ExecuteResult | AsyncExecution: ...

    async def exec(
        self,
        instance_id: str,
        command: str | Sequence[str],
        *,
        background: bool = False,
        **options: Unpack[ExecOptions],
    ) -> ExecuteResult | AsyncExecution:
        """See :meth:`Instances.exec`. Cancelling it ends the command, with all that it started, unless it is kept."""
        if background:
            return AsyncExecution(
                self._transport, await self._transport.send(instances.background(instance_id, command, **options))
            )
        return await self._transport.send(instances.execute(instance_id, command, **options))

    def stream(
        self, instance_id: str, command: str | Sequence[str], **options: Unpack[ExecOptions]
    ) -> AsyncGenerator[ExecuteEvent]:
        """See :meth:`Instances.stream`."""
        return self._transport.stream(ExecuteEvents(instances.stream(instance_id, command, **options)))

    async def executions(self, instance_id: str, *, limit: int | None = None) -> tuple[AsyncExecution, ...]:
        """See :meth:`Instances.executions`."""
        listing = executions.listing(instance_id, limit)
        while (call := listing.next_call()) is not None:
            listing.add(await self._transport.send(call))
        return tuple(AsyncExecution(self._transport, info) for info in listing.entries())

    @overload
    def logs(
        self, instance_id: str, *, tail: int | None = None, follow: Literal[False] = False
    ) -> Coroutine[Any, Any, tuple[LogEntry, ...]]: ...

    @overload
    def logs(self, instance_id: str, *, tail: int | None = None, follow: Literal[True]) -> AsyncGenerator[LogEntry]: ...

    def logs(
        self, instance_id: str, *, tail: int | None = None, follow: bool = False
    ) -> Coroutine[Any, Any, tuple[LogEntry, ...]] | AsyncGenerator[LogEntry]:
        """See :meth:`Instances.logs`."""
        if follow:
            return self._transport.stream(events.LogEntries(instance_id, tail))
        return self._transport.send(events.logs(instance_id, tail))

    async def pty(
        self,
        instance_id: str,
        *,
        rows: int = 24,
        cols: int = 80,
        command: str | None = None,
        user: str | None = None,
        working_dir: str | None = None,
        execution_id: str | None = None,
        offset: int | None = None,
    ) -> AsyncTerminal:
        """See :meth:`Instances.pty`."""
        path = terminals.path(instance_id, rows, cols, command, user, working_dir, execution_id, offset)
        return await connected(self._transport.config, instance_id, path)

    def files(self, instance_id: str) -> AsyncFiles:
        """The files of an instance."""
        return AsyncFiles(self._transport, instance_id)

    async def stop(self, instance_id: str, *, grace_ms: int | None = None) -> AsyncInstance:
        """See :meth:`Instances.stop`."""
        return self._told(await self._transport.send(instances.stop(instance_id, grace_ms)))

    async def start(self, instance_id: str) -> AsyncInstance:
        """See :meth:`Instances.start`."""
        return self._told(await self._transport.send(instances.start(instance_id)))

    async def pause(self, instance_id: str) -> AsyncInstance:
        """See :meth:`Instances.pause`."""
        return self._told(await self._transport.send(instances.pause(instance_id)))

    async def resume(self, instance_id: str) -> AsyncInstance:
        """See :meth:`Instances.resume`."""
        return self._told(await self._transport.send(instances.resume(instance_id)))

    async def delete(self, instance_id: str) -> None:
        """See :meth:`Instances.delete`."""
        await self._transport.send(instances.delete(instance_id))

    async def set_timeout(
        self,
        instance_id: str,
        *,
        ttl_ms: int | Given | None = Given.NOT,
        idle_timeout_ms: int | Given | None = Given.NOT,
    ) -> AsyncInstance:
        """See :meth:`Instances.set_timeout`."""
        return self._told(await self._transport.send(instances.set_timeout(instance_id, ttl_ms, idle_timeout_ms)))

    async def update(
        self,
        instance_id: str,
        *,
        memory_mb: int | None = None,
        cpu_cores: float | None = None,
        pids_limit: int | None = None,
    ) -> AsyncInstance:
        """See :meth:`Instances.update`."""
        return self._told(await self._transport.send(instances.update(instance_id, memory_mb, cpu_cores, pids_limit)))

    async def metrics(self, instance_id: str) -> InstanceMetrics:
        """See :meth:`Instances.metrics`."""
        return await self._transport.send(instances.metrics(instance_id))

    def _told(self, info: InstanceInfo) -> AsyncInstance:
        return AsyncInstance(self._transport, info)
