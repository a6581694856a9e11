"""Executions whose output comes while they run."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import aclosing, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faas_sdk import (
    AsyncFaaSClient,
    ExecutionTimeoutError,
    ExitEvent,
    FaaSClient,
    GapEvent,
    InvalidRequestError,
    OutputEvent,
    RetryPolicy,
    SandboxLostError,
    StartedEvent,
)

import leftovers
import raw

MIB = 1 << 20
NDJSON = "application/x-ndjson"


def gather(events):
    """Standard output, standard error, how it ended; asserts that the events are in order."""
    started, *between, end = events
    assert isinstance(started, StartedEvent)
    assert isinstance(end, ExitEvent)
    assert (started.execution_id, started.request_id) == (end.execution_id, end.request_id)
    said, offset = {"stdout": b"", "stderr": b""}, 0
    for event in between:
        assert isinstance(event, OutputEvent), event
        assert event.offset == offset
        assert event.data != b""
        offset += len(event.data)
        said[event.stream] += event.data
    return said["stdout"], said["stderr"], end


def wait_for_process(command):
    """Returns when a process runs of which this is all of the command line: the shell's has more."""

    def missing():
        lines = [line.partition(": ")[2] for line in leftovers.processes_with(command)]
        return [] if command in lines else [f"no {command}"]

    assert leftovers.eventually(missing) == []


def test_output_comes_while_the_command_runs_and_closing_the_stream_ends_it(client, mark):
    with closing(client.stream(f"echo first; echo second >&2; sleep {mark}", timeout_ms=600_000)) as stream:
        assert isinstance(next(stream), StartedEvent)
        assert next(stream).text == "first\n"
        second = next(stream)
        assert (second.stream, second.text, second.offset) == ("stderr", "second\n", 6)
        wait_for_process(f"sleep {mark}")
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_a_task_that_is_cancelled_ends_its_command(gateway, mark):
    async def run():
        async with (
            AsyncFaaSClient(gateway.url) as client,
            aclosing(client.stream(f"echo begun; sleep {mark}", timeout_ms=600_000)) as stream,
        ):
            async for event in stream:
                if isinstance(event, OutputEvent):
                    return event.text
        return None

    assert asyncio.run(run()) == "begun\n"
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_a_client_that_goes_away_while_nothing_is_said_ends_its_command(gateway, client, mark):
    parts = urlsplit(gateway.url)
    body = json.dumps({"command": f"sleep {mark}", "timeout_ms": 600_000}).encode()
    head = (
        "POST /api/v1/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"accept: {NDJSON}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    for behind in (b"", b"GET /"):
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(head.encode() + body + behind)
            assert b"200 OK" in connection.recv(4096)
            wait_for_process(f"sleep {mark}")
        assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    assert client.execute("echo fine").stdout == "fine\n"


@pytest.mark.parametrize("code", [0, 3, 137])
def test_the_end_tells_what_an_answer_tells(client, code):
    stdout, stderr, end = gather(client.stream(f"echo out; echo err >&2; exit {code}", request_id="e2e-stream"))
    assert (stdout, stderr) == (b"out\n", b"err\n")
    assert (end.exit_code, end.ok, end.signal, end.request_id) == (code, code == 0, None, "e2e-stream")
    assert end.error == (None if code == 0 else f"process exited with code {code}")
    assert end.duration_ms >= 1
    assert end.timings.exec_us > 0
    assert (end.stdout_truncated, end.stderr_truncated, end.oom_killed) == (False, False, False)


def test_a_command_without_output_and_one_that_is_not_there(client):
    stdout, stderr, end = gather(client.stream("true"))
    assert (stdout, stderr, end.exit_code) == (b"", b"", 0)
    stdout, stderr, end = gather(client.stream(["no-such-program"]))
    assert (stdout, end.exit_code) == (b"", 127)
    assert b"no-such-program" in stderr


def test_bytes_are_exact_and_text_is_text(client):
    everything = bytes(range(256)) * 1000
    events = list(client.stream(["cat"], stdin=everything))
    assert gather(events)[0] == everything
    assert not any(event.is_text for event in events if isinstance(event, OutputEvent))
    text = "x\u20ac\U0001f680" * 40_000
    events = list(client.stream(["cat"], stdin=text))
    assert gather(events)[0].decode() == text
    assert all(event.is_text for event in events if isinstance(event, OutputEvent))


def test_a_character_that_is_written_in_two_parts_is_text(client):
    events = list(client.stream(r"printf 'a\342\202'; sleep 2; printf '\254b'; printf '\342' >&2"))
    stdout, stderr, _ = gather(events)
    assert (stdout.decode(), stderr) == ("a\u20acb", b"\xe2")
    assert [event.is_text for event in events if isinstance(event, OutputEvent) and event.stream == "stdout"] == [
        True,
        True,
    ]


def test_as_much_as_an_answer_has_comes_whole_to_a_slow_reader_too(client, mark):
    command = f"head -c {MIB} /dev/zero | tr '\\0' x; head -c {MIB} /dev/zero | tr '\\0' y >&2; sleep {mark}"
    with closing(client.stream(command, timeout_ms=600_000)) as stream:
        next(stream)
        wait_for_process(f"sleep {mark}")
        said = {"stdout": b"", "stderr": b""}
        while said != {"stdout": b"x" * MIB, "stderr": b"y" * MIB}:
            event = next(stream)
            assert isinstance(event, OutputEvent), event
            said[event.stream] += event.data


def test_the_limit_of_output_holds(client):
    stdout, stderr, end = gather(client.stream("echo 0123456789; echo abc >&2", max_output_bytes=4))
    assert (stdout, stderr) == (b"0123", b"abc\n")
    assert (end.stdout_truncated, end.stderr_truncated) == (True, False)


def test_a_timeout_after_output_is_a_typed_error(client, mark):
    events = []
    with pytest.raises(ExecutionTimeoutError) as caught:
        events.extend(client.stream(f"echo so far; sleep {mark}", timeout_ms=500))
    execution = caught.value.execution
    assert (caught.value.status, caught.value.code) == (504, "execution_timeout")
    assert execution is not None
    assert (execution.exit_code, execution.signal, execution.stdout) == (137, "SIGKILL", "")
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_a_sandbox_that_dies_ends_its_stream_with_a_typed_error(client, mark):
    stream = client.stream(f"echo so far; sleep 2; kill -9 $PPID; sleep {mark}", timeout_ms=600_000)
    assert isinstance(next(stream), StartedEvent)
    assert next(stream).text == "so far\n"
    with pytest.raises(SandboxLostError):
        next(stream)
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_what_fails_before_the_command_runs_is_an_ordinary_answer(gateway):
    with (
        FaaSClient(gateway.url, retry=RetryPolicy(max_retries=0)) as client,
        pytest.raises(InvalidRequestError) as caught,
    ):
        list(client.stream("true", working_dir="/no/such/place"))
    assert caught.value.errors[0].pointer == "/working_dir"
    answer = raw.execute(gateway.url, {"command": "true", "user": "nobody-there"}, accept="text/event-stream")
    raw.assert_problem(answer, 422, "invalid_request")
    answer = raw.execute(gateway.url, {"command": "true"}, accept="text/event-stream", **{"last-event-id": "7"})
    assert "cannot be resumed" in raw.assert_problem(answer, 422, "invalid_request")["detail"]


def test_server_sent_events_say_the_same_and_have_the_offset_after_them_as_id(gateway):
    answer = raw.execute(
        gateway.url, {"command": "echo hi; sleep 0.2; echo you >&2; exit 2"}, accept="text/event-stream"
    )
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    blocks = [block for block in answer.body.decode().split("\n\n") if block and not block.startswith(":")]
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    assert [(event["event"], event["id"]) for event in events] == [
        ("started", "0"),
        ("stdout", "3"),
        ("stderr", "7"),
        ("exit", "7"),
    ]
    said = [json.loads(event["data"]) for event in events]
    assert said[1] == {"event": "stdout", "offset": 0, "data": "hi\n"}
    assert said[2] == {"event": "stderr", "offset": 3, "data": "you\n"}
    assert (said[3]["exit_code"], said[3]["error"]) == (2, "process exited with code 2")
    assert not {"stdout", "stderr", "output", "logs"} & said[3].keys()


def memory_kib(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))


