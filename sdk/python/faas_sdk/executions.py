"""Commands that go on by themselves: the attribute ``executions`` of the two clients. Same verbs, same arguments.

A verb takes an execution's id, or is called on the :class:`Execution` that ``instance.exec(..., background=True)``,
``instance.executions()`` and ``get`` give.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from typing import Self

from faas_sdk._core.execute_events import ExecutionEvents
from faas_sdk._core.operations import executions
from faas_sdk._transport.aio import AsyncTransport
from faas_sdk._transport.blocking import BlockingTransport
from faas_sdk.errors import APIError, GoneError, TransportTimeoutError
from faas_sdk.types import ExecutionEvent, ExecutionInfo, ExecutionOutput, GapEvent, OutputEvent

__all__ = ["AsyncExecution", "AsyncExecutions", "Execution", "Executions"]

_LOOK_S = 10.0
"""How long the end is waited for at once where there is a time limit: shorter than the gateway is ever silent."""

_SETTLE_S = 0.05
"""The wait before an execution is asked for again whose stream has ended and which still runs."""


class _Told:
    """What was last told of an execution."""

    def __init__(self, info: ExecutionInfo) -> None:
        self.info = info
        """All that the gateway said of it, at the last call that told of it."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.info.execution_id

    @property
    def status(self) -> str:
        """Where it stood at the last call that told of it: see :attr:`ExecutionInfo.status`."""
        return self.info.status

    @property
    def exit_code(self) -> int | None:
        """Its exit code, likewise; None while it has none."""
        return self.info.exit_code

    @property
    def labels(self) -> Mapping[str, str]:
        """The caller's own words."""
        return self.info.labels

    def _late(self, timeout_s: float | None) -> TimeoutError:
        return TimeoutError(f"the execution {self.id} still runs after {timeout_s:g} s")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, status={self.status!r})"


class _Collected:
    """Output as it comes."""

    def __init__(self) -> None:
        self._said = {"stdout": bytearray(), "stderr": bytearray()}
        self._gaps: list[GapEvent] = []

    def take(self, event: ExecutionEvent) -> None:
        """The next event."""
        match event:
            case OutputEvent():
                self._said[event.stream] += event.data
            case GapEvent():
                self._gaps.append(event)

    def output(self) -> ExecutionOutput:
        """All of it."""
        return ExecutionOutput(
            stdout=bytes(self._said["stdout"]), stderr=bytes(self._said["stderr"]), gaps=tuple(self._gaps)
        )


