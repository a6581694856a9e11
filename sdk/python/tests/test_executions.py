"""Lasting executions: what each verb sends, streams that go on over another connection, waits, ends told apart."""

import base64
import json
import signal
import threading

import pytest

from faas_sdk import (
    ConflictError,
    ConnectionLostError,
    EndEvent,
    ExecutionTimeoutError,
    GapEvent,
    GoneError,
    InvalidRequestError,
    NotFoundError,
    OutputEvent,
    RangeNotSatisfiableError,
    ResponseFormatError,
    RetryPolicy,
    SandboxLostError,
    TerminalSize,
    TransportTimeoutError,
)
from faas_sdk._core.config import client_config
from faas_sdk._core.execute_events import ExecutionEvents
from faas_sdk._core.retry import as_lost
from tests.driver import drive
from tests.stub import Reply, execution, instance, lasting, problem

NDJSON = {"content-type": "application/x-ndjson"}
STARTED = {"event": "started", "execution_id": "exe-1"}
EXIT = {
    "event": "exit",
    "exit_code": 0,
    "signal": None,
    "stdout_truncated": False,
    "stderr_truncated": False,
    "duration_ms": 7,
    "oom_killed": False,
    "error": None,
}


def said(offset, data, stream="stdout"):
    if isinstance(data, bytes):
        return {"event": stream, "offset": offset, "data_base64": base64.b64encode(data).decode()}
    return {"event": stream, "offset": offset, "data": data}


def events(*lines, **more):
    return Reply(body=b"".join(json.dumps(line).encode() + b"\n" for line in lines), headers=NDJSON, **more)


def cut(*lines):
    """Some events, and then the connection breaks."""
    reply = events(*lines, EXIT)
    return Reply(body=reply.body, headers=NDJSON, cut_after=len(reply.body) - 5)


def got(caller, stub, *replies, offset=None):
    """The handle after all replies, its events, and what the stream raised."""
    stub.replies(Reply(json=lasting()), *replies)
    seen = []

    async def steps(driver):
        found = await driver(driver.client.executions.get, "exe-1")
        try:
            stream = found.stream(offset=offset)
            if caller.kind == "sync":
                seen.extend(stream)
            else:
                async for event in stream:
                    seen.append(event)
        except Exception as error:  # noqa: BLE001 - looked into by the test
            return error
        return None

    return seen, drive(caller, steps)


def asked(stub):
    return [(seen.method, seen.path) for seen in stub.seen]


def test_a_command_in_the_background_is_an_execution(caller, stub):
    stub.replies(Reply(json=instance()), Reply(status=202, json=lasting()))
    options = {
        "keep_running": True,
        "stdin_open": True,
        "tty": TerminalSize(rows=30, cols=90),
        "timeout_ms": 5,
        "request_id": "my-id",
        "idempotency_key": "k-1",
    }
    started, _ = caller.of_instance("exec", "make", background=True, **options)
    assert (started.id, started.status, started.exit_code) == ("exe-1", "running", None)
    assert repr(started).endswith("Execution(id='exe-1', status='running')")
    seen = stub.seen[1]
    assert (seen.method, seen.path) == ("POST", "/api/v1/instances/ins-1/exec")
    assert seen.json == {
        "command": "make",
        "background": True,
        "keep_running": True,
        "stdin_open": True,
        "tty": {"rows": 30, "cols": 90},
        "timeout_ms": 5,
    }
    assert (seen.headers["x-request-id"], seen.headers["idempotency-key"]) == ("my-id", "k-1")
    stub.replies(Reply(status=202, json=lasting()))
    assert caller("instances.exec", "ins-1", "make", background=True).info.instance_id == "ins-1"


def test_without_background_a_command_is_waited_for(caller, stub):
    stub.replies(Reply(json=execution()))
    assert caller("instances.exec", "ins-1", "x", background=False, keep_running=True).stdout == "Hello!\n"
    assert stub.seen[0].json == {"command": "x", "keep_running": True}


def test_every_member_of_an_execution_is_read(caller, stub):
    body = lasting(
        kind="terminal", status="lost", status_reason="the sandbox ended", command=["make", "all"], background=False,
        tty={"rows": 1, "cols": 2}, labels={"a": "b"}, timeout_ms=3, ended_at="2026-01-02T03:04:06Z", exit_code=137,
        signal="SIGKILL", oom_killed=True, stdout_truncated=True, stderr_truncated=True, duration_ms=4, error="x",
        first_offset=5, next_offset=6, newer=1,
    )  # fmt: skip
    stub.replies(Reply(json=body))
    info = caller("executions.get", "exe-1").info
    assert asked(stub) == [("GET", "/api/v1/executions/exe-1")]
    for name in lasting():
        if name not in ("command", "tty"):
            assert getattr(info, name) == body[name], name
    assert (info.command, info.tty) == (("make", "all"), TerminalSize(rows=1, cols=2))
    assert (info.ok, info.raw["newer"]) == (False, 1)


