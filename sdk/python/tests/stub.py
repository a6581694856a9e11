"""A gateway made of prepared answers: a local HTTP server on a port of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TIMINGS = {"queue_us": 1, "create_us": 2000, "exec_us": 900}
USAGE = {"cpu_us": 700, "memory_peak_bytes": 1 << 20}


def execution(**changes: Any) -> dict[str, Any]:
    """An ``ExecuteResponse`` with some members changed."""
    body: dict[str, Any] = {
        "request_id": "req-1",
        "execution_id": "exec-1",
        "exit_code": 0,
        "signal": None,
        "stdout": "Hello!\n",
        "stderr": "",
        "stdout_truncated": False,
        "stderr_truncated": False,
        "duration_ms": 1,
        "timings": TIMINGS,
        "runtime": "native",
        "image": "host",
        "usage": USAGE,
        "oom_killed": False,
        "error": None,
    } | changes
    return body | {"output": body["stdout"], "logs": body["stderr"]}


def image(**changes: Any) -> dict[str, Any]:
    """An ``ImageInfo`` with some members changed."""
    return {
        "id": "sha256:" + "a" * 64,
        "names": ["docker.io/library/tiny:1"],
        "repo_digests": ["docker.io/library/tiny@sha256:" + "b" * 64],
        "architecture": "amd64",
        "created_at": None,
        "size_bytes": 4096,
        "layers": 1,
        "added_at": "2026-01-02T03:04:05.678Z",
        "last_used_at": "2026-01-02T03:04:00Z",
        "in_use": False,
        "env_vars": {"PATH": "/bin"},
        "working_dir": "/",
        "user": "",
        "entrypoint": [],
        "cmd": ["sh"],
    } | changes


def instance(**changes: Any) -> dict[str, Any]:
    """An ``Instance`` with some members changed."""
    return {
        "id": "ins-1",
        "name": None,
        "image": "host",
        "runtime": "native",
        "status": "running",
        "status_reason": None,
        "created_at": "2026-01-02T03:04:05.678Z",
        "cpu_cores": 0.5,
        "memory_mb": 128,
        "pids_limit": 64,
        "disk_mb": None,
        "network": "none",
        "labels": {},
        "parent_id": None,
        "snapshot_id": None,
        "ttl_ms": None,
        "idle_timeout_ms": None,
        "expires_at": None,
        "on_timeout": "delete",
        "auto_resume": False,
        "main": None,
        "resources": {"cpu_cores": 0.5, "memory_mb": 128, "disk_mb": None},
    } | changes


def lasting(**changes: Any) -> dict[str, Any]:
    """An ``Execution`` with some members changed."""
    return {
        "execution_id": "exe-1",
        "instance_id": "ins-1",
        "kind": "command",
        "status": "running",
        "status_reason": None,
        "command": "make",
        "background": True,
        "tty": None,
        "labels": {},
        "timeout_ms": None,
        "created_at": "2026-01-02T03:04:05.678Z",
        "ended_at": None,
        "exit_code": None,
        "signal": None,
        "oom_killed": False,
        "stdout_truncated": False,
        "stderr_truncated": False,
        "duration_ms": None,
        "error": None,
        "first_offset": 0,
        "next_offset": 0,
    } | changes


def file_info(**changes: Any) -> dict[str, Any]:
    """A ``FileInfo`` with some members changed."""
    return {
        "path": "/a",
        "name": "a",
        "type": "file",
        "size_bytes": 1,
        "mode": "0644",
        "uid": 0,
        "gid": 0,
        "owner": "root",
        "group": None,
        "modified_at": "2026-01-02T03:04:05.678Z",
        "target": None,
    } | changes


def metrics(**changes: Any) -> dict[str, Any]:
    """An ``InstanceMetrics`` with some members changed."""
    return {
        "instance_id": "ins-1",
        "status": "running",
        "cpu_us": 1,
        "memory_bytes": 2,
        "memory_peak_bytes": 3,
        "memory_limit_bytes": 4,
        "pids": 5,
        "pids_limit": 6,
        "disk_bytes": 7,
        "network_received_bytes": 8,
        "network_sent_bytes": 9,
    } | changes


def problem(status: int, code: str, **changes: Any) -> dict[str, Any]:
    """An error body with some members changed."""
    return {
        "type": f"/docs/errors/{code}",
        "title": code.replace("_", " "),
        "status": status,
        "detail": f"this is {code}",
        "code": code,
        "request_id": "req-9",
        "retryable": False,
    } | changes


@dataclass
class Reply:
    """One prepared answer."""

    status: int = 200
    json: Any = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Close the connection after so many bytes of the body; -1: before the status line."""
    hold: threading.Event | None = None
    """Answer only after this is set."""
    hold_after: int = -1
    """What is held: all after so many bytes of the body; -1: the whole answer."""


@dataclass
class Seen:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class StubGateway:
    """Answers the prepared replies in order and the last of them for ever."""

    def __init__(self, port: int = 0) -> None:
        self.seen: list[Seen] = []
        self._replies: list[Reply] = [Reply(json=execution())]
        self._served = 0
        self._lock = threading.Lock()
        self.arrived = threading.Event()
        """Set when the first request is here."""
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def replies(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self._served = 0

    def stop(self) -> None:
        for reply in self._replies:
            if reply.hold is not None:
                reply.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            self.arrived.set()
            reply = self._replies[min(self._served, len(self._replies) - 1)]
            self._served += 1
            return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        next_reply: Callable[[Seen], Reply] = self._next

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = next_reply(Seen(self.command, self.path, headers, self._body()))
                try:
                    self._send(reply)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client of this test has gone away, as it should

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length") or 0))
                body = b""
                while size := int(self.rfile.readline() or b"0", 16):  # nothing: the client has gone away
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _send(self, reply: Reply) -> None:
                if reply.hold is not None and reply.hold_after == -1:
                    reply.hold.wait(30)
                if reply.cut_after == -1:
                    self.close_connection = True
                    return
                kind = "application/json" if reply.status < 400 else "application/problem+json"
                body = reply.body if reply.body is not None else json.dumps(reply.json).encode()
                headers = {"content-type": kind, "x-request-id": "req-h"} | reply.headers
                if reply.status in (202, 204) and reply.json is None:
                    body, headers = b"", {"x-request-id": "req-h"}
                self.send_response(reply.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if reply.status != 204:
                    self.send_header("content-length", str(len(body)))
                self.end_headers()
                if reply.cut_after is not None:
                    body = body[: reply.cut_after]
                    self.close_connection = True
                if reply.hold is not None and reply.hold_after != -1:
                    self.wfile.write(body[: reply.hold_after])
                    reply.hold.wait(30)
                    body = body[reply.hold_after :]
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815 - the names http.server looks for

            def log_message(self, *args: object) -> None:
                """Nothing: the requests are in `seen`."""

        return Handler


def repeated(reply: Reply, times: int) -> Iterable[Reply]:
    """The same answer several times."""
    return [reply] * times
