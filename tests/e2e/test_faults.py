"""Callers who come and go, programs that starve their own agent, slots that die: nobody else notices."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faas_sdk import ExecutionTimeoutError, FaaSClient, InsufficientStorageError, RetryPolicy

import leftovers
import raw

ONCE = RetryPolicy(max_retries=0)


def head_and_body(body: object) -> bytes:
    text = json.dumps(body).encode()
    head = (
        "POST /api/v1/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found[1:]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def slots_of(gateway) -> list[int]:
    """The launcher's children that stand ready: no sandbox's `init` is among them."""
    launcher = descendants(gateway.process.pid)[0]
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(child) for child in children if "faas-launcher" in name_of(child)]


def name_of(pid: str) -> str:
    """The name of a process; of one that is gone, nothing."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.alone
def test_callers_who_leave_at_once_take_no_more_than_there_are_places(start):
    gateway = start(None, "--max-concurrent", "4", "--native-slots", "2")
    parts = urlsplit(gateway.url)
    request = head_and_body({"command": "sleep 1"})
    end = time.monotonic() + 3

    def come_and_go(number: int) -> None:
        while time.monotonic() < end:
            with socket.create_connection((parts.hostname, parts.port)) as connection:
                connection.sendall(request)
                time.sleep(0.0005 * number)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(come_and_go, number) for number in range(8)]:
            future.result()
        most = len(descendants(gateway.process.pid))
    # Launcher, slots, and five processes in each sandbox; some are on their way out.
    assert most <= 120, most
    with FaaSClient(gateway.url) as client:
        assert client.execute("echo fine").stdout == "fine\n"


def test_bytes_behind_a_request_do_not_hide_that_its_client_has_gone(gateway, mark):
    parts = urlsplit(gateway.url)
    request = head_and_body({"command": f"sleep {mark}", "timeout_ms": 600_000})
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(request + b"\r\n" + request)
        missing = leftovers.eventually(lambda: [] if leftovers.processes_with(mark) else ["it does not run"])
        assert missing == []
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


@pytest.mark.modes("root")
def test_slots_that_were_killed_cost_no_request(start):
    gateway = start(None, "--native-slots", "6")
    with FaaSClient(gateway.url, retry=ONCE) as client:
        client.execute("true")
        ready = leftovers.eventually(lambda: [] if len(slots_of(gateway)) >= 6 else ["not all stand ready"])
        assert ready == []
        for pid in slots_of(gateway):
            os.kill(pid, signal.SIGKILL)
        for number in range(12):
            assert client.execute(f"echo {number}").stdout == f"{number}\n"


def test_a_launcher_that_was_killed_costs_only_what_it_ran(start):
    gateway = start()
    with FaaSClient(gateway.url, retry=ONCE) as client:
        client.execute("true")
        for _ in range(3):
            assert leftovers.eventually(lambda: [] if descendants(gateway.process.pid) else ["no launcher"]) == []
            launcher = descendants(gateway.process.pid)[0]
            os.kill(launcher, signal.SIGKILL)
            gone = leftovers.eventually(lambda pid=launcher: ["it lives"] if is_alive(pid) else [])
            assert gone == []
            assert client.execute("echo fine").stdout == "fine\n"


def test_a_program_without_the_cpu_for_its_agent_is_a_timeout(client, mark):
    command = f"echo begun; for i in $(seq 60); do while :; do :; done & done; sleep {mark}"
    with pytest.raises(ExecutionTimeoutError) as caught:
        client.execute(command, cpu_cores=0.05, timeout_ms=3_000)
    assert caught.value.execution is not None
    assert caught.value.execution.stdout == "begun\n"
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_a_program_that_stops_its_agent_is_a_timeout(client):
    with pytest.raises(ExecutionTimeoutError) as caught:
        client.execute("echo begun; kill -STOP $PPID; sleep 60", timeout_ms=1_000)
    assert caught.value.execution is not None
    assert client.execute("echo fine").stdout == "fine\n"