def test_the_executions_of_an_instance_are_one_list(caller, stub):
    stub.replies(
        Reply(json=instance()),
        Reply(json=[lasting()], headers={"x-next-cursor": "c"}),
        Reply(json=[lasting(execution_id="exe-0")]),
    )
    found, _ = caller.of_instance("executions")
    assert [one.id for one in found] == ["exe-1", "exe-0"]
    assert [seen.path for seen in stub.seen[1:]] == [
        "/api/v1/instances/ins-1/executions",
        "/api/v1/instances/ins-1/executions?cursor=c",
    ]
    stub.replies(Reply(json=[lasting()]))
    assert len(caller("instances.executions", "ins-1", limit=1)) == 1
    assert stub.seen[-1].path.endswith("?limit=1")


@pytest.mark.parametrize("on_handle", [False, True])
def test_input_signals_and_the_end_are_sent_once_each(caller, stub, on_handle):
    async def steps(driver):
        of, first = driver.client.executions, ("exe-1",)
        if on_handle:
            of, first = await driver(driver.client.executions.get, "exe-1"), ()
        for verb, args, options in (
            ("input", (b"\xff\n",), {}),
            ("input", ("h\u00e9",), {"eof": True}),
            ("input", (), {"eof": True}),
            ("signal", ("SIGTERM",), {}),
            ("signal", (signal.SIGINT,), {}),
            ("cancel", (), {}),
        ):
            assert await driver(getattr(of, verb), *first, *args, **options) is None

    stub.replies(*[Reply(json=lasting())] * on_handle, Reply(status=204))
    drive(caller, steps)
    path = "/api/v1/executions/exe-1"
    sent = [(seen.method, seen.path, seen.raw) for seen in stub.seen[on_handle:]]
    assert sent == [
        ("POST", f"{path}/input", b"\xff\n"),
        ("POST", f"{path}/input?eof=true", "h\u00e9".encode()),
        ("POST", f"{path}/input?eof=true", b""),
        ("POST", f"{path}/signal", b'{"signal":"SIGTERM"}'),
        ("POST", f"{path}/signal", b'{"signal":2}'),
        ("DELETE", path, b""),
    ]
    assert stub.seen[on_handle].headers["content-type"] == "application/octet-stream"


def test_what_may_have_been_done_is_not_done_twice_and_a_cancel_may_be(caller, stub):
    for verb, args in (("input", (b"x",)), ("signal", ("SIGINT",))):
        stub.seen.clear()
        stub.replies(Reply(cut_after=-1))
        with pytest.raises(ConnectionLostError):
            caller(f"executions.{verb}", "exe-1", *args)
        assert len(stub.seen) == 1
    stub.replies(Reply(cut_after=-1), Reply(status=204))
    caller("executions.cancel", "exe-1")
    with pytest.raises(TypeError, match="data is text or bytes, not int"):
        caller("executions.input", "exe-1", 3)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", NotFoundError),
        (409, "conflict", ConflictError),
        (422, "invalid_request", InvalidRequestError),
    ],
)
def test_a_refusal_has_its_class(caller, stub, status, code, kind):
    stub.replies(Reply(status=status, json=problem(status, code)))
    with pytest.raises(kind):
        caller("executions.signal", "exe-1", "SIGNONE")


def test_events_come_in_order_and_exactly(caller, stub):
    seen, error = got(
        caller,
        stub,
        events(
            STARTED,
            said(0, "h\u00e9"),
            {"event": "newer"},
            {"event": "gap", "from": 3, "to": 90},
            said(90, b"\xff", "stderr"),
            EXIT | {"exit_code": 3, "newer": 1},
        ),
    )
    assert error is None
    first, gap, second, end = seen
    assert first == OutputEvent(stream="stdout", offset=0, data="h\u00e9".encode(), is_text=True)
    assert gap == GapEvent(start=3, end=90)
    assert second == OutputEvent(stream="stderr", offset=90, data=b"\xff", is_text=False)
    assert isinstance(end, EndEvent)
    assert (end.execution_id, end.exit_code, end.ok, end.duration_ms, end.raw["newer"]) == ("exe-1", 3, False, 7, 1)
    assert asked(stub)[1:] == [("GET", "/api/v1/executions/exe-1/stream")]
    assert stub.seen[1].headers["accept"] == "application/x-ndjson"


