"""Terminals in instances: what ``instance.pty()`` gives.

A connection to a terminal may come and go; what runs in it goes on, and is ended by ``executions.cancel``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from faas_sdk._core.config import ClientConfig
from faas_sdk._core.operations.terminals import TerminalState, old_path, resize_frame
from faas_sdk._transport.socket import AsyncSocket, Socket
from faas_sdk.types import ExecutionInfo, GapEvent

__all__ = ["AsyncTerminal", "Terminal"]


class _Known:
    """What is known of a terminal."""

    def __init__(self, config: ClientConfig, instance_id: str) -> None:
        self._config = config
        self._instance_id = instance_id
        self._state = TerminalState()

    @property
    def execution_id(self) -> str:
        """The id of what runs in it, as an execution of its instance."""
        if self._state.execution_id is None:
            raise RuntimeError("the terminal was never connected")
        return self._state.execution_id

    @property
    def offset(self) -> int:
        """The offset of the next byte of output: what a later connection can go on with."""
        return self._state.offset

    @property
    def gaps(self) -> tuple[GapEvent, ...]:
        """Output that was lost, since this reader was too slow for it."""
        return tuple(self._state.gaps)

    @property
    def end(self) -> ExecutionInfo | None:
        """How what ran in it ended; None while it runs."""
        return self._state.end

    def _path(self, offset: int | None) -> str:
        return old_path(self._instance_id, self.execution_id, self.offset if offset is None else offset)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(execution_id={self._state.execution_id!r}, offset={self.offset})"


class Terminal(_Known):
    """A terminal of an :class:`faas_sdk.instances.Instance`: an iterator of what it shows.

    In a ``with`` statement its connection is closed at the end of it. One thread may read while another writes.
    """

    def __init__(self, config: ClientConfig, instance_id: str, path: str) -> None:
        super().__init__(config, instance_id)
        self._connect(path)

    def read(self, *, timeout_s: float | None = None) -> bytes:
        """The next piece of output, as it came; none when what runs in it has ended: :attr:`end` tells how.

        Where its instance ended under it, that has the status ``lost``.

        Args:
            timeout_s: the longest wait in seconds; for ever when not given.

        Raises:
            TimeoutError: nothing came.
            ConnectionLostError: the connection broke; :meth:`reattach` makes another one.
            APIError: the gateway cannot go on; a subclass for each code.
        """
        while self._state.end is None:
            if piece := self._state.take(self._socket.receive(timeout_s)):
                return piece
        return b""

    def write(self, data: str | bytes) -> None:
        """Types something: text as UTF-8.

        Raises:
            ConnectionLostError: the connection is broken, or was closed.
        """
        self._socket.send(data.encode() if isinstance(data, str) else bytes(data))

    def resize(self, rows: int, cols: int) -> None:
        """Gives it another size; what runs in it is told by SIGWINCH."""
        self._socket.send(resize_frame(rows, cols))

    def reattach(self, *, offset: int | None = None) -> Self:
        """Closes the connection, and connects again to what runs in it.

        Args:
            offset: the byte of output to go on with; the one after those that were read when not given.

        Raises:
            GoneError: output from there on is no longer held; has ``first_offset``.
            NotFoundError: it is no longer known.
        """
        self._socket.close()
        self._connect(self._path(offset))
        return self

    def close(self) -> None:
        """Closes the connection. What runs in the terminal goes on. May be called twice."""
        self._socket.close()

    def _connect(self, path: str) -> None:
        self._socket = Socket(self._config, path)
        try:
            self._state.begin(self._socket.receive(None))
        except BaseException:
            self._socket.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncTerminal(_Known):
    """A terminal of an :class:`faas_sdk.instances.AsyncInstance`: an asynchronous iterator of what it shows.

    In an ``async with`` statement its connection is closed at the end of it.
    """

    _socket: AsyncSocket

    async def read(self, *, timeout_s: float | None = None) -> bytes:
        """See :meth:`Terminal.read`."""
        while self._state.end is None:
            if piece := self._state.take(await self._socket.receive(timeout_s)):
                return piece
        return b""

    async def write(self, data: str | bytes) -> None:
        """See :meth:`Terminal.write`."""
        await self._socket.send(data.encode() if isinstance(data, str) else bytes(data))

    async def resize(self, rows: int, cols: int) -> None:
        """See :meth:`Terminal.resize`."""
        await self._socket.send(resize_frame(rows, cols))

    async def reattach(self, *, offset: int | None = None) -> Self:
        """See :meth:`Terminal.reattach`."""
        await self._socket.close()
        await self._connect(self._path(offset))
        return self

    async def close(self) -> None:
        """See :meth:`Terminal.close`."""
        await self._socket.close()

    async def _connect(self, path: str) -> None:
        self._socket = await AsyncSocket.connected(self._config, path)
        try:
            self._state.begin(await self._socket.receive(None))
        except BaseException:
            await self._socket.close()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def connected(config: ClientConfig, instance_id: str, path: str) -> AsyncTerminal:
    """A terminal with a connection."""
    terminal = AsyncTerminal(config, instance_id)
    await terminal._connect(path)
    return terminal
