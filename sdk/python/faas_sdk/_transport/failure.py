"""Makes this package's errors from those of httpx2, and its settings from ours."""

from __future__ import annotations

import httpx2

from faas_sdk._core.config import CONNECT_TIMEOUT_S, ClientConfig
from faas_sdk.errors import (
    ConnectFailedError,
    ConnectionLostError,
    TransportError,
    TransportTimeoutError,
)


def transport_error(error: httpx2.RequestError, url: str, timeout_s: float) -> TransportError:
    """The error to raise for one of httpx2.

    Whether the request was sent is said on the safe side: False only where no connection was made at all.
    """
    reason = str(error) or type(error).__name__
    match error:
        case httpx2.ConnectTimeout():
            return ConnectFailedError(f"no connection to {url} in time: {reason}", False)
        case httpx2.ConnectError() | httpx2.ProxyError() | httpx2.UnsupportedProtocol():
            return ConnectFailedError(f"cannot connect to {url}: {reason}", False)
        case httpx2.TimeoutException():
            return TransportTimeoutError(f"no answer from {url} within {timeout_s:g} s", True)
        case _:
            return ConnectionLostError(f"the connection to {url} broke before the answer was whole: {reason}", True)


def timeouts(timeout_s: float) -> httpx2.Timeout:
    """Limits of the parts of one exchange; none for waiting until a connection of the pool is free."""
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S), pool=None)


def limits(config: ClientConfig) -> httpx2.Limits:
    """The size of the connection pool."""
    return httpx2.Limits(max_connections=config.max_connections, max_keepalive_connections=config.max_connections)


def headers_of(response: httpx2.Response) -> dict[str, str]:
    """The headers of an answer, by lower-case name."""
    return {name.lower(): value for name, value in response.headers.items()}
