"""The gateway's events, which go on over another connection, and the log of an instance."""

import base64
import json
import threading

import pytest

from faas_sdk import ConnectionLostError, GoneError, RangeNotSatisfiableError, SandboxLostError
from tests.driver import drive
from tests.stub import Reply, instance, problem

NDJSON = {"content-type": "application/x-ndjson"}
AT = "2026-01-02T03:04:05.678Z"


def event(seq, kind="instance.running", **more):
    return {"seq": seq, "at": AT, "kind": kind, "subject": "ins-1", "data": {}} | more


def lines(*said, **more):
    return Reply(body=b"".join(json.dumps(one).encode() + b"\n" for one in said), headers=NDJSON, **more)


def first(caller, most, **options):
    async def steps(driver):
        return await driver.each(driver.client.events(**options), most)

    return drive(caller, steps)


def test_events_are_asked_for_and_told(caller, stub):
    held = threading.Event()
    reply = lines(event(3), event(4, "execution.ended", data={"exit_code": 1}, newer=2))
    reply.hold, reply.hold_after = held, len(reply.body)
    stub.replies(reply)
    one, two = first(caller, 2, after=2, kind=["instance.", "execution.ended"], subject="ins-1")
    assert (one.seq, one.at, one.kind, one.subject, one.data) == (3, AT, "instance.running", "ins-1", {})
    assert (two.kind, two.data, two.raw["newer"]) == ("execution.ended", {"exit_code": 1}, 2)
    (seen,) = stub.seen
    assert seen.path == "/api/v1/events?after=2&kind=instance.%2Cexecution.ended&subject=ins-1"
    assert seen.headers["accept"] == "application/x-ndjson"


def test_events_go_on_after_the_last_one_when_the_connection_breaks_or_ends(caller, stub):
    whole = lines(event(7), event(9), event(11))
    stub.replies(
        Reply(cut_after=-1),
        Reply(body=whole.body, headers=NDJSON, cut_after=len(whole.body) - 5),
        lines(event(11)),
        lines(event(12)),
    )
    assert [one.seq for one in first(caller, 4, kind="instance.")] == [7, 9, 11, 12]
    assert [seen.path.partition("?")[2] for seen in stub.seen] == [
        "kind=instance.", "kind=instance.", "after=9&kind=instance.", "after=11&kind=instance.",
    ]  # fmt: skip


def test_events_that_are_not_kept_and_such_as_are_not_there_are_errors(caller, stub):
    stub.replies(Reply(status=410, json=problem(410, "gone", first_offset=5)))
    with pytest.raises(GoneError) as caught:
        first(caller, 1, after=1)
    assert caught.value.first_offset == 5
    stub.replies(Reply(status=416, json=problem(416, "range_not_satisfiable")))
    with pytest.raises(RangeNotSatisfiableError):
        first(caller, 1, after=1 << 40)


def test_a_gateway_that_is_gone_ends_the_events(caller, stub):
    stub.replies(lines(event(1)), Reply(cut_after=-1))
    with pytest.raises(ConnectionLostError):
        first(caller, None)
    assert len(stub.seen) == 3


ENTRIES = [
    {"at": AT, "type": "event", "kind": "instance.running", "reason": "started"},
    {"at": AT, "type": "stdout", "execution_id": "exe-1", "data": "h\u00e9"},
    {"at": AT, "type": "stderr", "execution_id": "exe-1", "data_base64": base64.b64encode(b"\xff").decode()},
]


def check(entries):
    about, out, err = entries
    assert (about.type, about.kind, about.reason, about.data, about.text) == (
        "event", "instance.running", "started", None, "",
    )  # fmt: skip
    assert (out.at, out.type, out.execution_id, out.data, out.text) == (
        AT, "stdout", "exe-1", "h\u00e9".encode(), "h\u00e9",
    )  # fmt: skip
    assert (err.type, err.data, err.kind) == ("stderr", b"\xff", None)


def test_a_log_is_one_answer(caller, stub):
    stub.replies(Reply(json=instance()), Reply(json=ENTRIES))
    entries, _ = caller.of_instance("logs", tail=3)
    check(entries)
    assert stub.seen[1].path == "/api/v1/instances/ins-1/logs?tail=3"
    assert stub.seen[1].headers["accept"] == "application/json"
    stub.replies(Reply(json=[]))
    assert caller("instances.logs", "ins-1") == ()


def test_a_log_is_followed_until_the_instance_ends(caller, stub):
    def steps_with(**options):
        async def steps(driver):
            return await driver.each(driver.client.instances.logs("ins-1", follow=True, **options))

        return steps

    stub.replies(lines(*ENTRIES))
    check(drive(caller, steps_with(tail=9)))
    assert stub.seen[0].path == "/api/v1/instances/ins-1/logs?tail=9"
    lost = {"at": AT} | problem(502, "sandbox_lost")
    for last in (lost | {"type": "error"}, lost | {"event": "error"}):
        stub.replies(lines(ENTRIES[0], last))
        with pytest.raises(SandboxLostError):
            drive(caller, steps_with())
    whole = lines(*ENTRIES)
    stub.seen.clear()
    stub.replies(Reply(body=whole.body, headers=NDJSON, cut_after=len(whole.body) - 5))
    with pytest.raises(ConnectionLostError):
        drive(caller, steps_with())
    assert len(stub.seen) == 1
