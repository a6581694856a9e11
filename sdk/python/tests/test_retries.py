"""What is tried again and what never is: a command that may have run is sent once."""

import socket
import threading

import pytest

from faas_sdk import (
    ConnectFailedError,
    ConnectionLostError,
    FaaSClient,
    FaaSError,
    OverloadedError,
    RateLimitedError,
    RetryPolicy,
    TransportTimeoutError,
)
from faas_sdk._core.operations import execute, server
from faas_sdk._core.problem import retry_after_s
from faas_sdk._core.retry import retry_wait_s
from tests.conftest import QUICK, Caller
from tests.stub import Reply, StubGateway, execution, problem, repeated

HEALTH = {
    "status": "healthy",
    "version": "1",
    "uptime_ms": 1,
    "runtimes": {},
    "store": {"kind": "sqlite", "available": True, "reason": None},
    "docker": False,
    "firecracker": False,
}
RUNNING = Reply(status=409, json=problem(409, "conflict", retryable=True))


def overloaded(**headers: str) -> Reply:
    return Reply(status=503, json=problem(503, "overloaded", retryable=True), headers=headers)


def test_a_refusal_to_start_is_tried_again(caller, stub):
    stub.replies(overloaded(), overloaded(), Reply(json=execution()))
    assert caller.execute("x").ok
    assert len(stub.seen) == 3
    assert stub.seen[0].raw == stub.seen[2].raw


def test_retries_are_bounded(caller, stub):
    stub.replies(overloaded())
    with pytest.raises(OverloadedError):
        caller.execute("x")
    assert len(stub.seen) == 3


def test_retries_can_be_switched_off(caller, stub):
    caller.settings = {"retry": RetryPolicy(max_retries=0)}
    stub.replies(overloaded())
    with pytest.raises(OverloadedError):
        caller.execute("x")
    assert len(stub.seen) == 1


def test_a_rate_limit_is_tried_again_only_with_a_named_wait(caller, stub):
    limited = Reply(status=429, json=problem(429, "rate_limited"))
    stub.replies(limited)
    with pytest.raises(RateLimitedError):
        caller.execute("x")
    assert len(stub.seen) == 1
    stub.replies(Reply(status=429, json=limited.json, headers={"retry-after": "0"}), Reply(json=execution()))
    assert caller.execute("x").ok


def test_a_longer_wait_than_allowed_is_raised_with_the_wait(caller, stub):
    stub.replies(overloaded(**{"retry-after": "3600"}))
    with pytest.raises(OverloadedError) as caught:
        caller.execute("x")
    assert caught.value.retry_after_s == 3600
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut_after=-1),
        Reply(json=execution(), cut_after=10),
        Reply(status=500, json=problem(500, "internal", retryable=True)),
        Reply(status=502, json=problem(502, "sandbox_lost", retryable=True)),
        Reply(status=503, body=b"<html>proxy</html>", headers={"content-type": "text/html"}),
        Reply(status=504, body=b"", headers={"content-type": "text/html"}),
    ],
    ids=["no answer", "half an answer", "internal", "sandbox_lost", "proxy 503", "proxy 504"],
)
def test_an_execution_that_may_have_begun_is_never_sent_twice(caller, stub, reply):
    stub.replies(reply)
    with pytest.raises(FaaSError):
        caller.execute("x")
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut_after=-1),
        Reply(json=HEALTH, cut_after=10),
        Reply(status=502, body=b"", headers={"content-type": "text/html"}),
        Reply(status=504, body=b"", headers={"content-type": "text/html"}),
    ],
    ids=["no answer", "half an answer", "502", "504"],
)
def test_a_get_is_tried_again(caller, stub, reply):
    stub.replies(*repeated(reply, 2), Reply(json=HEALTH))
    assert caller("health").status == "healthy"
    assert len(stub.seen) == 3