def test_a_stream_whose_connection_breaks_goes_on_where_it_was(caller, stub):
    seen, error = got(
        caller,
        stub,
        cut(said(4, "ab")),
        Reply(cut_after=-1),
        cut({"event": "gap", "from": 6, "to": 10}),
        Reply(status=502, body=b"", headers={"content-type": "text/html"}),
        cut(said(10, b"\xff\xfe"), said(12, "x")),
        events(said(13, "end"), EXIT),
        offset=4,
    )
    assert error is None
    assert b"".join(event.data for event in seen if isinstance(event, OutputEvent)) == b"ab\xff\xfexend"
    assert [seen.path.partition("?")[2] for seen in stub.seen[1:]] == [
        f"offset={offset}" for offset in (4, 6, 6, 10, 10, 13)
    ]


def test_a_stream_without_an_offset_begins_again_where_nothing_came(caller, stub):
    seen, error = got(caller, stub, cut(), cut(said(7, "ab")), events(EXIT))
    assert (len(seen), error) == (2, None)
    assert [seen.path.partition("?")[2] for seen in stub.seen[1:]] == ["", "", "offset=9"]


def test_a_stream_is_given_up_after_as_many_attempts_as_the_policy_says(caller, stub):
    seen, error = got(caller, stub, cut(said(0, "a")), cut())
    assert (len(seen), type(error)) == (1, ConnectionLostError)
    assert len(stub.seen) == 1 + 1 + 2
    caller.settings = {"retry": RetryPolicy(max_retries=0)}
    stub.seen.clear()
    seen, error = got(caller, stub, cut(said(0, "a")), events(EXIT))
    assert (len(seen), type(error), len(stub.seen)) == (1, ConnectionLostError, 2)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(504, "execution_timeout", ExecutionTimeoutError), (502, "sandbox_lost", SandboxLostError)],
)
def test_an_error_at_the_end_of_a_stream_is_typed_and_final(caller, stub, status, code, kind):
    for lines in ((said(0, "so far"),), ()):
        stub.seen.clear()
        seen, error = got(caller, stub, events(*lines, {"event": "error"} | problem(status, code, retryable=True)))
        assert (len(seen), type(error), len(stub.seen)) == (len(lines), kind, 2)


def test_output_that_is_not_held_is_an_error_that_says_what_is(caller, stub):
    _, error = got(caller, stub, Reply(status=410, json=problem(410, "gone", first_offset=77)), offset=3)
    assert isinstance(error, GoneError)
    assert error.first_offset == 77
    wrong = problem(416, "range_not_satisfiable", next_offset=99)
    _, error = got(caller, stub, Reply(status=416, json=wrong), offset=300)
    assert isinstance(error, RangeNotSatisfiableError)
    assert error.next_offset == 99
    _, error = got(caller, stub, Reply(status=410, json=problem(410, "gone", first_offset="x")))
    assert isinstance(error, GoneError)
    assert error.first_offset is None
    with pytest.raises(ValueError, match="offset is -1, which is negative"):
        caller("executions.stream", "exe-1", offset=-1)


def test_what_is_no_event_is_refused_with_the_place(caller, stub):
    _, error = got(caller, stub, events(EXIT | {"oom_killed": None}))
    assert isinstance(error, ResponseFormatError)
    assert "/oom_killed is null, not a boolean" in str(error)


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (EXIT, "exited"),
        ({"event": "error"} | problem(504, "execution_timeout"), "timed_out"),
        ({"event": "error"} | problem(502, "sandbox_lost"), "lost"),
    ],
)
def test_wait_returns_at_the_end_whatever_it_is(caller, stub, last, status):
    stub.replies(
        Reply(json=lasting()),
        Reply(json=lasting(next_offset=8)),
        events(said(8, "more"), last),
        # The end is told before it is written down.
        Reply(json=lasting(next_offset=12)),
        events(last),
        Reply(json=lasting(status=status, exit_code=3, next_offset=12)),
    )

    async def steps(driver):
        found = await driver(driver.client.executions.get, "exe-1")
        assert await driver(found.wait) is found
        return found

    found = drive(caller, steps)
    assert (found.status, found.exit_code) == (status, 3)
    path = "/api/v1/executions/exe-1"
    assert [seen.path for seen in stub.seen] == [
        path, path, f"{path}/stream?offset=8", path, f"{path}/stream?offset=12", path,
    ]  # fmt: skip


def test_wait_goes_on_where_output_was_dropped_meanwhile_and_raises_other_errors(caller, stub):
    stub.replies(
        Reply(json=lasting()),
        Reply(json=lasting()),
        Reply(status=410, json=problem(410, "gone", first_offset=9)),
        Reply(json=lasting(next_offset=9)),
        events(EXIT),
        Reply(json=lasting(status="exited", exit_code=0)),
        Reply(json=lasting()),
        Reply(status=404, json=problem(404, "not_found")),
    )

    async def steps(driver):
        found = await driver(driver.client.executions.get, "exe-1")
        assert (await driver(found.wait)).info.ok
        with pytest.raises(NotFoundError):
            await driver(found.wait)

    drive(caller, steps)


