"""Terminals: frames both ways, connecting again, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.sync.server import ServerConnection, serve

from faas_sdk import (
    ConflictError,
    ConnectFailedError,
    ConnectionLostError,
    GapEvent,
    GoneError,
    ResponseFormatError,
    SandboxLostError,
)
from tests.conftest import Caller
from tests.driver import drive
from tests.stub import lasting, problem

STARTED = json.dumps({"type": "started", "execution_id": "exe-1", "offset": 5})
EXIT = json.dumps({"type": "exit"} | lasting(kind="terminal", status="exited", exit_code=3))


class Terminals:
    """A server that does with each connection what the test says."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.headers: list[Headers] = []
        self.scripts: list[Callable[[ServerConnection], None]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.heard: list[str | bytes] = []
        self._server = serve(self._talk, "127.0.0.1", 0, process_request=self._look)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _look(self, _connection: ServerConnection, request: Any) -> Response | None:
        self.paths.append(request.path)
        self.headers.append(request.headers)
        if self.refusal is None:
            return None
        status, body = self.refusal
        headers = Headers({"content-type": "application/problem+json", "x-request-id": "req-h"})
        return Response(status, HTTPStatus(status).phrase, headers, json.dumps(body).encode())

    def _talk(self, connection: ServerConnection) -> None:
        self.scripts.pop(0)(connection)

    def says(self, *frames: str | bytes, hears: int = 0, drops: bool = False) -> None:
        """What is done with the next connection: so many frames are heard before the last of those is said."""

        def script(connection: ServerConnection) -> None:
            for frame in frames[:-1]:
                connection.send(frame)
            for _ in range(hears):
                self.heard.append(connection.recv(10))
            connection.send(frames[-1])
            if drops:
                connection.socket.close()
                return
            for _ in connection:  # until the client closes it
                pass

        self.scripts.append(script)


@pytest.fixture
def server() -> Iterator[Terminals]:
    terminals = Terminals()
    yield terminals
    terminals.stop()


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest, server: Terminals) -> Caller:
    return Caller(request.param, server.url)


def test_bytes_go_both_ways_and_the_end_is_told(caller, server):
    server.says(STARTED, b"$ ", b"\xff", EXIT, hears=4)

    async def steps(driver):
        terminal = await driver(
            driver.client.instances.pty, "ins-1", rows=30, cols=90, command="top", user="1", working_dir="/w"
        )
        assert (terminal.execution_id, terminal.offset, terminal.end) == ("exe-1", 5, None)
        assert [await driver(terminal.read), await driver(terminal.read)] == [b"$ ", b"\xff"]
        assert terminal.offset == 8
        await driver(terminal.write, "h\u00e9\n")
        await driver(terminal.write, b"\x03")
        await driver(terminal.resize, 50, 132)
        await driver(terminal.write, bytearray(b""))
        assert [await driver(terminal.read), await driver(terminal.read)] == [b"", b""]
        assert (terminal.end.exit_code, terminal.end.kind) == (3, "terminal")
        await driver(terminal.close)
        await driver(terminal.close)

    drive(caller, steps)
    assert server.paths == [
        "/api/v1/instances/ins-1/pty?rows=30&cols=90&command=top&user=1&working_dir=%2Fw"
    ]  # fmt: skip
    *typed, resized, empty = server.heard
    assert typed == ["h\u00e9\n".encode(), b"\x03"]
    assert json.loads(resized) == {"type": "resize", "rows": 50, "cols": 132}
    assert empty == b""


def test_a_terminal_is_an_iterator_and_closes_its_connection(caller, server):
    server.says(STARTED, b"a", json.dumps({"type": "newer"}), b"b", EXIT)

    async def steps(driver):
        terminal = await driver(driver.client.instances.pty, "ins-1")
        if caller.kind == "sync":
            with terminal:
                got = list(terminal)
        else:
            async with terminal:
                got = [piece async for piece in terminal]
        with pytest.raises(ConnectionLostError):
            await driver(terminal.write, b"x")
        return got

    assert drive(caller, steps) == [b"a", b"b"]
    assert server.paths == ["/api/v1/instances/ins-1/pty?rows=24&cols=80"]


