"""Idempotency keys: a request that is sent twice has its effect once, on each database, however a server ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faas_sdk import FaaSClient, Instance

import leftovers
import oci
import postgres
import raw
from gateway import Gateway, program
from succession import ONCE, nothing_is_left
from test_lifecycle import wait_for_process

UNIQUE = {"command": ["cat", "/proc/sys/kernel/random/uuid"]}
"""Prints something else each time it runs."""

RUNS = "/runs"
"""A file of an instance, to which each run of a command adds a line."""

Start = Callable[..., Gateway]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The arguments for a gateway's database."""
    if request.param == "sqlite":
        yield []
        return
    with postgres.database(postgres.url()) as url:
        yield ["--database-url", url]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that outlives a gateway."""
    with tempfile.TemporaryDirectory(prefix="faas-e2e-") as directory:
        yield Path(directory)


@pytest.fixture
def begin(database: list[str], data_dir: Path, start: Start) -> Start:
    """Starts gateways on that database; both it and the data directory outlive them."""
    del data_dir
    return lambda data_dir=None, *arguments: start(data_dir, *database, *arguments)


def execute(gateway: Gateway, body: object, key: str, **headers: str) -> raw.RawAnswer:
    return raw.execute(gateway.url, body, **{"idempotency-key": key}, **headers)


def run_in(gateway: Gateway, instance: Instance, body: object, key: str) -> raw.RawAnswer:
    headers = raw.JSON | {"idempotency-key": key}
    path = f"/api/v1/instances/{instance.id}/exec"
    return raw.request(gateway.url, "POST", path, json.dumps(body).encode(), headers)


def runs(instance: Instance) -> list[str]:
    """What runs of commands have added so far."""
    return instance.exec(f"cat {RUNS} 2>/dev/null || true").stdout.splitlines()


def send(gateway: Gateway, path: str, body: object, key: str) -> socket.socket:
    """A connection on which a request was sent whole, and nothing is read."""
    parts = urlsplit(gateway.url)
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"idempotency-key: {key}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((parts.hostname, parts.port))
    connection.sendall(head.encode() + content)
    return connection


def has_noticed(gateway: Gateway) -> list[str]:
    """Nothing, once the gateway knows that a client has gone."""
    log = gateway.log.read_text(errors="replace")
    return [] if "the client went away" in log else ["the client is not missed"]


def when_answered(ask: Callable[[], raw.RawAnswer]) -> raw.RawAnswer:
    """The answer that is another than that the first request is still running."""
    answers: list[raw.RawAnswer] = []

    def still_running() -> list[str]:
        answers.append(ask())
        is_running = answers[-1].status == 409 and answers[-1].json["retryable"]
        return [str(answers[-1])] if is_running else []

    assert leftovers.eventually(still_running) == []
    return answers[-1]


def is_replayed(answer: raw.RawAnswer) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


def assert_replayed(answer: raw.RawAnswer, first: raw.RawAnswer) -> None:
    """Asserts that an answer is the first one again."""
    assert is_replayed(answer), answer
    assert not is_replayed(first), first
    assert (answer.status, answer.body) == (first.status, first.body)
    assert answer.headers["content-type"] == first.headers["content-type"]


def test_the_same_request_gets_the_first_answer_again(begin):
    gateway = begin()
    first = execute(gateway, UNIQUE, "k", **{"x-request-id": "one"})
    assert first.status == 200, first
    again = execute(gateway, UNIQUE, "k", **{"x-request-id": "two"})
    assert_replayed(again, first)
    assert (again.headers["x-request-id"], again.json["request_id"]) == ("two", "one")
    others = [execute(gateway, UNIQUE, "k2"), raw.execute(gateway.url, UNIQUE)]
    assert len({answer.json["stdout"] for answer in [first, *others]}) == 3
    # A command that fails is an answer like any other.
    failed = execute(gateway, {"command": "cat /proc/sys/kernel/random/uuid; exit 3"}, "failed")
    assert_replayed(execute(gateway, {"command": "cat /proc/sys/kernel/random/uuid; exit 3"}, "failed"), failed)


def test_a_key_is_for_one_request_alone(begin):
    gateway = begin()
    assert execute(gateway, UNIQUE, "k").status == 200
    raw.assert_problem(execute(gateway, {"command": "true"}, "k"), 422, "invalid_request")
    body = json.dumps(UNIQUE).encode()
    elsewhere = raw.request(gateway.url, "POST", "/api/v1/images", body, raw.JSON | {"idempotency-key": "k"})
    assert "idempotency-key" in raw.assert_problem(elsewhere, 422, "invalid_request")["detail"]
    assert is_replayed(execute(gateway, UNIQUE, "k"))


@pytest.mark.modes("root")
def test_a_key_is_visible_ascii_of_a_bounded_length(gateway):
    for wrong in ("", "a b", "k" * 256, "k\u00e4"):
        raw.assert_problem(execute(gateway, UNIQUE, wrong), 422, "invalid_request")
    assert execute(gateway, UNIQUE, "~" * 255).status == 200


@pytest.mark.modes("root")
def test_what_is_final_is_kept_and_what_is_not_can_be_sent_again(begin):
    gateway = begin()
    for body in ({}, {"command": 1}, {"command": "true", "image": "a b"}):
        key = json.dumps(body).replace(" ", "")
        first = execute(gateway, body, key)
        raw.assert_problem(first, 422, "invalid_request")
        assert_replayed(execute(gateway, body, key), first)
    unparseable = raw.request(
        gateway.url, "POST", "/api/v1/execute", b"{", raw.JSON | {"idempotency-key": "unparseable"}
    )
    raw.assert_problem(unparseable, 400, "invalid_request")
    raw.assert_problem(execute(gateway, UNIQUE, "unparseable"), 422, "invalid_request")
    # Refused for what the server lacks: the key is free again, for another request too.
    raw.assert_problem(execute(gateway, {"command": "true", "network": "egress"}, "free"), 501, "unsupported")
    assert execute(gateway, UNIQUE, "free").status == 200


def test_a_request_that_still_runs_is_a_conflict_and_its_timeout_is_kept(begin, mark):
    gateway = begin()
    body = {"command": f"sleep {mark}", "timeout_ms": 8000}
    with ThreadPoolExecutor() as pool:
        running = pool.submit(execute, gateway, body, "k")
        wait_for_process(mark)
        problem = raw.assert_problem(execute(gateway, body, "k"), 409, "conflict")
        assert problem["retryable"], problem
        raw.assert_problem(execute(gateway, UNIQUE, "k"), 422, "invalid_request")
        first = running.result()
    raw.assert_problem(first, 504, "execution_timeout")
    assert_replayed(execute(gateway, body, "k"), first)


def test_of_eight_at_once_one_runs(begin):
    gateway = begin()

    def until_answered(_: int) -> raw.RawAnswer:
        while (answer := execute(gateway, UNIQUE, "k")).status == 409:
            assert answer.json["retryable"], answer
        return answer

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(until_answered, range(8)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert sorted(is_replayed(answer) for answer in answers) == [False] + [True] * 7


def test_a_client_that_goes_away_gives_its_key_back(begin, mark):
    gateway = begin()
    with send(gateway, "/api/v1/execute", {"command": f"sleep {mark}", "timeout_ms": 600_000}, "k"):
        wait_for_process(mark)
        raw.assert_problem(execute(gateway, UNIQUE, "k"), 422, "invalid_request")
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []

    def is_taken() -> list[str]:
        answer = execute(gateway, UNIQUE, "k")
        return [] if answer.status == 200 else [str(answer)]

    assert leftovers.eventually(is_taken) == []


@pytest.mark.modes("root")
def test_clients_that_go_away_at_any_moment_leave_no_key_taken(begin):
    gateway = begin()
    body, chance = {"command": "true"}, random.Random(1)  # noqa: S311 - repeatable
    keys = {f"gone-{number}": chance.uniform(0, 0.005) for number in range(200)}

    def go_away(key: str) -> None:
        with send(gateway, "/api/v1/execute", body, key):
            time.sleep(keys[key])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(go_away, keys))
    for key in keys:
        answer = when_answered(lambda key=key: execute(gateway, body, key))
        assert answer.status == 200, (key, answer)


@pytest.mark.modes("root")
def test_a_kept_command_whose_client_goes_away_is_run_once_and_answered_for(begin):
    gateway = begin()
    command = f"echo run >> {RUNS}; until [ -e /go ]; do sleep 0.05; done; cat /proc/sys/kernel/random/uuid"
    body = {"command": command, "keep_running": True, "timeout_ms": 600_000}
    with FaaSClient(gateway.url, retry=ONCE) as client:
        instance = client.instances.create(image="host", runtime="native")
        with send(gateway, f"/api/v1/instances/{instance.id}/exec", body, "k"):
            assert leftovers.eventually(lambda: [] if runs(instance) else ["it does not run"]) == []
        assert leftovers.eventually(lambda: has_noticed(gateway)) == []
        for _ in range(5):
            problem = raw.assert_problem(run_in(gateway, instance, body, "k"), 409, "conflict")
            assert problem["retryable"], problem
        raw.assert_problem(run_in(gateway, instance, {"command": "true"}, "k"), 422, "invalid_request")
        assert instance.exec("touch /go").ok
        first = when_answered(lambda: run_in(gateway, instance, body, "k"))
        assert (first.status, first.json["exit_code"]) == (200, 0), first
        assert is_replayed(first), first
        assert run_in(gateway, instance, body, "k").body == first.body
        assert runs(instance) == ["run"]
        nothing_is_left(client)


@pytest.mark.modes("root")
def test_a_command_in_the_background_is_run_once_whenever_its_client_goes_away(begin):
    gateway = begin()
    chance, numbers = random.Random(2), [str(number) for number in range(40)]  # noqa: S311 - repeatable
    with FaaSClient(gateway.url, retry=ONCE) as client:
        instance = client.instances.create(image="host", runtime="native")
        for number in numbers:
            body = {"command": f"echo {number} >> {RUNS}", "background": True}
            with send(gateway, f"/api/v1/instances/{instance.id}/exec", body, number):
                time.sleep(chance.uniform(0, 0.03))
            answer = when_answered(lambda body=body, number=number: run_in(gateway, instance, body, number))
            assert answer.status == 202, (number, answer)
            assert run_in(gateway, instance, body, number).body == answer.body
        executions = list(instance.executions())
        for execution in executions:
            execution.wait()
        assert sorted(runs(instance)) == sorted(numbers)
        assert len(executions) == len(numbers)
        nothing_is_left(client)


@pytest.mark.modes("root")
def test_a_kept_command_that_is_lost_is_not_run_again(begin, mark):
    gateway = begin()
    body = {"command": f"echo run >> {RUNS}; sleep {mark}", "keep_running": True, "timeout_ms": 600_000}
    with FaaSClient(gateway.url, retry=ONCE) as client:
        instance = client.instances.create(image="host", runtime="native")
        with ThreadPoolExecutor() as pool:
            running = pool.submit(run_in, gateway, instance, body, "k")
            wait_for_process(mark)
            instance.stop(grace_ms=0)
            raw.assert_problem(running.result(), 502, "sandbox_lost")
        instance.start()
        problem = raw.assert_problem(run_in(gateway, instance, body, "k"), 409, "conflict")
        assert not problem["retryable"], problem
        assert "interrupted" in problem["detail"], problem
        assert runs(instance) == ["run"]
        nothing_is_left(client)


@pytest.mark.modes("root")
@pytest.mark.parametrize("client_waits", [True, False], ids=["waited for", "left"])
def test_what_a_server_left_running_is_not_run_again(begin, data_dir, mark, client_waits):
    gateway = begin(data_dir, "--drain-timeout-ms", "100")
    body = {"command": f"echo run >> {RUNS}; sleep {mark}", "keep_running": True, "timeout_ms": 600_000}
    with FaaSClient(gateway.url, retry=ONCE) as client:
        instance_id = client.instances.create(image="host", runtime="native").id
    with send(gateway, f"/api/v1/instances/{instance_id}/exec", body, "k") as connection:
        wait_for_process(mark)
        if not client_waits:
            connection.close()
            assert leftovers.eventually(lambda: has_noticed(gateway)) == []
        assert gateway.stop() == 0, gateway.log_text()
        if client_waits:
            answer = http.client.HTTPResponse(connection)
            # What goes out at the end has little time to.
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer.begin()
                assert answer.status == 503
    gateway.remove()
    gateway = begin(data_dir)
    with FaaSClient(gateway.url, retry=ONCE) as client:
        instance = client.instances.get(instance_id)
        problem = raw.assert_problem(run_in(gateway, instance, body, "k"), 409, "conflict")
        assert not problem["retryable"], problem
        assert "interrupted" in problem["detail"], problem
        assert runs(instance) == ["run"]
        assert leftovers.processes_with(mark), "it goes on"
        nothing_is_left(client)


@pytest.mark.modes("root")
def test_a_large_answer_is_not_kept_and_its_command_not_run_again(begin):
    gateway = begin()
    # Twice in the answer, as stdout and as output.
    body = {"command": "head -c 600000 /dev/zero | tr '\\0' x"}
    first = execute(gateway, body, "k")
    assert (first.status, len(first.json["stdout"])) == (200, 600_000)
    problem = raw.assert_problem(execute(gateway, body, "k"), 409, "conflict")
    assert not problem["retryable"], problem
    assert "1048576" in problem["detail"], problem


def test_answers_outlive_the_server(begin, data_dir):
    gateway = begin(data_dir)
    first = execute(gateway, UNIQUE, "stopped")
    gateway.stop_and_check()
    gateway = begin(data_dir)
    assert_replayed(execute(gateway, UNIQUE, "stopped"), first)
    second = execute(gateway, UNIQUE, "killed")
    gateway.kill()
    gateway.remove()
    gateway = begin(data_dir)
    assert_replayed(execute(gateway, UNIQUE, "stopped"), first)
    assert_replayed(execute(gateway, UNIQUE, "killed"), second)


def test_an_execution_that_a_killed_server_ran_is_run_again(begin, data_dir, mark):
    gateway = begin(data_dir)
    body = {"command": f"sleep {mark}", "timeout_ms": 4000}

    def broken() -> None:
        with pytest.raises(OSError):  # noqa: PT011 - the connection breaks in one way or another
            execute(gateway, body, "k")

    client = threading.Thread(target=broken)
    client.start()
    wait_for_process(mark)
    gateway.kill()
    client.join()
    gateway.remove()
    gateway = begin(data_dir)
    raw.assert_problem(execute(gateway, UNIQUE, "k"), 422, "invalid_request")
    again = execute(gateway, body, "k")
    raw.assert_problem(again, 504, "execution_timeout")
    assert not is_replayed(again)
    assert_replayed(execute(gateway, body, "k"), again)


@pytest.mark.modes("root")
def test_a_pull_that_a_killed_server_did_is_not_done_again(begin, data_dir):
    body, headers = b"", {}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"localhost:{silent.getsockname()[1]}"
        body = json.dumps({"name": f"{name}/a/b"}).encode()
        headers = raw.JSON | {"idempotency-key": "k"}
        gateway = begin(data_dir, "--insecure-registries", name)
        with ThreadPoolExecutor() as pool:
            pulling = pool.submit(raw.request, gateway.url, "POST", "/api/v1/images", body, headers)
            # It is asked for the image, so it is being pulled.
            connection, _ = silent.accept()
            gateway.kill()
            connection.close()
            assert isinstance(pulling.exception(), OSError)
    gateway.remove()
    gateway = begin(data_dir)
    problem = raw.assert_problem(raw.request(gateway.url, "POST", "/api/v1/images", body, headers), 409, "conflict")
    assert not problem["retryable"], problem
    assert "interrupted" in problem["detail"], problem


@pytest.mark.modes("root")
def test_a_pull_has_a_key_where_its_answer_is_a_document(begin, registry, root):
    gateway = begin(None, "--insecure-registries", registry.name)
    name = registry.push(oci.Image([root], {"Env": ["PATH=/bin"]}), "idempotency/once")
    with FaaSClient(gateway.url) as client:
        image = client.images.pull(name, idempotency_key="sdk")
        client.images.remove(name)
        assert client.images.pull(name, idempotency_key="sdk") == image, "the answer, and not the effect"
        assert client.images.list(name) == ()
    body, headers = json.dumps({"name": name}).encode(), raw.JSON | {"idempotency-key": "raw"}
    for events in ("application/x-ndjson", "text/event-stream"):
        streamed = raw.request(gateway.url, "POST", "/api/v1/images", body, headers | {"accept": events})
        raw.assert_problem(streamed, 501, "unsupported")
    archive = {"content-type": "application/x-tar", "idempotency-key": "raw"}
    raw.assert_problem(raw.request(gateway.url, "POST", "/api/v1/images", b"x", archive), 501, "unsupported")
    first = raw.request(gateway.url, "POST", "/api/v1/images", body, headers)
    assert first.status == 201, first
    assert_replayed(raw.request(gateway.url, "POST", "/api/v1/images", body, headers), first)


@pytest.mark.modes("root")
def test_keys_are_forgotten_in_time(begin):
    gateway = begin(None, "--idempotency-ttl-ms", "500")
    first = execute(gateway, UNIQUE, "k")

    def is_kept() -> list[str]:
        return [] if execute(gateway, UNIQUE, "k").body != first.body else ["the first answer"]

    assert leftovers.eventually(is_kept) == []


@pytest.mark.modes("root")
def test_the_sdks_send_a_key(gateway):
    with FaaSClient(gateway.url) as client:
        results = [client.execute(UNIQUE["command"], idempotency_key="of-the-sdk") for _ in range(2)]
    assert results[0] == results[1]


@pytest.mark.modes("root")
def test_without_its_postgresql_a_gateway_runs_what_has_no_key(postgresql, start):
    gateway = start(None, "--database-url", postgresql.url)
    first = execute(gateway, UNIQUE, "k")
    assert first.status == 200, first
    with FaaSClient(gateway.url) as client:
        assert client.health().store.available
        postgresql.halt()
        raw.assert_problem(execute(gateway, UNIQUE, "k"), 503, "overloaded")
        assert client.execute("echo fine").stdout == "fine\n"
        health = client.health()
        assert (health.status, health.store.kind, health.store.available) == ("degraded", "postgresql", False)
        assert health.store.reason
        unready = raw.assert_problem(raw.request(gateway.url, "GET", "/readyz", headers={}), 503, "overloaded")
        assert "store" in unready["detail"]
        assert raw.request(gateway.url, "GET", "/livez", headers={}).status == 200
        postgresql.start()
        assert raw.request(gateway.url, "GET", "/readyz", headers={}).status == 200
        assert_replayed(execute(gateway, UNIQUE, "k"), first)
        assert client.health().store.available


@pytest.mark.modes("root")
def test_a_postgresql_that_cannot_be_had_is_told_in_one_line(mode, data_dir):
    del mode
    for url, code in (
        ("postgres://ann:geheim@localhost/x?host=/nonexistent", 1),
        ("postgres://ann:geheim@127.0.0.1:1/x", 1),
        ("mysql://ann:geheim@localhost/x", 64),
    ):
        command = [str(program()), "--listen", "127.0.0.1:0", "--data-dir", str(data_dir), "--docker-host", "none"]
        ended = subprocess.run(
            [*command, "--database-url", url], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == code, ended
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("faas-gateway-server: ")]
        assert "database_url" in line, ended
        assert "geheim" not in ended.stderr + ended.stdout, ended


@pytest.mark.modes("root")
def test_a_postgresql_database_belongs_to_one_gateway(data_dir, start):
    with postgres.database(postgres.url()) as url:
        start(data_dir, "--database-url", url).stop_and_check()
        with tempfile.TemporaryDirectory(prefix="faas-e2e-") as other:
            command = [str(program()), "--listen", "127.0.0.1:0", "--data-dir", other, "--docker-host", "none"]
            command += ["--database-url", url]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert ended.returncode == 64, ended
            assert "belongs to the gateway" in ended.stderr, ended