def test_what_is_wrong_is_told_up_to_a_point(gateway):
    answer = raw.execute(gateway.url, {"command": "true", "env_vars": ["="] * 500_000})
    problem = raw.assert_problem(answer, 422, "invalid_request")
    assert 1 <= len(problem["errors"]) <= 100
    assert len(answer.body) < 100_000


@pytest.mark.modes("root")
def test_a_predecessors_memory_is_not_charged_to_the_next(start):
    gateway = start(None, "--native-slots", "1", "--max-concurrent", "1")
    fill = (
        "import ctypes; libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p; n = 300 << 20; "
        "a = libc.shmat(libc.shmget(0, n, 0o1600), None, 0); ctypes.memset(a, 1, n); print(a != -1)"
    )
    with FaaSClient(gateway.url, retry=ONCE) as client:
        for _ in range(3):
            assert client.execute(["python3", "-c", fill], memory_mb=1024).stdout == "True\n"
            result = client.execute("echo fine", memory_mb=16)
            assert (result.stdout, result.oom_killed) == ("fine\n", False)


@pytest.mark.modes("root")
def test_disks_are_not_promised_twice(start, tmp_path, mark):
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "faas-e2e-small", str(folder)], check=True)
    try:
        gateway = start(folder / "data")
        with FaaSClient(gateway.url, retry=ONCE) as client:
            held = threading.Thread(target=lambda: client.execute(f"sleep 3; echo held {mark}", disk_mb=150))
            held.start()
            assert leftovers.eventually(lambda: [] if leftovers.pids_with(f"echo held {mark}") else ["no"]) == []
            with pytest.raises(InsufficientStorageError):
                client.execute("true", disk_mb=150)
            held.join()
            # The room is free again when the sandbox is gone, a moment after its answer.
            assert leftovers.eventually(lambda: disk_is_refused(client, 150)) == []
        gateway.stop_and_check()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk_is_refused(client: FaaSClient, size: int) -> list[str]:
    try:
        client.execute("true", disk_mb=size)
    except InsufficientStorageError as error:
        return [str(error)]
    return []


@pytest.mark.modes("root")
def test_disks_of_many_sizes_are_made_at_once(gateway, client):
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda size: client.execute("df -m / | tail -1 | wc -l", disk_mb=size), range(5, 37))
        assert [result.stdout.strip() for result in results] == ["1"] * 32
    assert [path.name for path in (gateway.data_dir / "native/disks").iterdir() if path.name.startswith("new-")] == []


def test_a_crash_is_not_for_the_hosts_handler(client):
    # The one limit at which the kernel does not pipe a core to a program of the host (core(5)).
    limits = client.execute("grep 'core file' /proc/self/limits").stdout.split()
    assert limits[-3:-1] == ["1", "1"]


def test_terminals_of_one_sandbox_leave_some_for_the_next(client):
    source = (
        "import os\nheld = []\ntry:\n    while True:\n        held.append(os.openpty())\n"
        "except OSError:\n    print(len(held))\n"
    )
    assert int(client.execute(["python3", "-c", source]).stdout) <= 64


@pytest.mark.modes("root")
def test_sandboxes_do_not_see_each_others_use_of_devices(client, gateway):
    watch = (
        "import ctypes, os, select, time\nlibc = ctypes.CDLL(None)\nfd = libc.inotify_init1(0)\n"
        "for path in (b'/dev/null', b'/dev/urandom', b'/.faas/agent', b'/usr/bin/env'):\n"
        "    assert libc.inotify_add_watch(fd, path, 0x23) >= 0, path\n"
        "print(bool(select.select([fd], [], [], 2)[0]))\n"
    )
    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(client.execute, ["python3", "-c", watch])
        while not watcher.done():
            client.execute("head -c 8 /dev/urandom >/dev/null; /usr/bin/env true")
    assert watcher.result().stdout == "False\n", watcher.result()