def test_a_connection_that_drops_is_made_again_where_it_was(caller, server):
    server.says(STARTED, b"abc", drops=True)
    server.says(json.dumps({"type": "started", "execution_id": "exe-1", "offset": 8}), b"d")
    gap = json.dumps({"type": "gap", "from": 9, "to": 100})
    server.says(json.dumps({"type": "started", "execution_id": "exe-1", "offset": 0}), gap, b"e")
    server.says(STARTED, b"f")

    async def steps(driver):
        terminal = await driver(driver.client.instances.pty, "ins-1")
        assert await driver(terminal.read) == b"abc"
        with pytest.raises(ConnectionLostError):
            await driver(terminal.read)
        assert await driver(terminal.reattach) is terminal
        assert await driver(terminal.read) == b"d"
        await driver(terminal.reattach, offset=0)
        assert await driver(terminal.read) == b"e"
        assert (terminal.gaps, terminal.offset) == ((GapEvent(start=9, end=100),), 101)
        other = await driver(driver.client.instances.pty, "ins-1", execution_id="exe-1", offset=5)
        assert await driver(other.read) == b"f"
        assert repr(other).endswith("Terminal(execution_id='exe-1', offset=6)")
        await driver(other.close)
        await driver(terminal.close)

    drive(caller, steps)
    assert [path.partition("?")[2] for path in server.paths[1:]] == [
        "execution_id=exe-1&offset=8",
        "execution_id=exe-1&offset=0",
        "execution_id=exe-1&offset=5",
    ]


def test_a_read_has_its_time_and_loses_nothing(caller, server):
    server.says(STARTED, b"late", hears=1)

    async def steps(driver):
        terminal = await driver(driver.client.instances.pty, "ins-1")
        with pytest.raises(TimeoutError):
            await driver(terminal.read, timeout_s=0.05)
        await driver(terminal.write, b"go")
        assert await driver(terminal.read, timeout_s=10) == b"late"
        await driver(terminal.close)

    drive(caller, steps)


def test_headers_of_the_client_go_with_it(caller, server):
    caller.settings["headers"] = {"x-mine": "yes"}
    server.says(STARTED)

    async def steps(driver):
        await driver((await driver(driver.client.instances.pty, "ins-1")).close)

    drive(caller, steps)
    assert server.headers[0]["x-mine"] == "yes"
    assert server.headers[0]["user-agent"].startswith("faas-sdk-python/")


@pytest.mark.parametrize(("status", "code", "kind"), [(409, "conflict", ConflictError), (410, "gone", GoneError)])
def test_a_refusal_has_its_class(caller, server, status, code, kind):
    server.refusal = (status, problem(status, code, first_offset=7))
    with pytest.raises(kind) as caught:
        caller("instances.pty", "ins-1")
    assert (caught.value.status, caught.value.detail) == (status, f"this is {code}")
    if kind is GoneError:
        assert caught.value.first_offset == 7


def test_an_error_on_the_connection_has_its_class(caller, server):
    lost = json.dumps({**problem(502, "sandbox_lost"), "type": "error"})
    server.says(lost)
    with pytest.raises(SandboxLostError):
        caller("instances.pty", "ins-1")
    server.says(STARTED, lost)

    async def steps(driver):
        terminal = await driver(driver.client.instances.pty, "ins-1")
        with pytest.raises(SandboxLostError) as caught:
            await driver(terminal.read)
        assert caught.value.status == 502
        await driver(terminal.close)

    drive(caller, steps)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("x", "a text frame is not JSON"),
        ("[]", "the body is an array, not an object"),
        ("{}", "/type is missing"),
        ('{"type": "started"}', "/execution_id is missing"),
        ('{"type": "newer"}', "does not say first that it is there"),
        (b"$ ", "does not say first that it is there"),
    ],
)
def test_what_is_not_the_contracts_is_refused(caller, server, frame, words):
    server.says(frame)
    with pytest.raises(ResponseFormatError, match=words):
        caller("instances.pty", "ins-1")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_nobody_there_is_an_error(kind):
    with pytest.raises(ConnectFailedError, match=r"127\.0\.0\.1:1"):
        Caller(kind, "http://127.0.0.1:1")("instances.pty", "ins-1")
    with pytest.raises(ValueError, match="give its execution_id"):
        Caller(kind, "http://127.0.0.1:1")("instances.pty", "ins-1", offset=3)
