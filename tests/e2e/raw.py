"""HTTP as it is on the wire, for requests that the SDK would not send."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    url: str,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] = JSON,
) -> RawAnswer:
    """One request over a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return RawAnswer(response.status, names, response.read())
    finally:
        connection.close()


def execute(url: str, body: object, **headers: str) -> RawAnswer:
    """A POST of any JSON to the route execute."""
    return request(url, "POST", "/api/v1/execute", json.dumps(body).encode(), JSON | headers)


def assert_problem(answer: RawAnswer, status: int, code: str) -> dict[str, Any]:
    """Asserts that an answer is the contract's error, whole; its body."""
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json"), answer
    body: dict[str, Any] = answer.json
    assert body["code"] == code, body
    assert body["status"] == status, body
    assert body["type"].endswith(f"/docs/errors/{code}"), body
    assert body["title"], body
    assert body["detail"], body
    assert isinstance(body["retryable"], bool), body
    assert body["request_id"] == answer.headers["x-request-id"], answer
    return body
