"""The runtime `docker` over HTTP, with the engine that FAAS_TEST_DOCKER_HOST names (scripts/test-engine.sh).

What a sandbox does is tested in crates/faas-executor/tests/docker.rs; here is what a client and an operator see.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from faas_sdk import (
    ExitEvent,
    FaaSClient,
    FaaSError,
    ImageUnavailableError,
    InvalidRequestError,
    OutputEvent,
    RetryPolicy,
    RuntimeUnavailableError,
    SandboxLostError,
    StartedEvent,
    UnsupportedError,
)

import leftovers
import raw
from gateway import Gateway

pytestmark = pytest.mark.modes("root")

ONCE = RetryPolicy(max_retries=0)


def containers(engine: str, gateway: Gateway) -> list[str]:
    """Names of the gateway's containers."""
    mark = (gateway.data_dir / "gateway-id").read_text().strip()
    command = ["docker", "--host", engine, "ps", "--all", "--filter", f"label=faas.gateway={mark}"]
    done = subprocess.run([*command, "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture(params=["socket", "attach"])
def docker(request: pytest.FixtureRequest, engine: str, start: Callable[..., Gateway]) -> Iterator[Gateway]:
    """A gateway with the engine, over each transport; at the end no container of it may be there."""
    running = start(None, "--docker-host", engine, "--docker-transport", request.param, "--pull", "never")
    yield running
    assert leftovers.eventually(lambda: containers(engine, running)) == []


def test_a_request_that_names_an_image_gets_a_container(docker):
    with FaaSClient(docker.url) as client:
        result = client.execute("echo 'Hello!'; cat; exit 3", image="alpine", runtime="docker", stdin="in")
        assert (result.stdout, result.exit_code, result.runtime, result.image) == ("Hello!\nin", 3, "docker", "alpine")
        assert client.execute("true").runtime == "native"
        result = client.execute(["/echo", "a"], image="scratch:latest", runtime="docker")
        assert (result.stdout, result.runtime) == ("a\n", "docker")
        # `auto` takes the first that can: the native runtime has the engine's image from then on.
        assert client.execute("true", image="alpine").runtime == "native"
        script = "import sys; print(sys.version_info[:2])"
        assert client.execute(["python3", "-c", script], image="python:3.11-slim").stdout == "(3, 11)\n"


def test_output_comes_while_the_command_runs_and_closing_the_stream_ends_it(docker, mark):
    options = {"image": "alpine", "runtime": "docker", "timeout_ms": 600_000}
    with FaaSClient(docker.url) as client:
        started, *said, end = client.stream("printf 'a\\377'; sleep 0.2; echo b >&2; exit 4", **options)
        assert isinstance(started, StartedEvent)
        assert [(event.stream, event.data, event.offset) for event in said if isinstance(event, OutputEvent)] == [
            ("stdout", b"a\xff", 0),
            ("stderr", b"b\n", 2),
        ]
        assert isinstance(end, ExitEvent)
        assert (end.exit_code, end.runtime) == (4, "docker")
        with closing(client.stream(f"echo begun; sleep {mark}", **options)) as stream:
            next(stream)
            assert next(stream).data == b"begun\n"
        assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
        dies = client.stream(f"sleep 0.2; kill -9 $PPID; sleep {mark}", **options)
        assert isinstance(next(dies), StartedEvent)
        with pytest.raises(SandboxLostError):
            next(dies)


def test_health_and_capabilities_tell_of_the_engine(docker):
    with FaaSClient(docker.url) as client:
        assert client.health().docker
        engine = client.capabilities().runtimes["docker"]
        assert engine.available
        assert engine.limits.memory.supported
        for name in ("agent_transport", "engine", "network_egress", "oom_report", "usage"):
            assert engine.features[name].detail, name


def test_what_cannot_be_done_is_one_clear_problem(docker):
    with FaaSClient(docker.url, retry=ONCE) as client:
        with pytest.raises(ImageUnavailableError, match="docker pull"):
            client.execute("true", image="ghost", runtime="docker")
        with pytest.raises(ImageUnavailableError, match="native"):
            client.execute("true", image="host", runtime="docker")
        with pytest.raises(InvalidRequestError, match="no name of an image"):
            client.execute("true", image="UPPER", runtime="docker")
        with pytest.raises(UnsupportedError, match="bridge"):
            client.execute("true", image="alpine", runtime="docker", network="egress")
        with pytest.raises(UnsupportedError, match=r"native .*; docker .*; firecracker"):
            client.execute("true", image="alpine", network="egress")
    body = raw.assert_problem(
        raw.execute(docker.url, {"command": "true", "image": "ghost", "runtime": "docker"}), 502, "image_unavailable"
    )
    assert body["retryable"] is True


def test_an_engine_that_is_not_there_is_told_and_the_rest_works(start):
    running = start(None, "--docker-host", "unix:///no/such/docker.sock")
    with FaaSClient(running.url, retry=ONCE) as client:
        health = client.health()
        assert (health.status, health.docker) == ("healthy", False)
        assert "install and start" in (health.runtimes["docker"].reason or "")
        with pytest.raises(RuntimeUnavailableError, match="install and start"):
            client.execute("true", image="alpine", runtime="docker")
        # The runtime that is there says more than the one that is not.
        with pytest.raises(ImageUnavailableError, match="install and start"):
            client.execute("true", image="alpine")
        assert client.execute("true").runtime == "native"


def test_an_engine_can_be_switched_off(start):
    running = start(None, "--docker-host", "none")
    with FaaSClient(running.url, retry=ONCE) as client, pytest.raises(RuntimeUnavailableError, match="switched off"):
        client.execute("true", image="alpine", runtime="docker")


def in_background(
    gateway: Gateway, count: int, mark: str, **more: object
) -> tuple[list[threading.Thread], list[FaaSError]]:
    """Executions that sleep, each in a thread of its own, and the errors that they end with."""
    failures: list[FaaSError] = []

    def call() -> None:
        with FaaSClient(gateway.url, retry=ONCE) as client:
            try:
                client.execute(["sleep", mark], image="alpine", runtime="docker", timeout_ms=600_000)
            except FaaSError as error:
                failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    missing = leftovers.eventually(
        lambda: [] if len(leftovers.processes_with(f"sleep {mark}")) >= count else ["not all run"]
    )
    assert missing == []
    return threads, failures


def test_a_killed_gateway_leaves_nothing_once_it_is_started_again(engine, start, mark):
    arguments = ("--docker-host", engine, "--docker-transport", "socket", "--pull", "never")
    first = start(None, *arguments)
    threads, failures = in_background(first, 3, mark)
    first.kill()
    for thread in threads:
        thread.join()
    assert len(failures) == 3
    assert len(containers(engine, first)) == 3
    second = start(first.data_dir, *arguments)
    assert leftovers.eventually(lambda: containers(engine, second)) == []
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    second.stop_and_check()
    first.remove()


def test_with_attached_agents_a_killed_gateway_takes_its_sandboxes_along(engine, start, mark):
    arguments = ("--docker-host", engine, "--docker-transport", "attach", "--pull", "never")
    first = start(None, *arguments)
    threads, _ = in_background(first, 2, mark)
    first.kill()
    for thread in threads:
        thread.join()
    # Nobody could reach their agents again.
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    second = start(first.data_dir, *arguments)
    assert leftovers.eventually(lambda: containers(engine, second)) == []
    second.stop_and_check()
    first.remove()


def test_sigterm_ends_containers_when_the_drain_is_over(engine, start, mark):
    arguments = ("--docker-host", engine, "--pull", "never", "--drain-timeout-ms", "200")
    running = start(None, *arguments)
    threads, failures = in_background(running, 3, mark)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    for thread in threads:
        thread.join()
    assert len(failures) == 3
    assert containers(engine, running) == []
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    running.remove()


def test_many_at_once_keep_their_own_output(docker):
    results: dict[int, str] = {}

    def call(n: int) -> None:
        with FaaSClient(docker.url) as client:
            results[n] = client.execute(["echo", str(n)], image="alpine", runtime="docker", timeout_ms=120_000).stdout

    threads = [threading.Thread(target=call, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: f"{n}\n" for n in range(24)}