def test_a_wait_has_its_time(caller, stub):
    held = threading.Event()
    stub.replies(
        Reply(json=lasting()), Reply(json=lasting()), events(EXIT, hold=held, hold_after=0), Reply(json=lasting())
    )

    async def steps(driver):
        found = await driver(driver.client.executions.get, "exe-1")
        with pytest.raises(TimeoutError, match=r"the execution exe-1 still runs after 0\.1 s") as caught:
            await driver(found.wait, timeout_s=0.1)
        assert not isinstance(caught.value, TransportTimeoutError)
        return found

    assert drive(caller, steps).status == "running"


def test_a_silence_is_a_broken_connection_unless_the_caller_chose_how_long_it_may_be():
    settings = {"base_url": None, "retry": None, "headers": None, "max_connections": 1, "environment": {}}
    chosen, own = ExecutionEvents("exe-1", None, 3.0).call(), ExecutionEvents("exe-1", None).call()
    for client_s, own_s in ((None, 60.0), (1.0, 20.0), (90.0, 90.0)):
        config = client_config(http_timeout_s=client_s, **settings)
        assert (config.http_timeout(chosen), config.http_timeout(own)) == (3.0, own_s)
    silence = TransportTimeoutError("no answer", True)
    assert as_lost(silence, chosen) is silence
    assert isinstance(as_lost(silence, own), ConnectionLostError)


def test_output_is_all_that_is_held(caller, stub):
    stub.replies(
        Reply(json=lasting()),
        cut(said(5, "out"), said(8, b"\xff", "stderr")),
        events({"event": "gap", "from": 9, "to": 20}, said(20, "put"), EXIT),
        Reply(json=lasting(status="exited", exit_code=0)),
        events(said(0, "begun"), {"event": "error"} | problem(504, "execution_timeout")),
        Reply(json=lasting(status="timed_out")),
        Reply(status=500, json=problem(500, "internal")),
    )

    async def steps(driver):
        found = await driver(driver.client.executions.get, "exe-1")
        output = await driver(found.output)
        assert (output.stdout, output.stderr, output.gaps) == (b"output", b"\xff", (GapEvent(start=9, end=20),))
        assert (output.stdout_text, output.stderr_text, found.status) == ("output", "\ufffd", "exited")
        assert (await driver(found.output)).stdout == b"begun"
        assert found.status == "timed_out"
        with pytest.raises(Exception, match="this is internal"):
            await driver(found.output)

    drive(caller, steps)


def test_a_command_in_an_instance_can_be_streamed(caller, stub):
    end = {name: value for name, value in execution().items() if name not in {"stdout", "stderr", "output", "logs"}}
    stub.replies(events({"event": "started", "request_id": "r", "execution_id": "e"}, said(0, "x"), end | EXIT))

    async def steps(driver):
        return await driver.each(driver.client.instances.stream("ins-1", "x", keep_running=True))

    assert [type(event).__name__ for event in drive(caller, steps)] == ["StartedEvent", "OutputEvent", "ExitEvent"]
    assert stub.seen[0].json == {"command": "x", "keep_running": True}
    assert asked(stub) == [("POST", "/api/v1/instances/ins-1/exec")]


def test_the_main_command_is_told_of(caller, stub):
    main = {"command": ["serve"], "main": True, "restart": "always", "execution_id": "exe-9", "restarts": 2}
    stub.replies(Reply(json=instance(main=main)))
    found = caller("instances.get", "ins-1").main
    assert (found.command, found.main, found.restart) == (("serve",), True, "always")
    assert (found.execution_id, found.restarts) == ("exe-9", 2)
    stub.replies(Reply(json=instance(main=main | {"command": None, "execution_id": None})))
    found = caller("instances.get", "ins-1").main
    assert (found.command, found.execution_id) == (None, None)
    older = instance()
    del older["main"]
    stub.replies(Reply(json=older))
    assert caller("instances.get", "ins-1").main is None


def test_an_id_never_leads_to_another_path(caller, stub):
    stub.replies(Reply(json=lasting()))
    for wrong in ("", ".", ".."):
        with pytest.raises(ValueError, match="which is no id"):
            caller("executions.get", wrong)
    with pytest.raises(TypeError, match="execution_id is a string, not NoneType"):
        caller("executions.get", None)
    caller("executions.get", "a/../b")
    assert asked(stub) == [("GET", "/api/v1/executions/a%2F..%2Fb")]
