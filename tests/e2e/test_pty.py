"""Terminals over a WebSocket: a shell as a person uses it, connections that come and go, and what is refused."""

from __future__ import annotations

import json
import time
from urllib.parse import urlsplit

import pytest
from faas_sdk import (
    APIError,
    ConflictError,
    ConnectionLostError,
    GoneError,
    InvalidRequestError,
    NotFoundError,
    RangeNotSatisfiableError,
    TerminalSize,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import leftovers
import raw
from executions import gone, runs

PATIENCE_S = 60.0


@pytest.fixture
def instance(tenant, backend):
    return tenant.instances.create(**backend.create)


def until(terminal, wanted: bytes) -> bytes:
    """What a terminal shows up to something."""
    got, seen, deadline = bytearray(), 0, time.monotonic() + PATIENCE_S
    while wanted not in got[max(seen - len(wanted), 0) :]:
        seen = len(got)
        try:
            piece = terminal.read(timeout_s=max(deadline - time.monotonic(), 0.01))
        except TimeoutError:
            piece = b""
        assert piece, f"there is no {wanted!r} in {bytes(got)!r}"
        got += piece
    return bytes(got)


def heard(socket) -> None:
    """Hears on until the connection ends."""
    while True:
        socket.recv(PATIENCE_S)


def to_its_end(terminal) -> None:
    """Reads on until it ends, or its connection does."""
    while terminal.read(timeout_s=PATIENCE_S):
        pass


def said(terminal, command: str, answer: str) -> bytes:
    """Types a command whose echo does not have its answer in it; what is shown up to that."""
    assert answer not in command
    terminal.write(command + "\n")
    return until(terminal, answer.encode())


def test_a_shell_prompts_answers_and_tells_its_code(instance, tenant):
    with instance.pty(rows=30, cols=90) as terminal:
        until(terminal, b"# ")
        said(terminal, "echo $((40+2))th", "42th")
        said(terminal, "test -t 0 && test -t 1 && test -t 2 && echo a$((1))tty", "a1tty")
        assert terminal.end is None
        found = tenant.executions.get(terminal.execution_id)
        assert (found.status, found.info.kind, found.info.tty) == (
            "running", "terminal", TerminalSize(rows=30, cols=90),
        )  # fmt: skip
        terminal.write("exit 7\n")
        to_its_end(terminal)
        assert (terminal.end.status, terminal.end.exit_code) == ("exited", 7)
    assert found.refresh().exit_code == 7
    assert b"42th" in found.output().stdout


def test_a_terminal_has_its_size_and_gets_another(instance):
    with instance.pty() as terminal:
        until(terminal, b"# ")
        said(terminal, "stty size", "24 80")
        terminal.write("trap 'echo w$((1))nch' WINCH\n")
        terminal.resize(50, 132)
        said(terminal, "stty size", "50 132")
        said(terminal, "stty size; echo d$((1))ne", "d1ne")


def test_control_c_interrupts_what_runs_and_not_the_shell(instance, mark):
    with instance.pty() as terminal:
        until(terminal, b"# ")
        terminal.write(f"sleep {mark}\n")
        runs(f"sleep {mark}")
        terminal.write(b"\x03")
        gone(f"sleep {mark}")
        said(terminal, "echo st$((1))ll", "st1ll")


def test_a_command_user_and_directory_of_ones_own(instance):
    with instance.pty(
        command="pwd; id -u; read line; echo got $line; exit 3", working_dir="/tmp", user="0"
    ) as terminal:
        until(terminal, b"/tmp\r\n0\r\n")
        terminal.write("x y\n")
        until(terminal, b"got x y")
        to_its_end(terminal)
        assert terminal.end.exit_code == 3


def test_a_shell_outlives_its_connections_and_shows_what_was_missed(instance, tenant):
    with instance.pty() as terminal:
        begin = terminal.offset
        shown = until(terminal, b"# ")
        shown += said(terminal, "X=$((5*5)); echo first$X", "first25")
        at = terminal.offset
        assert at == begin + len(shown)
        # The connection breaks, and the shell says something meanwhile.
        terminal.write("sleep 0.5; echo while$X\n")
        terminal._socket._connection.socket.shutdown(2)
        with pytest.raises(ConnectionLostError):
            to_its_end(terminal)
        terminal.reattach(offset=at)
        until(terminal, b"while25")
        terminal.reattach()
        said(terminal, "echo later$X", "later25")
        # From the beginning, all of it once more; also to somebody else at the same time.
        with instance.pty(execution_id=terminal.execution_id, offset=begin) as other:
            assert until(other, b"later25").startswith(shown)
            said(terminal, "echo both$X", "both25")
            until(other, b"both25")
        with instance.pty(execution_id=terminal.execution_id) as other:
            assert until(other, b"both25").startswith(shown)
        with pytest.raises(RangeNotSatisfiableError):
            instance.pty(execution_id=terminal.execution_id, offset=terminal.offset + 100_000)
    assert tenant.executions.get(terminal.execution_id).status == "running"
    tenant.executions.cancel(terminal.execution_id)
    assert tenant.executions.get(terminal.execution_id).status == "cancelled"


def test_a_shell_outlives_a_killed_server(succession, backend):
    instance = succession.client.instances.create(**backend.create)
    terminal = instance.pty()
    until(terminal, b"# ")
    said(terminal, "X=$((6*7)); echo before$X", "before42")
    client = succession.next()
    with pytest.raises(ConnectionLostError):
        to_its_end(terminal)
    terminal.close()
    with client.instances.pty(instance.id, execution_id=terminal.execution_id, offset=terminal.offset) as again:
        said(again, "echo after$X", "after42")


def test_output_that_a_terminal_no_longer_holds_is_gone(instance):
    with instance.pty() as terminal:
        until(terminal, b"# ")
        said(terminal, "head -c 14000000 /dev/zero | tr '\\0' x; echo e$((1))nd", "e1nd")
        with pytest.raises(GoneError) as caught:
            instance.pty(execution_id=terminal.execution_id, offset=0)
        assert 0 < caught.value.first_offset <= terminal.offset


@pytest.mark.parametrize("program", ["vi", "top"])
def test_programs_that_draw_are_driven(instance, program):
    assert instance.exec(f"command -v {program}").ok, f"the image has no {program}: scripts/provision.sh"
    with instance.pty(rows=24, cols=80) as terminal:
        until(terminal, b"# ")
        said(terminal, "export TERM=xterm; cd /tmp; echo r$((1))ady", "r1ady")
        if program == "vi":
            terminal.write("vi drawn\n")
            until(terminal, b"~")
            terminal.write("ihello from the terminal")
            until(terminal, b"terminal")
            # An escape key is one that nothing follows at once.
            terminal.write("\x1b")
            until(terminal, b"\x1b[")
            terminal.write(":wq\r")
            # What is typed while it ends is thrown away by it.
            until(terminal, b"# ")
            said(terminal, "echo w$((1))itten", "w1itten")
        else:
            terminal.write("top\n")
            until(terminal, b"PID")
            terminal.write("q")
            until(terminal, b"# ")
            said(terminal, "echo q$((1))it", "q1it")
    if program == "vi":
        assert instance.exec("cat /tmp/drawn").stdout == "hello from the terminal\n"


@pytest.mark.parametrize(
    "frame",
    [
        "rubbish",
        "[]",
        "{}",
        '{"type": "resize"}',
        '{"type": "resize", "rows": 0, "cols": 80}',
        '{"type": "resize", "rows": 24, "cols": 100000}',
        '{"type": "resize", "rows": "24", "cols": 80}',
        '{"type": "newer"}',
    ],
)
def test_rubbish_frames_are_refused(instance, tenant, frame):
    url = "ws" + tenant.base_url.removeprefix("http") + f"/api/v1/instances/{instance.id}/pty"
    with connect(url, compression=None) as socket:
        started = json.loads(socket.recv())
        assert started["type"] == "started"
        socket.send(frame)
        with pytest.raises(ConnectionClosed) as caught:
            heard(socket)
    assert caught.value.rcvd.code == 1008
    assert caught.value.rcvd.reason
    # The shell itself is not the connection's.
    assert tenant.executions.get(started["execution_id"]).status == "running"
    tenant.executions.cancel(started["execution_id"])


def test_a_sandbox_that_ends_ends_its_terminals_with_a_typed_frame(instance):
    terminal = instance.pty()
    until(terminal, b"# ")
    instance.stop(grace_ms=0)
    to_its_end(terminal)
    assert (terminal.end.status, terminal.end.exit_code) == ("lost", None)
    assert terminal.end.status_reason
    terminal.close()
    with pytest.raises(ConflictError):
        instance.pty()


def test_what_cannot_be_is_refused_before_there_is_a_connection(instance, tenant):
    with pytest.raises(NotFoundError):
        tenant.instances.pty("ins-0000000000000000")
    with pytest.raises(NotFoundError):
        instance.pty(execution_id="exe-0000000000000000")
    for size in ({"rows": 0}, {"cols": 0}, {"rows": 1 << 16}, {"cols": -1}):
        with pytest.raises(InvalidRequestError):
            instance.pty(**size)
    with pytest.raises(APIError):
        instance.pty(execution_id=instance.exec("true", background=True).wait().id)
    parts = urlsplit(tenant.base_url)
    answer = raw.request(tenant.base_url, "GET", f"/api/v1/instances/{instance.id}/pty", None, {"host": parts.netloc})
    assert 400 <= answer.status < 500
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_terminals_leave_nothing_when_their_instance_is_deleted(instance, tenant, mark):
    terminals = [instance.pty(command=f"sleep {mark}") for _ in range(5)]
    runs(f"sleep {mark}", 5)
    instance.delete()
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    for terminal in terminals:
        to_its_end(terminal)
        assert terminal.end.status == "lost"
        terminal.close()
