"""Executions that last: whose they are, what is held of their output, and how each of their ends is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from faas_sdk import (
    APIError,
    AsyncFaaSClient,
    ConflictError,
    EndEvent,
    ExecutionTimeoutError,
    ExitEvent,
    GapEvent,
    GoneError,
    InvalidRequestError,
    NotFoundError,
    OutputEvent,
    RangeNotSatisfiableError,
    SandboxLostError,
    StartedEvent,
    TerminalSize,
)

import leftovers
import raw
from executions import gone, log_of, runs, until
from instances import agents_below, first_process, has_cgroups, outcome

COUNT = "i=0; while [ $i -lt {0} ]; do echo $i; i=$((i+1)); done"
HOLD = "head -c {0} /dev/zero | tail -c {0} | wc -c"
"""Holds so many bytes in memory at once."""

MIB = 1 << 20

LOOP = "while :; do sleep 0.05; done"


@pytest.fixture
def instance(tenant, backend):
    return tenant.instances.create(**backend.create, memory_mb=128)


def test_what_runs_in_the_background_is_answered_for_at_once_and_has_its_end(instance, tenant):
    started = instance.exec("echo out; echo err >&2; sleep 0.3; exit 3", background=True, labels={"job": "7"})
    assert (started.status, started.exit_code, started.info.ended_at) == ("running", None, None)
    info = started.info
    assert (info.instance_id, info.kind, info.background, info.labels) == (instance.id, "command", True, {"job": "7"})
    assert (info.tty, info.timeout_ms) == (None, None)
    started.wait()
    assert (started.status, started.exit_code, started.info.error) == ("exited", 3, "process exited with code 3")
    assert (started.info.signal, started.info.oom_killed, started.info.first_offset) == (None, False, 0)
    assert started.info.next_offset == len("out\nerr\n")
    assert started.info.duration_ms >= 300
    assert started.info.ended_at is not None
    output = started.output()
    assert (output.stdout, output.stderr, output.gaps) == (b"out\n", b"err\n", ())
    assert tenant.executions.get(started.id).info == started.info


def test_a_wait_has_its_time_and_ends_nothing(instance, mark):
    started = instance.exec(f"sleep {mark}", background=True)
    with pytest.raises(TimeoutError):
        started.wait(timeout_s=0.2)
    runs(f"sleep {mark}")
    assert started.refresh().status == "running"
    started.cancel()
    assert started.wait(timeout_s=60).status == "cancelled"
    gone(mark)


def test_a_background_command_has_no_timeout_unless_one_is_given(instance, mark):
    started = instance.exec(f"echo so far; sleep {mark}", background=True, timeout_ms=2000)
    assert started.info.timeout_ms == 2000
    log, error = log_of(started.stream())
    assert log == b"so far\n"
    assert isinstance(error, ExecutionTimeoutError), error
    assert started.refresh().status == "timed_out"
    gone(mark)


def test_what_runs_in_the_background_outlives_its_client_and_a_killed_server(succession, backend):
    instance = succession.client.instances.create(**backend.create)
    command = f"{COUNT.format(300).replace('echo $i', 'echo $i; sleep 0.01')}; echo end >&2; exit 3"
    started = instance.exec(command, background=True)
    for _ in range(2):
        client = succession.next()
    found = client.executions.get(started.id)
    output = found.output()
    assert output.stdout_text.split() == [str(number) for number in range(300)]
    assert (output.stderr, output.gaps) == (b"end\n", ())
    assert (found.status, found.exit_code, found.info.created_at) == ("exited", 3, started.info.created_at)
    # What has ended is held as well.
    client = succession.next()
    found = client.executions.get(started.id)
    assert (found.status, found.output()) == ("exited", output)
    assert [one.id for one in client.instances.executions(instance.id)] == [started.id]


def test_a_command_that_ends_while_there_is_no_server_has_ended(succession, backend, mark):
    instance = succession.client.instances.create(**backend.create)
    started = instance.exec(f"echo begun; exec sleep {mark}", background=True)
    until(started.stream(), b"begun\n")
    runs(f"sleep {mark}")
    succession.gateway.kill()
    os.kill(leftovers.pids_with(f"sleep {mark}")[0], signal.SIGKILL)
    gone(mark)
    found = succession.next().executions.get(started.id).wait(timeout_s=60)
    assert (found.status, found.info.signal, found.output().stdout) == ("exited", "SIGKILL", b"begun\n")


def test_a_stream_begins_at_any_offset(instance, house):
    started = instance.exec(f"{COUNT.format(60).replace('echo $i', 'echo $i; echo e$i >&2')}; printf '\\342\\202\\254'",
                            background=True).wait()  # fmt: skip
    log, end = log_of(started.stream(), 0)
    assert end.exit_code == 0
    assert len(log) == started.info.next_offset
    for offset in (0, 1, 5, len(log) // 2, len(log) - 2, len(log)):
        rest, end = log_of(started.stream(offset=offset), offset)
        assert (rest, end.exit_code) == (log[offset:], 0)
    # As server-sent events, whose id is the offset after each; a client goes on by it.
    path = f"/api/v1/executions/{started.id}/stream"
    whole = raw.request(house.url, "GET", path, None, {"accept": "text/event-stream"}).body.decode()
    ids = [int(line[4:]) for line in whole.splitlines() if line.startswith("id: ")]
    assert (ids == sorted(ids), ids[-1]) == (True, len(log))
    for query, last, offset in (("", str(len(log) - 3), len(log) - 3), ("?offset=4", "9", 9)):
        headers = {"accept": "application/x-ndjson", "last-event-id": last}
        lines = raw.request(house.url, "GET", path + query, None, headers).body.splitlines()
        events = [json.loads(line) for line in lines if line]
        assert next(event["offset"] for event in events if event["event"] in ("stdout", "stderr")) == offset
        assert events[-1]["event"] == "exit"


def test_output_that_was_dropped_is_gone_and_what_never_was_is_not_satisfiable(instance, house):
    size = 14 * MIB
    started = instance.exec(f"head -c {size - 4} /dev/zero | tr '\\0' x; echo end", background=True).wait()
    info = started.info
    assert (info.status, info.next_offset) == ("exited", size)
    assert 4 * MIB < size - info.first_offset <= 10 * MIB
    log, end = log_of(started.stream(), info.first_offset)
    assert isinstance(end, EndEvent)
    assert (len(log), log[-4:]) == (size - info.first_offset, b"end\n")
    path = f"/api/v1/executions/{started.id}/stream?offset="
    for offset in (0, info.first_offset - 1):
        with pytest.raises(GoneError) as dropped:
            list(started.stream(offset=offset))
        assert dropped.value.first_offset == info.first_offset
        answer = raw.request(house.url, "GET", f"{path}{offset}", None, {})
        assert raw.assert_problem(answer, 410, "gone")["first_offset"] == info.first_offset
    with pytest.raises(RangeNotSatisfiableError) as beyond:
        list(started.stream(offset=size + 1))
    assert beyond.value.next_offset == size
    answer = raw.request(house.url, "GET", f"{path}{size + 1}", None, {})
    assert raw.assert_problem(answer, 416, "range_not_satisfiable")["next_offset"] == size
    for wrong in ("-1", "x", "", "99999999999999999999999"):
        answer = raw.request(house.url, "GET", f"{path}{wrong}", None, {})
        raw.assert_problem(answer, 422, "invalid_request")


def test_input_is_read_as_it_comes_until_its_end(instance):
    started = instance.exec("while read line; do echo got $line; done; echo over", background=True, stdin_open=True)
    with closing(started.stream()) as events:
        started.input("one\n")
        assert until(events, b"got one\n")
        started.input(b"two\nthr")
        assert until(events, b"got two\n")
        started.input("ee\n", eof=True)
        assert until(events, b"over\n")
    assert started.wait().info.ok
    with pytest.raises(ConflictError):
        started.input("more")
    large = bytes(range(256)) * 4096
    started = instance.exec("cat", stdin_open=True, background=True)
    for at in range(0, len(large), 200_000):
        started.input(large[at : at + 200_000])
    started.input(eof=True)
    assert started.output().stdout == large


def test_input_that_nobody_can_read_is_a_conflict(instance, mark):
    closed = instance.exec(f"sleep {mark}", background=True)
    ended = instance.exec("echo over; exec 0<&-; exec sleep 600", background=True, stdin_open=True)
    until(ended.stream(), b"over\n")
    with pytest.raises(ConflictError):
        closed.input("x")
    once = instance.exec(f"cat; sleep {mark}", background=True, stdin_open=True)
    once.input("a", eof=True)
    for _ in range(2):
        with pytest.raises(ConflictError):
            once.input("b")
    for started in (closed, ended, once):
        started.cancel()


def test_signals_reach_a_command(instance):
    trap = f"trap 'echo asked; exit 7' TERM; trap 'echo hup' HUP; echo ready; {LOOP}"
    started = instance.exec(trap, background=True)
    with closing(started.stream()) as events:
        until(events, b"ready\n")
        started.signal("SIGHUP")
        until(events, b"hup\n")
        started.signal(15)
        until(events, b"asked\n")
    assert started.wait().exit_code == 7
    killed = instance.exec(f"{LOOP}", background=True)
    killed.signal("SIGKILL")
    killed.wait()
    assert (killed.status, killed.exit_code, killed.info.signal) == ("exited", 137, "SIGKILL")
    with pytest.raises(ConflictError):
        killed.signal("SIGTERM")


@pytest.mark.parametrize("name", ["SIGNONE", "", "sigterm ", 0, -1, 4096])
def test_a_signal_that_is_none_is_refused_with_the_place(instance, name):
    started = instance.exec(LOOP, background=True)
    with pytest.raises(InvalidRequestError) as caught:
        started.signal(name)
    assert [error.pointer for error in caught.value.errors] == ["/signal"]
    started.cancel()


def test_a_cancelled_command_is_gone_with_all_that_it_started(instance, tenant, mark):
    command = f"sleep {mark} & setsid sleep {mark} & (trap '' TERM; sleep {mark}; : ) & echo ready; sleep {mark}"
    started = instance.exec(command, background=True)
    until(started.stream(), b"ready\n")
    runs(f"sleep {mark}", 4)
    started.cancel()
    gone(mark)
    assert started.refresh().status == "cancelled"
    assert started.info.ended_at is not None
    # Once more is no error, whoever asks.
    started.cancel()
    tenant.executions.cancel(started.id)
    assert started.output().stdout == b"ready\n"


def test_what_never_was_is_not_found(tenant):
    for call in (
        lambda: tenant.executions.get("exe-0000000000000000"),
        lambda: tenant.executions.cancel("exe-0000000000000000"),
        lambda: tenant.executions.input("exe-0000000000000000", "x"),
        lambda: tenant.executions.signal("exe-0000000000000000", "SIGTERM"),
        lambda: list(tenant.executions.stream("exe-0000000000000000")),
        lambda: tenant.instances.executions("ins-0000000000000000"),
    ):
        with pytest.raises(NotFoundError):
            call()


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"stdin_open": True}, "/stdin_open"),
        ({"tty": TerminalSize(rows=24, cols=80)}, "/tty"),
        ({"tty": TerminalSize(rows=0, cols=80), "background": True}, "/tty/rows"),
        ({"tty": TerminalSize(rows=24, cols=1 << 20), "background": True}, "/tty/cols"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_the_place(instance, options, pointer):
    with pytest.raises(InvalidRequestError) as caught:
        instance.exec("true", **options)
    assert pointer in [error.pointer for error in caught.value.errors]


def test_a_background_command_can_have_a_terminal(instance):
    started = instance.exec("test -t 1 && stty size; cat", background=True, tty=TerminalSize(rows=30, cols=90))
    assert started.info.tty == TerminalSize(rows=30, cols=90)
    with closing(started.stream()) as events:
        until(events, b"30 90")
        started.input("typed\n")
        until(events, b"typed")
        started.input(b"\x04")
    assert started.wait().exit_code == 0


def test_each_end_is_told_apart(instance, tenant, backend, mark):
    ends = {
        "code": instance.exec("exit 9", background=True),
        "signal": instance.exec("kill -9 $$", background=True),
        "timeout": instance.exec(f"sleep {mark}", background=True, timeout_ms=200),
        "cancel": instance.exec(f"sleep {mark}", background=True),
    }
    ends["cancel"].cancel()
    told = {name: started.wait(timeout_s=60) for name, started in ends.items()}
    assert {name: (one.status, one.info.signal) for name, one in told.items() if name != "timeout"} == {
        "code": ("exited", None),
        "signal": ("exited", "SIGKILL"),
        "cancel": ("cancelled", told["cancel"].info.signal),
    }
    assert (told["code"].exit_code, told["signal"].exit_code) == (9, 137)
    assert told["timeout"].status == "timed_out"
    assert [one.info.oom_killed for one in told.values()] == [False] * 4
    if has_cgroups(tenant, backend.name):
        hungry = instance.exec(HOLD.format(400_000_000), background=True).wait(timeout_s=60)
        assert (hungry.status, hungry.info.oom_killed) == ("exited", True)
    failed = outcome(instance.exec, "true", background=True, working_dir="/no/such/directory")
    assert isinstance(failed, InvalidRequestError) or failed.wait().status == "failed", failed


def test_what_an_agent_that_was_killed_ran_is_lost(instance, mark):
    started = instance.exec(f"echo begun; sleep {mark}", background=True)
    with closing(started.stream()) as events:
        until(events, b"begun\n")
        runs(f"sleep {mark}")
        os.kill(agents_below(first_process(mark))[0], signal.SIGKILL)
        with pytest.raises(SandboxLostError):
            list(events)
    assert started.wait(timeout_s=60).status == "lost"
    assert started.info.status_reason
    assert instance.refresh().status == "running"
    assert leftovers.eventually(lambda: [] if outcome(instance.exec, "true") else ["no agent"]) == []


@pytest.mark.parametrize("end", ["delete", "stop", "kill"])
def test_a_sandbox_that_ends_ends_every_stream_with_a_typed_event(instance, tenant, mark, end):
    started = [instance.exec(f"echo begun; sleep {mark}", background=True) for _ in range(3)]
    runs(f"sleep {mark}", 3)
    with ThreadPoolExecutor(8) as pool:
        streams = [one.stream() for one in started for _ in range(2)]
        for stream in streams:
            until(stream, b"begun\n")
        rest = [pool.submit(log_of, stream) for stream in streams]
        if end == "delete":
            instance.delete()
        elif end == "stop":
            instance.stop(grace_ms=0)
        else:
            os.kill(first_process(mark), signal.SIGKILL)
        for future in rest:
            log, error = future.result(60)
            assert log == b""
            assert isinstance(error, SandboxLostError), error
            assert error.detail
    gone(mark)
    for one in started:
        if end == "delete":
            with pytest.raises(NotFoundError):
                one.refresh()
        else:
            assert one.refresh().status == "lost"
            assert one.info.status_reason


def test_closing_a_stream_ends_nothing_and_many_read_the_same(instance, mark):
    started = instance.exec(f"echo begun; sleep {mark}", background=True)
    for _ in range(3):
        with closing(started.stream()) as events:
            assert until(events, b"begun\n") == b"begun\n"
    runs(f"sleep {mark}")
    assert started.refresh().status == "running"
    started.cancel()


def test_a_slow_reader_holds_up_nobody(instance, house):
    size = 14 * MIB
    parts = urlsplit(house.url)
    # A MiB each time that somebody has the one before.
    command = f"for i in $(seq {size // MIB}); do read go; head -c {MIB} /dev/zero | tr '\\0' x; done; echo end >&2"
    started = instance.exec(command, background=True, stdin_open=True)
    head = f"GET /api/v1/executions/{started.id}/stream HTTP/1.0\r\nhost: localhost\r\n"
    with socket.create_connection((parts.hostname, parts.port)) as slow:
        slow.sendall(f"{head}accept: application/x-ndjson\r\n\r\n".encode())
        started.input("go\n")
        # Another one has all of it, while the slow one takes nothing.
        end, had = None, 0
        for event in started.stream():
            assert not isinstance(event, GapEvent)
            if isinstance(event, OutputEvent):
                end, before = event.data, had // MIB
                had += len(event.data)
                if before < had // MIB < size // MIB:
                    started.input("go\n")
        assert end == b"end\n"
        assert started.refresh().info.ok
        assert started.info.first_offset > 0
        assert instance.exec("echo fine").stdout == "fine\n"
        # The slow one gets the rest, and is told what it missed.
        answer = b""
        while piece := slow.recv(1 << 20):
            answer += piece
    events = [json.loads(line) for line in answer.partition(b"\r\n\r\n")[2].splitlines() if line]
    at = 0
    for event in events[1:-1]:
        if event["event"] == "gap":
            assert event["from"] == at
            at = event["to"]
        else:
            assert event["offset"] == at
            at += len(event["data"])
    assert "gap" in [event["event"] for event in events]
    assert (at, events[-1]["event"], events[-1]["exit_code"]) == (size + 4, "exit", 0)


def test_the_limit_of_output_holds_in_the_background(instance):
    limited = instance.exec("head -c 5000 /dev/zero; echo err >&2", background=True, max_output_bytes=100).wait()
    assert (limited.info.next_offset, limited.info.stdout_truncated, limited.info.stderr_truncated) == (
        104,
        True,
        False,
    )
    assert limited.output().stderr == b"err\n"


@pytest.mark.modes("root")
def test_a_thousand_streams_at_once(instance, house, many_descriptors):
    started = instance.exec("echo begun; read go; echo went $go", background=True, stdin_open=True)

    async def all_of_them():
        async with AsyncFaaSClient(house.url, max_connections=1100) as client:
            found = await client.executions.get(started.id)
            begun = asyncio.Semaphore(0)
            # All are there at once, and do not all begin at once.
            beginning = asyncio.Semaphore(50)

            async def one():
                log = b""
                await beginning.acquire()
                async for event in found.stream(offset=0):
                    if isinstance(event, OutputEvent):
                        if not log:
                            beginning.release()
                        log += event.data
                        begun.release()
                return log

            # Whatever one of them fails of ends the rest, too.
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one()) for _ in range(1000)]
                for _ in tasks:
                    await begun.acquire()
                await found.input("on\n")
            return [task.result() for task in tasks]

    assert set(asyncio.run(all_of_them())) == {b"begun\nwent on\n"}
    assert instance.exec("echo fine").stdout == "fine\n"


def test_a_cancel_and_an_end_at_the_same_time_are_one_of_both(instance):
    for number in range(20):
        started = instance.exec("sleep 0.02", background=True)
        with ThreadPoolExecutor(3) as pool:
            time.sleep(0.003 * number)
            cancels = [pool.submit(outcome, started.cancel) for _ in range(2)]
            events = pool.submit(log_of, started.stream())
            assert [cancel.result(60) for cancel in cancels] == [None, None]
            _, end = events.result(60)
        assert isinstance(end, EndEvent | APIError), end
        status = started.refresh().status
        assert status in ("exited", "cancelled"), started.info
        assert started.refresh().status == status


def test_a_command_that_is_kept_does_not_end_with_its_connection(instance, house, mark):
    result = instance.exec("echo kept; exit 3", keep_running=True)
    assert (result.stdout, result.exit_code) == ("kept\n", 3)
    with closing(instance.stream(f"echo begun; sleep {mark}", keep_running=True, timeout_ms=600_000)) as events:
        begun = next(events)
        assert isinstance(begun, StartedEvent)
        assert next(events).text == "begun\n"
    runs(f"sleep {mark}")
    kept = next(one for one in instance.executions() if one.id == begun.execution_id)
    assert (kept.status, kept.info.background) == ("running", False)
    assert until(kept.stream(), b"begun\n") == b"begun\n"
    kept.cancel()
    gone(mark)


def test_a_command_that_is_waited_for_is_known_while_it_runs(instance, tenant, mark):
    with ThreadPoolExecutor(1) as pool, closing(instance.stream(f"sleep {mark}", timeout_ms=600_000)) as events:
        begun = next(events)
        runs(f"sleep {mark}")
        found = tenant.executions.get(begun.execution_id)
        assert (found.status, found.info.background) == ("running", False)
        assert begun.execution_id not in [one.id for one in instance.executions()]
        for call in (
            lambda: found.input("x"),
            lambda: found.signal("SIGTERM"),
            lambda: list(found.stream()),
        ):
            with pytest.raises(ConflictError):
                call()
        rest = pool.submit(outcome, list, events)
        found.cancel()
        told = rest.result(60)
        assert isinstance(told, APIError) or isinstance(told[-1], ExitEvent), told
    gone(mark)
    with pytest.raises(NotFoundError):
        found.refresh()


def test_the_list_has_the_newest_first_and_pages(instance):
    started = [instance.exec(f"exit {n}", background=True).wait().id for n in range(7)]
    assert [one.id for one in instance.executions()] == started[::-1]
    assert [one.id for one in instance.executions(limit=3)] == started[:3:-1]
    assert [one.exit_code for one in instance.executions()] == list(range(7))[::-1]


def test_a_main_command_runs_is_told_of_and_is_run_again(tenant, backend):
    once = tenant.instances.create(**backend.create, command="echo main $A; exit 3", env_vars={"A": "1"})
    assert (once.main.command, once.main.restart, once.main.restarts) == ("echo main $A; exit 3", "never", 0)
    run = tenant.executions.get(once.main.execution_id).wait(timeout_s=60)
    assert (run.info.kind, run.exit_code, run.output().stdout) == ("main", 3, b"main 1\n")
    assert once.refresh().status == "running"
    assert once.exec("echo fine").stdout == "fine\n"
    once.stop(grace_ms=0).start()
    assert once.main.execution_id != run.id
    said = [entry.text for entry in once.logs() if entry.type == "stdout"]
    assert (
        leftovers.eventually(
            lambda: [] if [e.text for e in once.logs() if e.type == "stdout"] == ["main 1\n"] * 2 else said
        )
        == []
    )
    kinds = [entry.kind for entry in once.logs() if entry.type == "event"]
    assert kinds.count("instance.running") == 2
    assert len(once.logs(tail=1)) == 1
    always = tenant.instances.create(**backend.create, command=["sh", "-c", "echo again"], restart="always")
    assert leftovers.eventually(lambda: [] if always.refresh().main.restarts >= 2 else ["not yet"]) == []
    assert always.status == "running"
