"""Many at once, clients that go away, gateways that stop and that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faas_sdk import AsyncFaaSClient, FaaSClient, FaaSError, RetryPolicy

import leftovers
import raw
from gateway import program

ONCE = RetryPolicy(max_retries=0)


def sleepers(mark: str) -> list[str]:
    """The processes that are the command itself, and not the shells that wait for it."""
    return [process for process in leftovers.processes_with(mark) if f": sleep {mark}" in process]


def wait_for_process(mark: str) -> None:
    """Returns when a process with the mark runs."""
    missing = leftovers.eventually(lambda: [] if leftovers.processes_with(mark) else [f"no process with {mark}"])
    assert missing == []


@pytest.mark.modes("root")
def test_as_many_descriptors_may_be_open_as_the_hard_limit_says(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        running = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    with FaaSClient(running.url) as client:
        # What runs in a sandbox has its own.
        assert client.execute("ulimit -Sn").stdout == "1024\n"


def test_thirty_two_at_once_keep_their_own_output(gateway):
    async def together() -> None:
        async with AsyncFaaSClient(gateway.url) as client:
            commands = [f"echo {n}; echo e{n} >&2; exit {n % 7}" for n in range(160)]
            gate = asyncio.Semaphore(32)

            async def one(n: int):
                async with gate:
                    return await client.execute(commands[n], env_vars={"N": str(n)})

            for n, result in enumerate(await asyncio.gather(*(one(n) for n in range(160)))):
                assert (result.stdout, result.stderr, result.exit_code) == (f"{n}\n", f"e{n}\n", n % 7)

    asyncio.run(together())


def test_thirty_two_hold_the_same_moment(gateway):
    async def together() -> list[str]:
        async with AsyncFaaSClient(gateway.url) as client:
            results = await asyncio.gather(*(client.execute(f"sleep 0.5; echo {n}") for n in range(32)))
            return [result.stdout for result in results]

    assert asyncio.run(together()) == [f"{n}\n" for n in range(32)]


def test_a_client_that_goes_away_ends_its_execution(gateway, client, mark):
    parts = urlsplit(gateway.url)
    body = json.dumps({"command": f"sleep {mark}", "timeout_ms": 600_000}).encode()
    head = (
        "POST /api/v1/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(head.encode() + body)
        wait_for_process(mark)
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    assert client.execute("echo fine").stdout == "fine\n"


def test_cancelling_an_asynchronous_call_ends_its_execution(gateway, mark):
    async def cancelled() -> None:
        async with AsyncFaaSClient(gateway.url) as client:
            task = asyncio.create_task(client.execute(f"sleep {mark}", timeout_ms=600_000))
            await asyncio.to_thread(wait_for_process, mark)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_health_capabilities_and_version(gateway, client):
    health = client.health()
    assert health.status in ("healthy", "degraded")
    assert health.runtimes["native"].available, health.runtimes["native"].reason
    assert (health.docker, health.firecracker) == tuple(
        name in health.runtimes and health.runtimes[name].available for name in ("docker", "firecracker")
    )
    capabilities = client.capabilities()
    assert (capabilities.default_runtime, capabilities.default_image) == ("native", "host")
    native = capabilities.runtimes["native"]
    for limit in (native.limits.memory, native.limits.cpu, native.limits.pids, native.limits.disk):
        assert limit.detail
    for name, runtime in capabilities.runtimes.items():
        assert runtime.available or runtime.reason, name
        for feature, support in runtime.features.items():
            assert support.detail, feature
    assert client.version().version == health.version
    for path in ("/livez", "/readyz"):
        assert raw.request(gateway.url, "GET", path, None, {}).status == 200


def test_the_contract_is_served(gateway):
    served = raw.request(gateway.url, "GET", "/openapi.json", None, {}).json
    assert served["openapi"].startswith("3.1")
    assert "/api/v1/execute" in served["paths"]
    assert raw.request(gateway.url, "GET", "/docs/", None, {}).status == 200


def test_sigterm_lets_a_running_execution_end(start, mark):
    running = start()
    results = []
    with FaaSClient(running.url, retry=ONCE) as client:
        thread = threading.Thread(
            target=lambda: results.append(client.execute(f"sh -c 'sleep 1; : {mark}'; echo done"))
        )
        thread.start()
        wait_for_process(mark)
        running.stop_and_check()
        thread.join()
    assert [result.stdout for result in results] == ["done\n"]


def test_a_second_signal_ends_it_at_once_and_leaves_nothing(start, mark):
    running = start()
    failures = []

    def call() -> None:
        with FaaSClient(running.url, retry=ONCE) as client:
            try:
                client.execute(f"sleep {mark}", timeout_ms=600_000)
            except FaaSError as error:
                failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_for_process(mark)
    running.process.send_signal(signal.SIGTERM)
    while not connection_refused(running.url):
        pass
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(60)
    thread.join()
    assert len(failures) == 1
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    data_dir = running.data_dir
    again = start(data_dir)
    with FaaSClient(again.url) as client:
        assert client.execute("echo fine").ok
    again.stop_and_check()
    running.remove()


def connection_refused(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # Caught in the listener's queue when it was closed.
        return False
    return False


def test_a_killed_gateway_leaves_nothing_once_it_is_started_again(start, mark):
    first = start()
    failures = []

    def call() -> None:
        with FaaSClient(first.url, retry=ONCE) as client:
            try:
                client.execute(f"echo x > /tmp/x; sleep {mark}", timeout_ms=600_000, disk_mb=16)
            except FaaSError as error:
                failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    missing = leftovers.eventually(lambda: [] if len(sleepers(mark)) == 4 else ["not all run"])
    assert missing == []
    first.kill()
    for thread in threads:
        thread.join()
    assert [type(error).__name__ for error in failures] == ["ConnectionLostError"] * 4

    second = start(first.data_dir)
    with FaaSClient(second.url) as client:
        assert client.execute("echo fine", disk_mb=16).stdout == "fine\n"
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    second.stop_and_check()
    first.remove()


def test_a_data_directory_has_one_gateway(gateway):
    done = run_gateway("--listen", "127.0.0.1:0", "--data-dir", str(gateway.data_dir))
    assert done.returncode == 64, done
    assert str(gateway.data_dir) in done.stderr
    assert "listening" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--no-such-option"], "no-such-option"),
        (["--listen", "nowhere"], "nowhere"),
        (["--listen", "0.0.0.0:0"], "auth"),
        (["--runtime", "lxc"], "lxc"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml"),
    ],
)
def test_bad_configuration_is_exit_64_and_one_clear_line(arguments, word):
    folder = tempfile.mkdtemp(prefix="faas-e2e-")
    try:
        listen = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
        done = run_gateway("--data-dir", folder, *listen, *arguments)
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 64, done
    assert word in done.stderr
    assert "panicked" not in done.stderr
    assert "listening" not in done.stdout


def test_an_unknown_key_of_the_configuration_file_is_named(tmp_path):
    file = Path(tmp_path) / "faas.toml"
    file.write_text('lisen = "127.0.0.1:0"\n')
    done = run_gateway("--config", str(file), "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    assert done.returncode == 64, done
    assert "lisen" in done.stderr


def run_gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip


@pytest.mark.alone
def test_the_server_does_not_grow(gateway, client):
    def counts() -> tuple[int, int]:
        pid = gateway.process.pid
        return len(list(Path(f"/proc/{pid}/fd").iterdir())), len(Path("/proc/self/mountinfo").read_text().splitlines())

    for _ in range(20):
        client.execute("true")
    before = counts()
    for _ in range(200):
        client.execute("true")
    grown = leftovers.eventually(
        lambda: (
            [] if all(now <= then + 4 for now, then in zip(counts(), before, strict=True)) else [f"{before} {counts()}"]
        )
    )
    assert grown == []