class Execution(_Told):
    """One lasting execution of a :class:`faas_sdk.client.FaaSClient`.

    It goes on whatever becomes of this object, of the client and of the gateway.
    """

    def __init__(self, transport: BlockingTransport, info: ExecutionInfo) -> None:
        super().__init__(info)
        self._transport = transport

    def refresh(self) -> Self:
        """Asks the gateway for it once more."""
        self.info = self._transport.send(executions.get(self.id))
        return self

    def wait(self, *, timeout_s: float | None = None) -> Self:
        """Returns when it has ended, however it ended: :attr:`status` and :attr:`exit_code` tell.

        Args:
            timeout_s: the longest wait in seconds; for ever when not given.

        Raises:
            TimeoutError: it still runs. It goes on, and can be waited for again.
            NotFoundError: it is no longer known: its instance was deleted.
            TransportError: the gateway cannot be reached any more.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.refresh()
        while self.status == "running":
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise self._late(timeout_s)
            source = ExecutionEvents(self.id, self.info.next_offset, None if left is None else min(left, _LOOK_S))
            try:
                with closing(self._transport.stream(source)) as events:
                    for _ in events:
                        if deadline is not None and time.monotonic() >= deadline:
                            raise self._late(timeout_s)
            except GoneError:
                pass  # It writes faster than it was asked where it stands.
            except APIError:
                if not source.said_error:
                    raise
            except TransportTimeoutError:
                if deadline is None:
                    raise
                continue
            self.refresh()
            if self.status == "running":
                time.sleep(_SETTLE_S)
        return self

    def stream(self, *, offset: int | None = None) -> Generator[ExecutionEvent]:
        """Its output from an offset on, and then as it comes; the last event is an :class:`EndEvent`.

        When the connection breaks it goes on where it was, as often as the client's retry policy says. Closing it ends
        nothing. Works for one that has ended, too.

        Args:
            offset: the byte of output to begin with, stdout and stderr counted together; the first one that is still
                held when not given.

        Raises:
            GoneError: output from there on is no longer held; has ``first_offset``.
            RangeNotSatisfiableError: there is not so much; has ``next_offset``.
            ExecutionTimeoutError: it came to its timeout; its output came before.
            SandboxLostError: its sandbox or agent ended under it; its output came before.
            APIError: another error of the gateway; a subclass for each code.
            TransportError: the gateway cannot be reached any more.
        """
        return self._transport.stream(ExecutionEvents(self.id, offset))

    def output(self) -> ExecutionOutput:
        """All of its output that is held, when it has ended, however it ended.

        Raises:
            APIError: an error of the gateway; a subclass for each code.
            TransportError: the gateway cannot be reached any more.
        """
        source, collected = ExecutionEvents(self.id, None), _Collected()
        try:
            for event in self._transport.stream(source):
                collected.take(event)
        except APIError:
            if not source.said_error or self.refresh().status == "running":
                raise
        else:
            self.refresh()
        return collected.output()

    def input(self, data: str | bytes = b"", *, eof: bool = False) -> None:
        """Gives it input; see :meth:`Executions.input`."""
        self._transport.send(executions.write(self.id, data, eof))

    def signal(self, signal: str | int) -> None:
        """Sends it a signal; see :meth:`Executions.signal`."""
        self._transport.send(executions.signal(self.id, signal))

    def cancel(self) -> None:
        """Ends it with all that it started; see :meth:`Executions.cancel`."""
        self._transport.send(executions.cancel(self.id))


class Executions:
    """The lasting executions of a :class:`faas_sdk.client.FaaSClient`."""

    def __init__(self, transport: BlockingTransport) -> None:
        self._transport = transport

    def get(self, execution_id: str) -> Execution:
        """One execution.

        Raises:
            NotFoundError: there is none of that id.
        """
        return Execution(self._transport, self._transport.send(executions.get(execution_id)))

    def stream(self, execution_id: str, *, offset: int | None = None) -> Generator[ExecutionEvent]:
        """Its output from an offset on, and then as it comes; see :meth:`Execution.stream`."""
        return self._transport.stream(ExecutionEvents(execution_id, offset))

    def input(self, execution_id: str, data: str | bytes = b"", *, eof: bool = False) -> None:
        """Gives it input; it was started with ``stdin_open``, or has a terminal.

        Args:
            execution_id: the execution's id.
            data: what it reads next.
            eof: whether its standard input ends after that.

        Raises:
            ConflictError: it has ended, has no open standard input, or reads no more.
        """
        self._transport.send(executions.write(execution_id, data, eof))

    def signal(self, execution_id: str, signal: str | int) -> None:
        """Sends it a signal.

        Args:
            execution_id: the execution's id.
            signal: the signal's name (``"SIGTERM"``) or number.

        Raises:
            ConflictError: it has ended.
            InvalidRequestError: there is no such signal.
        """
        self._transport.send(executions.signal(execution_id, signal))

    def cancel(self, execution_id: str) -> None:
        """Ends it with all that it started, and returns when it has ended. Once more is no error.

        Raises:
            NotFoundError: there is none of that id.
        """
        self._transport.send(executions.cancel(execution_id))


class AsyncExecution(_Told):
    """One lasting execution of a :class:`faas_sdk.client.AsyncFaaSClient`."""

    def __init__(self, transport: AsyncTransport, info: ExecutionInfo) -> None:
        super().__init__(info)
        self._transport = transport

    async def refresh(self) -> Self:
        """See :meth:`Execution.refresh`."""
        self.info = await self._transport.send(executions.get(self.id))
        return self

    async def wait(self, *, timeout_s: float | None = None) -> Self:
        """See :meth:`Execution.wait`. Cancelling it ends nothing."""
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                await self._wait()
        except TimeoutError as error:
            if limit.expired():
                raise self._late(timeout_s) from error
            raise
        return self

    async def _wait(self) -> None:
        await self.refresh()
        while self.status == "running":
            source = ExecutionEvents(self.id, self.info.next_offset)
            try:
                async with aclosing(self._transport.stream(source)) as events:
                    async for _ in events:
                        pass
            except GoneError:
                pass  # It writes faster than it was asked where it stands.
            except APIError:
                if not source.said_error:
                    raise
            await self.refresh()
            if self.status == "running":
                await asyncio.sleep(_SETTLE_S)

    def stream(self, *, offset: int | None = None) -> AsyncGenerator[ExecutionEvent]:
        """See :meth:`Execution.stream`."""
        return self._transport.stream(ExecutionEvents(self.id, offset))

    async def output(self) -> ExecutionOutput:
        """See :meth:`Execution.output`."""
        source, collected = ExecutionEvents(self.id, None), _Collected()
        try:
            async for event in self._transport.stream(source):
                collected.take(event)
        except APIError:
            if not source.said_error or (await self.refresh()).status == "running":
                raise
        else:
            await self.refresh()
        return collected.output()

    async def input(self, data: str | bytes = b"", *, eof: bool = False) -> None:
        """See :meth:`Executions.input`."""
        await self._transport.send(executions.write(self.id, data, eof))

    async def signal(self, signal: str | int) -> None:
        """See :meth:`Executions.signal`."""
        await self._transport.send(executions.signal(self.id, signal))

    async def cancel(self) -> None:
        """See :meth:`Executions.cancel`."""
        await self._transport.send(executions.cancel(self.id))


class AsyncExecutions:
    """The lasting executions of a :class:`faas_sdk.client.AsyncFaaSClient`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def get(self, execution_id: str) -> AsyncExecution:
        """See :meth:`Executions.get`."""
        return AsyncExecution(self._transport, await self._transport.send(executions.get(execution_id)))

    def stream(self, execution_id: str, *, offset: int | None = None) -> AsyncGenerator[ExecutionEvent]:
        """See :meth:`Execution.stream`."""
        return self._transport.stream(ExecutionEvents(execution_id, offset))

    async def input(self, execution_id: str, data: str | bytes = b"", *, eof: bool = False) -> None:
        """See :meth:`Executions.input`."""
        await self._transport.send(executions.write(execution_id, data, eof))

    async def signal(self, execution_id: str, signal: str | int) -> None:
        """See :meth:`Executions.signal`."""
        await self._transport.send(executions.signal(execution_id, signal))

    async def cancel(self, execution_id: str) -> None:
        """See :meth:`Executions.cancel`."""
        await self._transport.send(executions.cancel(execution_id))