@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut_after=-1),
        Reply(json=execution(), cut_after=10),
        Reply(status=502, json=problem(502, "sandbox_lost", retryable=True)),
        Reply(status=504, body=b"", headers={"content-type": "text/html"}),
        RUNNING,
    ],
    ids=["no answer", "half an answer", "sandbox_lost", "proxy 504", "the first still runs"],
)
def test_with_an_idempotency_key_an_execution_is_sent_again(caller, stub, reply):
    stub.replies(*repeated(reply, 2), Reply(json=execution()))
    assert caller.execute("x", idempotency_key="k-1").ok
    assert [seen.headers["idempotency-key"] for seen in stub.seen] == ["k-1"] * 3
    assert stub.seen[0].raw == stub.seen[2].raw


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=504, json=problem(504, "execution_timeout", execution=execution())),
        Reply(status=409, json=problem(409, "conflict", retryable=False)),
        Reply(status=422, json=problem(422, "invalid_request")),
        Reply(status=500, json=problem(500, "internal", retryable=True)),
    ],
    ids=["timeout", "interrupted", "used for another", "internal"],
)
def test_with_an_idempotency_key_what_is_final_is_not_sent_again(caller, stub, reply):
    stub.replies(reply)
    with pytest.raises(FaaSError):
        caller.execute("x", idempotency_key="k-1")
    assert len(stub.seen) == 1


def test_without_an_idempotency_key_a_conflict_is_not_tried_again(caller, stub):
    stub.replies(RUNNING)
    with pytest.raises(FaaSError):
        caller.execute("x")
    assert len(stub.seen) == 1


def test_lost_connections_say_that_the_command_may_have_run(caller, stub):
    stub.replies(Reply(json=execution(), cut_after=10))
    with pytest.raises(ConnectionLostError) as caught:
        caller.execute("x")
    assert caught.value.request_sent
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_refused_connection_is_tried_again_and_then_says_where(kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    caller = Caller(kind, f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectFailedError, match=f"127.0.0.1:{port}") as caught:
        caller.execute("x")
    assert not caught.value.request_sent


def test_an_execution_reaches_a_gateway_that_starts_between_two_attempts(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started: list[StubGateway] = []

    def start_instead_of_waiting(_seconds: float) -> None:
        started.append(StubGateway(port))

    monkeypatch.setattr("faas_sdk._transport.blocking.time.sleep", start_instead_of_waiting)
    try:
        with FaaSClient(f"http://127.0.0.1:{port}", retry=QUICK) as client:
            assert client.execute("x").ok
    finally:
        for gateway in started:
            gateway.stop()
    assert len(started) == 1


def test_a_silent_gateway_ends_in_a_timeout_and_one_attempt(caller, stub):
    stub.replies(Reply(json=execution(), hold=threading.Event()))
    with pytest.raises(TransportTimeoutError) as caught:
        caller.execute("x", http_timeout_s=1)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_sent
    assert len(stub.seen) == 1


def test_waits_grow_and_stay_below_their_limit():
    policy = RetryPolicy(max_retries=10, initial_backoff_s=1.0, max_backoff_s=4.0)
    call, error = server.version(), ConnectionLostError("x", True)
    assert [retry_wait_s(policy, call, error, n, 1.0) for n in range(4)] == [1.0, 2.0, 4.0, 4.0]
    assert retry_wait_s(policy, call, error, 0, 0.0) == 0.5
    assert retry_wait_s(policy, call, error, 10, 0.0) is None
    assert retry_wait_s(policy, execute.execute("x"), error, 0, 0.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("2", 2.0), ("0", 0.0), ("-1", None), ("nan", None), ("inf", None),
        ("soon", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_seconds(header, seconds):
    assert retry_after_s(header) == seconds


@pytest.mark.parametrize("setting", [{"max_retries": -1}, {"max_backoff_s": -1.0}, {"initial_backoff_s": float("nan")}])
def test_a_policy_without_sense_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RetryPolicy(**setting)
