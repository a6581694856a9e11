"""Limits hold, are reported, and harm nobody else."""

from __future__ import annotations

import concurrent.futures

import pytest
from faas_sdk import FaaSError

ALLOCATE = ["python3", "-c", "x = b'x' * (400 << 20); print(len(x))"]

FORK = """
import os, time
n = 0
try:
    while n < 500:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        n += 1
except BlockingIOError:
    print(n)
"""

BURN = """
import os, time
deadline = time.monotonic() + 3
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        while time.monotonic() < deadline:
            pass
        os._exit(0)
    pids.append(pid)
began = time.monotonic()
for pid in pids:
    os.waitpid(pid, 0)
wall = time.monotonic() - began
used = os.times()
print(used.children_user + used.children_system, wall)
"""


@pytest.mark.modes("root", "delegated")
def test_too_much_memory_is_an_oom_kill_and_says_so(client):
    result = client.execute(ALLOCATE, memory_mb=64)
    assert result.oom_killed
    assert (result.exit_code, result.signal) == (137, "SIGKILL")
    assert client.execute(ALLOCATE, memory_mb=1024).stdout == f"{400 << 20}\n"


@pytest.mark.modes("root", "delegated")
def test_an_oom_kill_of_a_child_is_reported_and_the_command_goes_on(client):
    result = client.execute("python3 -c 'x = b\"x\" * (400 << 20)'; echo child: $?", memory_mb=64)
    assert result.stdout == "child: 137\n"
    assert (result.oom_killed, result.exit_code) == (True, 0)


@pytest.mark.modes("root", "delegated")
def test_an_oom_kill_is_not_told_of_another_execution(client):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        hungry = [pool.submit(client.execute, ALLOCATE, memory_mb=64) for _ in range(4)]
        modest = [pool.submit(client.execute, "sleep 0.2; echo fine", memory_mb=64) for _ in range(4)]
    assert [future.result().oom_killed for future in hungry] == [True] * 4
    assert [(future.result().oom_killed, future.result().stdout) for future in modest] == [(False, "fine\n")] * 4
    assert not client.execute("true", memory_mb=64).oom_killed


@pytest.mark.modes("root", "delegated")
def test_swap_is_no_way_around_the_memory_limit(client):
    result = client.execute("cat /proc/meminfo >/dev/null; " + "python3 -c 'x = b\"x\" * (80 << 20)'", memory_mb=64)
    assert result.oom_killed


def test_processes_end_at_their_limit(client):
    result = client.execute(["python3", "-c", FORK], pids_limit=24)
    assert result.exit_code == 0, result
    assert 8 <= int(result.stdout) < 24


@pytest.mark.modes("root", "delegated")
def test_a_fork_bomb_harms_nobody_else(client, mark):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        bomb = pool.submit(bombed, client, mark)
        for _ in range(5):
            assert client.execute("echo fine").stdout == "fine\n"
        assert bomb.result()


def bombed(client, mark) -> bool:
    try:
        client.execute(f"bomb() {{ bomb | bomb & }}; bomb; sleep {mark}", pids_limit=64, timeout_ms=2_000)
    except FaaSError as error:
        return type(error).__name__ in ("ExecutionTimeoutError", "SandboxLostError")
    return True


def test_disk_ends_at_its_limit(client):
    result = client.execute(
        "dd if=/dev/zero of=/tmp/big bs=1M count=64; echo $?; wc -c < /tmp/big", disk_mb=8, memory_mb=512
    )
    assert "No space left on device" in result.stderr or "Disk quota exceeded" in result.stderr, result
    code, size = result.stdout.split()
    assert code == "1"
    assert 1 << 20 <= int(size) <= 8 << 20
    assert client.execute("dd if=/dev/zero of=/tmp/big bs=1M count=4 2>/dev/null; echo $?", disk_mb=8).stdout == "0\n"


def test_files_written_without_a_disk_limit_stay_within_memory(client):
    result = client.execute("dd if=/dev/zero of=/tmp/big bs=1M count=512", memory_mb=64)
    assert result.oom_killed or "No space left on device" in result.stderr, result


@pytest.mark.modes("root", "delegated")
def test_the_cpu_limit_bounds_the_cpu_time(client):
    # Another's load on the machine can only lower the share that the two workers get, so this bound always holds.
    result = client.execute(["python3", "-c", BURN], cpu_cores=0.5)
    used, wall = map(float, result.stdout.split())
    assert used / wall < 0.8, result


def test_limits_of_one_execution_are_not_those_of_the_next(client):
    for memory_mb, pids_limit in [(64, 24), (512, 200), (64, 24)]:
        result = client.execute(["python3", "-c", FORK], memory_mb=memory_mb, pids_limit=pids_limit)
        assert int(result.stdout) < pids_limit
        assert int(result.stdout) >= pids_limit - 16
