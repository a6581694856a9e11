"""The client's settings: argument, then environment, then default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from faas_sdk._core.call import Call, Upload
from faas_sdk._core.headers import checked_headers
from faas_sdk._version import __version__
from faas_sdk.options import RetryPolicy

DEFAULT_BASE_URL = "http://localhost:8080"
"""Where a gateway listens that was started without options."""

CONNECT_TIMEOUT_S = 10.0
"""The longest wait for a connection, shortened by a shorter HTTP timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Settings of one client."""

    base_url: str
    http_timeout_s: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    headers: Mapping[str, str] = field(default_factory=dict)
    max_connections: int = 100

    def url(self, path: str) -> str:
        """The whole address of a path."""
        return self.base_url + path

    def http_timeout(self, call: Call[object]) -> float:
        """The HTTP timeout of one call in seconds: the call's own, the client's, or the derived one."""
        if call.http_timeout_s is not None:
            return call.http_timeout_s
        if self.http_timeout_s is not None:
            return max(self.http_timeout_s, call.least_http_timeout_s)
        return call.default_http_timeout_s

    def request_headers(self, call: Call[object]) -> dict[str, str]:
        """All headers of a request; the call's own win over the client's."""
        headers = {"accept": "application/json", "user-agent": f"faas-sdk-python/{__version__}"}
        headers |= self.headers
        if call.body is not None:
            headers["content-type"] = "application/json"
        if isinstance(call.body, Upload) and call.body.size_bytes is not None:
            headers["content-length"] = str(call.body.size_bytes)
        return headers | dict(call.headers)

    @property
    def is_loopback(self) -> bool:
        """Whether the gateway is on this machine, where a proxy of the environment is of no use."""
        host = urlsplit(self.base_url).hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return False


def client_config(
    *,
    base_url: str | None,
    http_timeout_s: float | None,
    retry: RetryPolicy | None,
    headers: Mapping[str, str] | None,
    max_connections: int,
    environment: Mapping[str, str],
) -> ClientConfig:
    """Settings from arguments and environment.

    Raises:
        ValueError: a setting is not valid; the message says which and where it came from.
    """
    if http_timeout_s is not None and not http_timeout_s > 0:
        raise ValueError(f"http_timeout_s is {http_timeout_s}, which is not a time in seconds")
    if max_connections < 1:
        raise ValueError(f"max_connections is {max_connections}, which allows none")
    return ClientConfig(
        base_url=_base_url(base_url, environment),
        http_timeout_s=http_timeout_s,
        retry=retry or RetryPolicy(),
        headers=checked_headers(headers or {}),
        max_connections=max_connections,
    )


def _base_url(argument: str | None, environment: Mapping[str, str]) -> str:
    if argument is not None:
        url, origin = argument, "base_url"
    elif environment.get("FAAS_BASE_URL"):
        url, origin = environment["FAAS_BASE_URL"], "FAAS_BASE_URL"
    else:
        return DEFAULT_BASE_URL
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{origin} is {url!r}, which is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{origin} is {url!r}, which is not like http://HOST:PORT")
    if parts.query or parts.fragment:
        raise ValueError(f"{origin} is {url!r}; a base URL has no query and no fragment")
    return url.rstrip("/")
