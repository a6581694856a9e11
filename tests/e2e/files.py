"""An instance's files, over HTTP as it is."""

from __future__ import annotations

import http.client
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_from_bytes, urlencode, urlsplit

import raw
from raw import RawAnswer


class Files:
    """The route of one instance."""

    def __init__(self, url: str, instance_id: str) -> None:
        self.url = url
        self.route = f"/api/v1/instances/{instance_id}/files"

    def target(self, path: bytes | str | None, parameters: Mapping[str, Any]) -> str:
        words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
        query = [urlencode(words)] if words else []
        if path is not None:
            query.append("path=" + quote_from_bytes(path.encode() if isinstance(path, str) else path, safe=""))
        return f"{self.route}?{'&'.join(query)}"

    def ask(
        self,
        method: str,
        path: bytes | str | None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> RawAnswer:
        return raw.request(self.url, method, self.target(path, parameters), body, headers or {})

    def put(self, path: bytes | str, body: bytes | Iterable[bytes], **parameters: Any) -> RawAnswer:
        return self.ask("PUT", path, body, **parameters)

    def get(self, path: bytes | str, headers: Mapping[str, str] | None = None, **parameters: Any) -> RawAnswer:
        return self.ask("GET", path, None, headers, **parameters)

    def read(self, path: bytes | str) -> bytes:
        answer = self.get(path)
        assert answer.status == 200, answer
        return answer.body

    def stat(self, path: bytes | str) -> dict[str, Any]:
        answer = self.get(path, stat=True)
        assert answer.status == 200, answer
        info: dict[str, Any] = answer.json
        return info

    def names(self, path: bytes | str) -> list[str]:
        """Of all entries of a directory."""
        found, cursor = [], {}
        while True:
            answer = self.get(path, list=True, limit=1000, **cursor)
            assert answer.status == 200, answer
            found += [entry["name"] for entry in answer.json]
            if "x-next-cursor" not in answer.headers:
                return found
            cursor = {"cursor": answer.headers["x-next-cursor"]}

    @contextmanager
    def open(self, method: str, path: bytes | str, **parameters: Any) -> Iterator[http.client.HTTPConnection]:
        """A connection on which a request has begun, for who goes away in the middle of it."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        try:
            connection.putrequest(method, self.target(path, parameters))
            yield connection
        finally:
            connection.close()


class Watch:
    """The events of a watch."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def next(self) -> dict[str, Any]:
        while True:
            line = self.response.readline()
            assert line, "the events ended without a last one"
            if line.strip():
                event: dict[str, Any] = json.loads(line)
                return event

    def until(self, **wanted: Any) -> list[dict[str, Any]]:
        """All events up to one that has these members."""
        events = [self.next()]
        while any(events[-1].get(name) != value for name, value in wanted.items()):
            assert events[-1]["event"] != "error", events
            events.append(self.next())
        return events


@contextmanager
def watch(files: Files, path: str, **parameters: Any) -> Iterator[Watch]:
    with files.open("GET", path, watch=True, **parameters) as connection:
        connection.putheader("accept", "application/x-ndjson")
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 200, response.read()
        watching = Watch(response)
        assert watching.next() == {"event": "ready"}
        yield watching


def archive(*entries: tuple[str, Any]) -> bytes:
    """A tar archive: of bytes for a file, None for a directory, a `TarInfo` for what it says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    """A link in an archive."""
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info
