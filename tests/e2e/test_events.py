"""What happens to instances is told to whoever follows it: in order, without a hole, whatever becomes of the server."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from faas_sdk import FaaSClient, FaaSError

import postgres
import raw
from gateway import Gateway
from succession import ONCE, nothing_is_left

ROUTE = "/api/v1/events"
SSE, NDJSON, DOCUMENT = "text/event-stream", "application/x-ndjson", "application/json"
KIB = 1 << 10

BORN = ["instance.creating", "instance.running"]
GONE = ["instance.deleting", "instance.deleted"]

Event = dict[str, Any]


def page(url: str, **query: object) -> list[Event]:
    """A page of the events that there are."""
    answer = httpx.get(url + ROUTE, params=query, headers={"accept": DOCUMENT})
    assert answer.status_code == 200, answer.text
    return answer.json()


def everything(url: str) -> list[Event]:
    """All that are kept, page by page."""
    found: list[Event] = []
    while more := page(url, after=found[-1]["seq"] if found else 0, limit=1000):
        found += more
    return found


def parsed(lines: Iterator[str], accept: str) -> Iterator[Event]:
    """The events of a stream, checked against its form."""
    fields: dict[str, str] = {}
    for line in lines:
        if accept == NDJSON:
            if line:
                yield json.loads(line)
        elif line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["seq"]), event["kind"])
            yield event
            fields = {}


@contextlib.contextmanager
def following(url: str, accept: str = NDJSON, last: int | None = None, **query: object) -> Iterator[Iterator[Event]]:
    """A stream of events, which has begun."""
    headers = {"accept": accept} | ({} if last is None else {"last-event-id": str(last)})
    limits = httpx.Timeout(10, read=60)
    with httpx.stream("GET", url + ROUTE, params=query, headers=headers, timeout=limits) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("application/x-ndjson" if accept == NDJSON else SSE)
        yield parsed(answer.iter_lines(), accept)


def until(events: Iterator[Event], kind: str) -> list[Event]:
    """The events up to the first of that kind."""
    found = []
    for event in events:
        found.append(event)
        if event["kind"] == kind:
            return found
    raise AssertionError(f"the stream ended without {kind}, after {found}")


def kinds(events: list[Event]) -> list[str]:
    return [event["kind"] for event in events]


@pytest.mark.parametrize("accept", [SSE, NDJSON, "*/*"])
def test_a_life_is_told_as_it_happens(house, tenant, backend, accept):
    before = everything(house.url)
    with following(house.url, accept) as events:
        instance = tenant.instances.create(name="e2e-events", **backend.create)
        born = until(events, "instance.running")
        instance.stop(grace_ms=0)
        stopped = until(events, "instance.stopped")
        instance.start()
        begun = until(events, "instance.running")
        instance.delete()
        gone = until(events, "instance.deleted")
    told = born + stopped + begun + gone
    assert kinds(told) == [*BORN, "instance.stopping", "instance.stopped", *BORN, *GONE]
    assert {event["subject"] for event in told} == {instance.id}
    assert all(event["data"]["name"] == "e2e-events" for event in told)
    assert all(event["data"]["runtime"] == backend.name for event in told)
    times = [datetime.fromisoformat(event["at"]) for event in told]
    assert times == sorted(times)
    first = before[-1]["seq"] + 1 if before else 1
    assert [event["seq"] for event in told] == list(range(first, first + len(told)))
    assert page(house.url, after=first - 1) == told, "they can be read again"


def test_an_execution_that_lasts_is_told_of(house, tenant, backend):
    instance = tenant.instances.create(**backend.create)
    with following(house.url, kind="execution.") as events:
        body = json.dumps({"command": "exit 3", "background": True}).encode()
        started = raw.request(house.url, "POST", f"/api/v1/instances/{instance.id}/exec", body)
        assert started.status == 202, started
        told = until(events, "execution.ended")
    assert kinds(told) == ["execution.started", "execution.ended"]
    assert {event["subject"] for event in told} == {started.json["execution_id"]}
    assert {event["data"]["instance_id"] for event in told} == {instance.id}
    assert [event["data"]["status"] for event in told] == ["running", "exited"]


def test_who_comes_back_goes_on_where_it_was(house, tenant, backend):
    tenant.instances.create(**backend.create).delete()
    told = everything(house.url)[-4:]
    assert kinds(told) == [*BORN, *GONE]
    first = told[0]["seq"]
    with following(house.url, SSE, last=first) as events:
        assert until(events, "instance.deleted") == told[1:]
    with following(house.url, after=first + 1) as events:
        assert until(events, "instance.deleted") == told[2:]
    with following(house.url, last=first, after=first + 1) as events:
        assert until(events, "instance.deleted") == told[1:], "as a browser does, which repeats its URL"
    with following(house.url, last=told[-1]["seq"]) as events:
        tenant.instances.create(**backend.create).delete()
        assert until(events, "instance.deleted")[0]["seq"] == told[-1]["seq"] + 1


def test_only_what_was_asked_for_is_told(house, tenant, backend):
    one, other = (tenant.instances.create(**backend.create) for _ in range(2))
    with following(house.url, after=0, subject=other.id) as events:
        one.delete()
        other.delete()
        assert kinds(until(events, "instance.deleted")) == [*BORN, *GONE]
    assert kinds(page(house.url, subject=one.id, kind="instance.d")) == GONE
    assert kinds(page(house.url, subject=one.id, kind="instance.deleted,instance.run")) == ["instance.running", GONE[1]]
    assert page(house.url, kind="execution.", subject=one.id) == []
    walked, after = [], 0
    while part := page(house.url, subject=one.id, limit=3, after=after):
        assert len(part) <= 3
        walked, after = walked + part, part[-1]["seq"]
    assert walked == page(house.url, subject=one.id)


@pytest.mark.parametrize(
    ("query", "accept", "last"),
    [
        ("after=-1", NDJSON, None),
        ("after=x", NDJSON, None),
        ("after=", NDJSON, None),
        ("kind=", NDJSON, None),
        ("kind=instance.,", NDJSON, None),
        ("kind=a%25", NDJSON, None),
        ("subject=", NDJSON, None),
        ("subject=a%00b", NDJSON, None),
        ("limit=3", NDJSON, None),
        ("limit=0", DOCUMENT, None),
        ("limit=1001", DOCUMENT, None),
        ("follow=1", DOCUMENT, None),
        ("", NDJSON, "x"),
        ("", NDJSON, "-1"),
    ],
)
@pytest.mark.modes("root")
def test_what_cannot_be_asked_for_is_said(gateway, query, accept, last):
    headers = {"accept": accept} | ({} if last is None else {"last-event-id": last})
    problem = raw.assert_problem(
        raw.request(gateway.url, "GET", f"{ROUTE}?{query}", headers=headers), 422, "invalid_request"
    )
    assert (query.partition("=")[0] or "last-event-id") in problem["detail"]


@pytest.mark.modes("root")
def test_what_has_not_been_cannot_be_followed(gateway):
    told = everything(gateway.url)
    newest = told[-1]["seq"] if told else 0
    for accept in (NDJSON, DOCUMENT):
        for after in (newest + 1, 2**64 - 1):
            answer = raw.request(gateway.url, "GET", f"{ROUTE}?after={after}", headers={"accept": accept})
            problem = raw.assert_problem(answer, 416, "range_not_satisfiable")
            assert problem["next_offset"] == newest + 1
    assert page(gateway.url, after=newest) == []


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The arguments for a gateway's database."""
    if request.param == "sqlite":
        yield []
        return
    with postgres.database(postgres.url()) as url:
        yield ["--database-url", url]


