"""The two clients: :class:`FaaSClient` blocks, :class:`AsyncFaaSClient` is for asyncio. Same verbs, same arguments.

A resource with several verbs has a module of its own, such as `images` and `instances`, and is an attribute of the
client; what belongs to the gateway as a whole is a method here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack

from faas_sdk._core.config import client_config
from faas_sdk._core.execute_events import ExecuteEvents
from faas_sdk._core.operations import execute, server
from faas_sdk._core.operations.events import GatewayEvents
from faas_sdk._transport.aio import AsyncTransport
from faas_sdk._transport.blocking import BlockingTransport
from faas_sdk.executions import AsyncExecutions, Executions
from faas_sdk.images import AsyncImages, Images
from faas_sdk.instances import AsyncInstances, Instances
from faas_sdk.options import ExecuteOptions, RetryPolicy
from faas_sdk.types import Capabilities, ExecuteEvent, ExecuteResult, GatewayEvent, Health, Leak, VersionInfo

__all__ = ["AsyncFaaSClient", "FaaSClient"]


class FaaSClient:
    """A client of one gateway. Threads may share it; close it, or use it in a ``with`` statement.

    Args:
        base_url: where the gateway is; else the environment variable ``FAAS_BASE_URL``, else
            ``http://localhost:8080``.
        http_timeout_s: the longest wait in seconds for an answer, for all calls; derived from each call's
            ``timeout_ms`` when not given.
        retry: how often a call that is safe to repeat is tried again.
        headers: sent with every request.
        max_connections: the most connections at once; further calls wait for one.

    Raises:
        ValueError: an argument or the environment variable is not valid.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        http_timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        max_connections: int = 100,
    ) -> None:
        config = client_config(
            base_url=base_url,
            http_timeout_s=http_timeout_s,
            retry=retry,
            headers=headers,
            max_connections=max_connections,
            environment=os.environ,
        )
        self.base_url = config.base_url
        """Where the gateway is."""
        self._transport = BlockingTransport(config)
        self.images = Images(self._transport)
        """The gateway's image store."""
        self.instances = Instances(self._transport)
        """Sandboxes that outlive one request."""
        self.executions = Executions(self._transport)
        """Commands in them that go on by themselves."""

    def execute(self, command: str | Sequence[str], **options: Unpack[ExecuteOptions]) -> ExecuteResult:
        """Runs one command in a fresh sandbox and returns when it has ended.

        Args:
            command: a string is run by ``/bin/sh -c``; a sequence of strings is executed as it is.
            **options: see :class:`faas_sdk.options.ExecuteOptions`.

        Raises:
            ExecutionTimeoutError: the command was still running at ``timeout_ms``; has its output so far.
            APIError: the gateway refused or failed; a subclass for each code.
            TransportError: no answer came.
        """
        return self._transport.send(execute.execute(command, **options))

    def stream(self, command: str | Sequence[str], **options: Unpack[ExecuteOptions]) -> Generator[ExecuteEvent]:
        """Runs one command in a fresh sandbox and gives its output while it runs.

        The first event is a :class:`faas_sdk.types.StartedEvent`, the last an :class:`faas_sdk.types.ExitEvent`;
        between them is output in the order in which it came. Nothing is sent before the first event is asked for.
        Closing the generator before its end, with ``close()`` or :func:`contextlib.closing`, ends the command. A reader
        that is too slow misses output and gets a :class:`faas_sdk.types.GapEvent`; the command does not wait for it.

        Args:
            command: as for :meth:`execute`.
            **options: as for :meth:`execute`; ``http_timeout_s`` is the longest silence of the gateway, which says
                something every 15 s.

        Raises:
            ExecutionTimeoutError: the command was still running at ``timeout_ms``; its output came before.
            SandboxLostError: the sandbox died; the output until then came before.
            APIError: another error of the gateway, before the first event or after it; a subclass for each code.
            ConnectionLostError: the connection broke before the last event.
            TransportError: no answer came.
        """
        return self._transport.stream(ExecuteEvents(execute.stream(command, **options)))

    def events(
        self, *, after: int | None = None, kind: str | Sequence[str] | None = None, subject: str | None = None
    ) -> Generator[GatewayEvent]:
        """What becomes of instances and executions, as it happens. It never ends; close it.

        When the connection breaks it goes on after the last event, as often as the client's retry policy says: none is
        missed, unless the connection breaks before the first one and `after` was not given.

        Args:
            after: the number of the event after which to begin; 0: all that are kept. Those to come when not given.
            kind: only those of this kind, or of these: ``"instance.running"``, or its beginning, ``"instance."``.
            subject: only those of the instance or execution with this id.

        Raises:
            GoneError: events after `after` are no longer kept; ``first_offset`` is the number of the first that is.
            RangeNotSatisfiableError: there is no such event yet.
            TransportError: the gateway cannot be reached any more.
        """
        return self._transport.stream(GatewayEvents(after, kind, subject))

    def capabilities(self) -> Capabilities:
        """What every runtime can do on the gateway's host, and the reason for what it cannot."""
        return self._transport.send(server.capabilities())

    def health(self) -> Health:
        """Whether the gateway can work. An unhealthy gateway is a result, not an error."""
        return self._transport.send(server.health())

    def version(self) -> VersionInfo:
        """The gateway's versions."""
        return self._transport.send(server.version())

    def leaks(self) -> tuple[Leak, ...]:
        """What is on the gateway's host with its mark and belongs to nobody: empty when all is well."""
        return self._transport.send(server.leaks())

    def close(self) -> None:
        """Closes all connections. May be called twice."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FaaSClient(base_url={self.base_url!r})"


class AsyncFaaSClient:
    """The same as :class:`FaaSClient` for asyncio. Cancelling a call ends its command in the gateway.

    Args:
        base_url: as for :class:`FaaSClient`.
        http_timeout_s: as for :class:`FaaSClient`.
        retry: as for :class:`FaaSClient`.
        headers: as for :class:`FaaSClient`.
        max_connections: as for :class:`FaaSClient`.

    Raises:
        ValueError: an argument or the environment variable is not valid.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        http_timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        max_connections: int = 100,
    ) -> None:
        config = client_config(
            base_url=base_url,
            http_timeout_s=http_timeout_s,
            retry=retry,
            headers=headers,
            max_connections=max_connections,
            environment=os.environ,
        )
        self.base_url = config.base_url
        """Where the gateway is."""
        self._transport = AsyncTransport(config)
        self.images = AsyncImages(self._transport)
        """The gateway's image store."""
        self.instances = AsyncInstances(self._transport)
        """Sandboxes that outlive one request."""
        self.executions = AsyncExecutions(self._transport)
        """Commands in them that go on by themselves."""

    async def execute(self, command: str | Sequence[str], **options: Unpack[ExecuteOptions]) -> ExecuteResult:
        """See :meth:`FaaSClient.execute`."""
        return await self._transport.send(execute.execute(command, **options))

    def stream(self, command: str | Sequence[str], **options: Unpack[ExecuteOptions]) -> AsyncGenerator[ExecuteEvent]:
        """See :meth:`FaaSClient.stream`. Closing it is ``aclose()`` or :func:`contextlib.aclosing`."""
        return self._transport.stream(ExecuteEvents(execute.stream(command, **options)))

    def events(
        self, *, after: int | None = None, kind: str | Sequence[str] | None = None, subject: str | None = None
    ) -> AsyncGenerator[GatewayEvent]:
        """See :meth:`FaaSClient.events`."""
        return self._transport.stream(GatewayEvents(after, kind, subject))

    async def capabilities(self) -> Capabilities:
        """See :meth:`FaaSClient.capabilities`."""
        return await self._transport.send(server.capabilities())

    async def health(self) -> Health:
        """See :meth:`FaaSClient.health`."""
        return await self._transport.send(server.health())

    async def version(self) -> VersionInfo:
        """See :meth:`FaaSClient.version`."""
        return await self._transport.send(server.version())

    async def leaks(self) -> tuple[Leak, ...]:
        """See :meth:`FaaSClient.leaks`."""
        return await self._transport.send(server.leaks())

    async def close(self) -> None:
        """Closes all connections. May be called twice."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncFaaSClient(base_url={self.base_url!r})"
