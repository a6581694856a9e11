"""Sandboxes that outlive one request: the attribute ``instances`` of the two clients. Same verbs, same arguments.

A verb takes an instance's id, or is called on the :class:`Instance` that ``create``, ``get`` and ``list`` give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack

from faas_sdk._core.operations import instances
from faas_sdk._core.operations.instances import Given
from faas_sdk._transport.aio import AsyncTransport
from faas_sdk._transport.blocking import BlockingTransport
from faas_sdk.options import CreateInstanceOptions, ExecOptions, InstanceStatus
from faas_sdk.types import ExecuteResult, InstanceInfo, InstanceMetrics

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

    def exec(self, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> ExecuteResult:
        """Runs one command in it and returns when it has ended; see :meth:`Instances.exec`."""
        return self._transport.send(instances.execute(self.id, command, **options))

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
            labels: only those with all of these labels. The gateway divides them by ``,`` and ``=``.
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

    def exec(self, instance_id: str, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> ExecuteResult:
        """Runs one command in an instance and returns when it has ended. What it started in the background runs on.

        Args:
            instance_id: the instance's id.
            command: a string is run by ``/bin/sh -c``; a sequence of strings is executed as it is.
            **options: see :class:`faas_sdk.options.ExecOptions`.

        Raises:
            ExecutionTimeoutError: the command was still running at ``timeout_ms``; has its output so far.
            ConflictError: the instance does not run; ``detail`` says where it stands and what it can be asked.
            SandboxLostError: the instance ended under the command, or was stopped or deleted.
            NotFoundError: there is none of that id.
            APIError: another error of the gateway; a subclass for each code.
            TransportError: no answer came.
        """
        return self._transport.send(instances.execute(instance_id, command, **options))

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

    async def exec(self, command: str | Sequence[str], **options: Unpack[ExecOptions]) -> ExecuteResult:
        """See :meth:`Instances.exec`."""
        return await self._transport.send(instances.execute(self.id, command, **options))

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

    async def exec(
        self, instance_id: str, command: str | Sequence[str], **options: Unpack[ExecOptions]
    ) -> ExecuteResult:
        """See :meth:`Instances.exec`. Cancelling it ends the command, with all that it started."""
        return await self._transport.send(instances.execute(instance_id, command, **options))

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