@pytest.fixture
def lasting(database: list[str], start: Callable[..., Gateway]) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways, one after the other, with one data directory and database, which outlive each of them."""
    with tempfile.TemporaryDirectory(prefix="faas-e2e-") as directory:
        begun: list[Gateway] = []

        def begin(*arguments: str) -> Gateway:
            begun.append(start(Path(directory), *database, *arguments))
            return begun[-1]

        yield begin
        for running in begun:
            if running.process.poll() is None:
                running.stop_and_check()
            elif running.log.exists():
                running.remove()


@pytest.mark.modes("root")
def test_what_is_no_longer_kept_is_gone(lasting):
    running = lasting()
    with FaaSClient(running.url) as client:
        for _ in range(2):
            client.instances.create(image="host", runtime="native").delete()
    told = everything(running.url)
    assert kinds(told) == [*BORN, *GONE] * 2
    running.stop_and_check()
    running = lasting("--max-events", "3")
    oldest = told[-3]["seq"]
    kept = []
    for _ in range(500):
        # It is done when the server has begun, not before.
        if len(kept := everything(running.url)) == 3:
            break
    assert kept == told[-3:]
    for accept in (NDJSON, DOCUMENT):
        for after in (1, oldest - 2):
            answer = raw.request(running.url, "GET", f"{ROUTE}?after={after}", headers={"accept": accept})
            problem = raw.assert_problem(answer, 410, "gone")
            assert (problem["first_offset"], problem["retryable"]) == (oldest, False)
    with following(running.url, after=0) as all_kept, following(running.url, last=oldest - 1) as since:
        assert [next(all_kept) for _ in range(3)] == [next(since) for _ in range(3)] == told[-3:]


@pytest.mark.modes("root")
def test_no_event_is_missed_over_kills_of_the_server(lasting):
    running, last, told = lasting(), 0, []
    done = threading.Event()
    made: list[str] = []

    def live() -> None:
        while not done.is_set():
            # Whatever becomes of it: each is cut off by a kill somewhere.
            with contextlib.suppress(FaaSError, OSError), FaaSClient(running.url, retry=ONCE) as client:
                instance = client.instances.create(image="host", runtime="native")
                made.append(instance.id)
                instance.delete()

    worker = threading.Thread(target=live)
    worker.start()
    try:
        for round_number in range(4):
            # The end of the stream comes in the middle of whatever it was saying.
            with (
                contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError),
                following(running.url, [NDJSON, SSE][round_number % 2], last=last) as events,
            ):
                for event in events:
                    assert event["seq"] == last + 1, "without a hole, and none twice"
                    last, told = event["seq"], [*told, event]
                    if len(told) == 15 * (round_number + 1):
                        running.kill()
            running = lasting()
    finally:
        done.set()
        worker.join()
    with FaaSClient(running.url) as client:
        nothing_is_left(client)
    told += page(running.url, after=last, limit=1000)
    assert told == everything(running.url)
    of = {subject: [event["kind"] for event in told if event["subject"] == subject] for subject in set(made)}
    assert len(of) > 4
    for subject, life in of.items():
        assert life[0] == BORN[0], subject
        assert life[-1] == GONE[1], subject


@pytest.mark.modes("root")
def test_streams_end_with_the_server_and_do_not_keep_it(start):
    running = start(None, "--drain-timeout-ms", "3600000")
    with following(running.url) as idle, following(running.url, SSE, after=0) as other:
        running.stop_and_check()
        assert list(idle) == list(other) == [], "ended, and not cut off"


def memory_kib(pid: int) -> int:
    """The memory of a process that is its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:")))


