"""WebSocket connections to the gateway, over the package websockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

from faas_sdk._core.call import Answer
from faas_sdk._core.config import CONNECT_TIMEOUT_S, ClientConfig
from faas_sdk._core.problem import api_error
from faas_sdk._version import __version__
from faas_sdk.errors import ConnectFailedError, ConnectionLostError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as AsyncConnection
    from websockets.sync.client import ClientConnection

# The package is imported when a terminal is first opened: nothing else needs it.

CLOSE_TIMEOUT_S = 5.0
"""How long the gateway's side of a close is waited for."""


class Socket:
    """One connection. One thread may receive while another sends."""

    def __init__(self, config: ClientConfig, path: str) -> None:
        from websockets.sync.client import connect

        self._url = config.url(path)
        self._closing = ExitStack()
        with _connecting(self._url):
            connection = connect(_websocket_url(self._url), **_options(config))
            self._connection: ClientConnection = self._closing.enter_context(connection)

    def receive(self, timeout_s: float | None) -> str | bytes:
        """The next frame.

        Raises:
            TimeoutError: none came.
            ConnectionLostError: the connection broke, or was closed.
        """
        with _connected(self._url):
            return self._connection.recv(timeout_s)

    def send(self, frame: str | bytes) -> None:
        """Sends a frame.

        Raises:
            ConnectionLostError: the connection broke, or was closed.
        """
        with _connected(self._url):
            self._connection.send(frame)

    def close(self) -> None:
        """Closes it. May be called twice."""
        self._closing.close()


class AsyncSocket:
    """The same for asyncio."""

    def __init__(self, connection: AsyncConnection, url: str) -> None:
        self._connection = connection
        self._url = url

    @classmethod
    async def connected(cls, config: ClientConfig, path: str) -> Self:
        """A new connection."""
        from websockets.asyncio.client import connect

        url = config.url(path)
        with _connecting(url):
            return cls(await connect(_websocket_url(url), **_options(config)), url)

    async def receive(self, timeout_s: float | None) -> str | bytes:
        """See :meth:`Socket.receive`."""
        with _connected(self._url):
            async with asyncio.timeout(timeout_s):
                return await self._connection.recv()

    async def send(self, frame: str | bytes) -> None:
        """See :meth:`Socket.send`."""
        with _connected(self._url):
            await self._connection.send(frame)

    async def close(self) -> None:
        """See :meth:`Socket.close`."""
        await self._connection.close()


def _websocket_url(url: str) -> str:
    # http becomes ws, and https wss.
    return "ws" + url.removeprefix("http")


def _options(config: ClientConfig) -> dict[str, Any]:
    return {
        "additional_headers": config.headers,
        "user_agent_header": f"faas-sdk-python/{__version__}",
        "open_timeout": min(config.http_timeout_s or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S),
        "close_timeout": CLOSE_TIMEOUT_S,
        # Who does not read for a while does not see the answers to its pings either, behind all that it has not read.
        "ping_timeout": None,
        "compression": None,
        "max_size": None,
        "proxy": None if config.is_loopback else True,
    }


@contextmanager
def _connecting(url: str) -> Iterator[None]:
    """Makes this package's errors of what goes wrong until there is a connection."""
    from websockets.exceptions import InvalidStatus, WebSocketException

    try:
        yield
    except InvalidStatus as error:
        response = error.response
        headers = {name.lower(): value for name, value in response.headers.raw_items()}
        raise api_error(Answer(status=response.status_code, headers=headers, body=bytes(response.body))) from error
    except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
        raise ConnectFailedError(f"no terminal from {url}: {str(error) or type(error).__name__}", False) from error


@contextmanager
def _connected(url: str) -> Iterator[None]:
    """Makes this package's errors of what goes wrong on a connection."""
    from websockets.exceptions import ConnectionClosed

    try:
        yield
    except ConnectionClosed as error:
        raise ConnectionLostError(f"the connection to {url} is closed: {error}", True) from error
