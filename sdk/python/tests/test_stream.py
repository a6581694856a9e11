"""`stream`: events as they come, errors before and after the first of them, and what ends it early."""

import asyncio
import base64
import json
import threading
from contextlib import closing

import pytest

from faas_sdk import (
    AsyncFaaSClient,
    ConnectFailedError,
    ConnectionLostError,
    ExecutionTimeoutError,
    ExitEvent,
    FaaSClient,
    FaaSError,
    GapEvent,
    InvalidRequestError,
    OutputEvent,
    OverloadedError,
    ResponseFormatError,
    RetryPolicy,
    SandboxLostError,
    StartedEvent,
)
from tests.stub import Reply, execution, problem

NDJSON = {"content-type": "application/x-ndjson"}
OUTPUT = {"stdout", "stderr", "output", "logs"}
STARTED = {"event": "started", "request_id": "req-1", "execution_id": "exec-1"}
EXIT = {name: value for name, value in execution().items() if name not in OUTPUT} | {"event": "exit"}


def said(stream, offset, data):
    if isinstance(data, bytes):
        return {"event": stream, "offset": offset, "data_base64": base64.b64encode(data).decode()}
    return {"event": stream, "offset": offset, "data": data}


def lines(*events):
    return b"".join(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n" for event in events)


def reply(*events, **more):
    return Reply(body=lines(*events), headers=NDJSON, **more)


@pytest.fixture(params=["sync", "async"])
def events(request, stub):
    """All events of one stream, and what it raised."""

    def collect(command="x", **options):
        got = []
        settings = {"retry": RetryPolicy(initial_backoff_s=0.0, max_backoff_s=0.0)}
        if request.param == "sync":
            with FaaSClient(stub.url, **settings) as client:
                try:
                    got.extend(client.stream(command, **options))
                except FaaSError as error:
                    return got, error
            return got, None

        async def run():
            async with AsyncFaaSClient(stub.url, **settings) as client:
                try:
                    async for event in client.stream(command, **options):
                        got.append(event)
                except FaaSError as error:
                    return error
            return None

        return got, asyncio.run(run())

    return collect


def test_events_come_in_order_and_exactly(events, stub):
    stub.replies(
        reply(
            STARTED,
            said("stdout", 0, "h\u00e9"),
            b"\n",
            {"event": "newer", "x": 1},
            said("stderr", 3, b"\xff\x00"),
            {"event": "gap", "from": 5, "to": 90},
            EXIT | {"exit_code": 3, "newer": True},
        )
    )
    got, error = events(["ls", "-l"], image="alpine", request_id="my-id")
    assert error is None
    started, first, second, gap, end = got
    assert started == StartedEvent(request_id="req-1", execution_id="exec-1")
    assert first == OutputEvent(stream="stdout", offset=0, data="h\u00e9".encode(), is_text=True)
    assert (first.text, second.text) == ("h\u00e9", "\ufffd\x00")
    assert second == OutputEvent(stream="stderr", offset=3, data=b"\xff\x00", is_text=False)
    assert gap == GapEvent(start=5, end=90)
    assert isinstance(end, ExitEvent)
    assert (end.exit_code, end.ok, end.raw["newer"], end.timings.queue_us) == (
        3,
        False,
        True,
        EXIT["timings"]["queue_us"],
    )
    (seen,) = stub.seen
    assert (seen.method, seen.path, seen.headers["accept"]) == ("POST", "/api/v1/execute", "application/x-ndjson")
    assert seen.json == {"command": ["ls", "-l"], "image": "alpine"}
    assert seen.headers["x-request-id"] == "my-id"


def test_an_error_before_the_first_event_is_the_answers(events, stub):
    stub.replies(Reply(status=422, json=problem(422, "invalid_request")))
    got, error = events()
    assert (got, type(error)) == ([], InvalidRequestError)
    assert len(stub.seen) == 1


def test_what_is_retried_is_what_execute_retries_and_nothing_after_the_first_event(events, stub):
    overloaded = Reply(status=503, json=problem(503, "overloaded", retryable=True))
    stub.replies(overloaded, reply(STARTED, EXIT))
    got, error = events()
    assert (len(got), error, len(stub.seen)) == (2, None, 2)
    late = problem(503, "overloaded", retryable=True)
    stub.replies(reply(STARTED, {"event": "error"} | late))
    got, error = events()
    assert (len(got), type(error), len(stub.seen)) == (1, OverloadedError, 3)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(504, "execution_timeout", ExecutionTimeoutError), (502, "sandbox_lost", SandboxLostError)],
)
def test_an_error_after_output_is_typed(events, stub, status, code, kind):
    stub.replies(reply(STARTED, said("stdout", 0, "so far"), {"event": "error"} | problem(status, code)))
    got, error = events()
    assert [type(event) for event in got] == [StartedEvent, OutputEvent]
    assert type(error) is kind
    assert error.status == status


def test_a_stream_that_ends_too_soon_is_a_lost_connection(events, stub):
    stub.replies(reply(STARTED, said("stdout", 0, "x")))
    got, error = events()
    assert (len(got), type(error)) == (2, ConnectionLostError)
    whole = lines(STARTED, EXIT)
    stub.replies(reply(STARTED, EXIT, cut_after=len(whole) - 5))
    got, error = events()
    assert (len(got), type(error)) == (1, ConnectionLostError)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"no json\n", "a line is not JSON"),
        (b'{"event": "stdout", "offset": 0}\n', "/data is missing"),
        (b'{"event": "stdout", "offset": 0, "data_base64": "%"}\n', "/data_base64 is not base64"),
        (b'{"event": "exit"}\n', "is missing"),
    ],
)
def test_a_line_that_is_no_event_is_refused_with_the_place(events, stub, line, words):
    stub.replies(reply(STARTED, line))
    _, error = events()
    assert type(error) is ResponseFormatError
    assert words in str(error)


def test_one_document_in_place_of_events_is_refused(events, stub):
    stub.replies(Reply(json=execution()))
    got, error = events()
    assert (got, type(error)) == ([], ResponseFormatError)


def test_what_cannot_be_sent_is_refused_and_nobody_there_is_an_error(stub):
    with FaaSClient(stub.url) as client, pytest.raises(TypeError):
        client.stream(b"ls")
    assert stub.seen == []
    with (
        FaaSClient("http://127.0.0.1:1", retry=RetryPolicy(max_retries=0)) as client,
        pytest.raises(ConnectFailedError),
    ):
        next(client.stream("x"))


def test_an_event_is_given_before_the_next_has_come_and_closing_ends_the_connection(stub):
    hold = threading.Event()
    stub.replies(reply(STARTED, EXIT, hold=hold, hold_after=len(lines(STARTED))))
    with FaaSClient(stub.url, max_connections=1) as client:
        with closing(client.stream("x")) as stream:
            assert isinstance(next(stream), StartedEvent)
        # The only connection is free again: it was closed, and not waited for.
        hold.set()
        assert client.execute is not None
        stub.replies(reply(STARTED, EXIT))
        assert len(list(client.stream("x"))) == 2


def test_cancelling_a_task_ends_its_stream(stub):
    hold = threading.Event()
    stub.replies(reply(STARTED, EXIT, hold=hold, hold_after=len(lines(STARTED))))

    async def run():
        async with AsyncFaaSClient(stub.url) as client:
            begun = asyncio.Event()

            async def read():
                async for _ in client.stream("x"):
                    begun.set()

            task = asyncio.create_task(read())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    hold.set()