def follow_raw(url: str, query: str = "") -> socket.socket:
    """A stream, of which nothing has been read but that it has begun. The kernel holds little for it."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.settimeout(60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    connection.connect((parts.hostname, parts.port))
    connection.sendall(f"GET {ROUTE}{query} HTTP/1.1\r\nhost: localhost\r\naccept: {NDJSON}\r\n\r\n".encode())
    assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    return connection


@pytest.mark.modes("root")
def test_a_thousand_follow_at_once_each_in_little_memory(start, many_descriptors):
    running = start()
    streams: list[socket.socket] = []
    with contextlib.ExitStack() as closing, FaaSClient(running.url) as client:
        client.instances.create(image="host", runtime="native").delete()
        warm = [closing.enter_context(follow_raw(running.url)) for _ in range(50)]
        before = memory_kib(running.process.pid)
        streams = [closing.enter_context(follow_raw(running.url)) for _ in range(1000)]
        each = (memory_kib(running.process.pid) - before) / len(streams)
        assert each < 64, "KiB for each that waits"
        instance = client.instances.create(image="host", runtime="native")
        instance.delete()
        for stream in [*warm, *streams]:
            said = b""
            while b"instance.deleted" not in said:
                piece = stream.recv(64 * KIB)
                assert piece, "ended"
                said += piece
            assert said.count(instance.id.encode()) == 4
        each = (memory_kib(running.process.pid) - before) / len(streams)
        assert each < 96, "KiB for each that was told something"


EVENTS = 10_000
"""More than what fits into the buffers of a connection."""


@pytest.mark.modes("root")
def test_who_does_not_read_costs_little_and_holds_up_nobody(start):
    with tempfile.TemporaryDirectory(prefix="faas-e2e-") as directory:
        start(Path(directory)).stop_and_check()
        # So many would take an hour to come about.
        with contextlib.closing(sqlite3.connect(Path(directory) / "store.db")) as store, store:
            data = json.dumps({"reason": "x" * 400, "name": None, "runtime": "native"})
            rows = ((seq, 2**41 + seq, f"ins-{seq}", data) for seq in range(1, EVENTS + 1))
            store.executemany("INSERT INTO events VALUES (?, 'default', ?, 'instance.running', ?, ?)", rows)
            store.execute("UPDATE event_counter SET newest = ?", (EVENTS,))
        running = start(Path(directory))
        with contextlib.ExitStack() as closing:
            before = memory_kib(running.process.pid)
            slow = [closing.enter_context(follow_raw(running.url, "?after=0")) for _ in range(50)]
            with following(running.url, after=0) as events:
                fast = [next(events)["seq"] for _ in range(EVENTS)]
            assert fast == list(range(1, EVENTS + 1))
            each = (memory_kib(running.process.pid) - before) / len(slow)
            assert each < 512, "KiB for each that does not read"
            with slow[0].makefile("rb") as late:
                numbers = (json.loads(line)["seq"] for line in late if line.startswith(b'{"seq"'))
                assert [next(numbers) for _ in range(EVENTS)] == fast
        running.stop_and_check()