@pytest.mark.modes("root")
def test_a_slow_reader_of_a_hundred_mebibytes_holds_up_nobody_and_costs_no_memory(start, mark):
    running = start(None, "--max-output-bytes", str(256 * MIB))
    with FaaSClient(running.url) as client:
        assert client.execute("true").ok
        before = memory_kib(running.process.pid, "VmRSS:")
        command = f"head -c {100 * MIB} /dev/zero | tr '\\0' x; echo end >&2; sleep {mark}"
        with closing(client.stream(command, max_output_bytes=256 * MIB, timeout_ms=600_000)) as stream:
            assert isinstance(next(stream), StartedEvent)
            # It has written everything while nobody reads.
            wait_for_process(f"sleep {mark}")
            grown = memory_kib(running.process.pid, "VmHWM:") - before
            assert grown < 32 * 1024, f"{grown} KiB"
            offset, gaps, tail = 0, 0, b""
            for event in stream:
                if isinstance(event, GapEvent):
                    assert (event.start, event.end > event.start) == (offset, True)
                    offset, gaps = event.end, gaps + 1
                    continue
                assert isinstance(event, OutputEvent)
                assert event.offset == offset
                offset += len(event.data)
                if event.stream == "stderr":
                    tail = event.data
                    break
            assert gaps >= 1
            assert (offset, tail) == (100 * MIB + 4, b"end\n")
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_many_streams_at_once_keep_their_own_output(gateway):
    async def together():
        async with AsyncFaaSClient(gateway.url) as client:

            async def one(n):
                events = [event async for event in client.stream(f"echo {n}; sleep 0.1; echo {n} >&2; exit {n}")]
                return gather(events)

            return await asyncio.gather(*(one(n) for n in range(24)))

    for n, (stdout, stderr, end) in enumerate(asyncio.run(together())):
        assert (stdout, stderr, end.exit_code) == (f"{n}\n".encode(), f"{n}\n".encode(), n)
