"""What tests of instances share."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from faas_sdk import FaaSClient, FaaSError, Instance, SandboxLostError

import leftovers

OPERATIONS = ("exec", "stop", "start", "pause", "resume", "update")
"""In the order in which a refusal names them."""

LEGAL = {
    "running": {"exec", "stop", "pause", "update"},
    "paused": {"stop", "resume"},
    "stopped": {"start"},
    "failed": {"start"},
}
"""What can be asked of an instance that stands there, besides to be deleted."""

ALREADY = {"running": {"start", "resume"}, "paused": {"pause"}, "stopped": {"stop"}, "failed": set()}
"""What leads to where it stands: nothing is done, and that is no error."""

FILE = "/kept"
"""A file that is on an instance's disk."""


def ask(client: FaaSClient, instance_id: str, operation: str) -> Any:
    """One of the operations."""
    match operation:
        case "exec":
            return client.instances.exec(instance_id, "true")
        case "stop":
            return client.instances.stop(instance_id, grace_ms=0)
        case "update":
            return client.instances.update(instance_id, cpu_cores=0.75)
        case _:
            return getattr(client.instances, operation)(instance_id)


def has_cgroups(client: FaaSClient, runtime: str) -> bool:
    """Whether the runtime can pause and change limits, which takes cgroups."""
    return client.capabilities().runtimes[runtime].limits.memory.supported


def settle(instance: Instance, mark: str) -> None:
    """Gives it a file, and a process in the background."""
    assert instance.exec(f"echo {mark} > {FILE}; sleep {mark} </dev/null >/dev/null 2>&1 &").ok
    missing = leftovers.eventually(lambda: [] if leftovers.pids_with(f"sleep {mark}") else ["it does not run"])
    assert missing == []


def assert_kept(instance: Instance, mark: str) -> None:
    """Asserts that its file is as it was written."""
    assert instance.exec(["cat", FILE]).stdout == f"{mark}\n"


KILL_KEEPER = (
    "for stat in /proc/[0-9]*/stat; do read -r pid name state parent rest < $stat; "
    '[ "$parent" != 1 ] || kill -9 $pid; done 2>/dev/null; sleep 60'
)
"""The keeper of an instance's processes is the only child of its first one."""


def fail(instance: Instance) -> None:
    """Ends it from inside: with the keeper its first process ends, and all others with that."""
    with pytest.raises(SandboxLostError):
        instance.exec(KILL_KEEPER)
    assert leftovers.eventually(lambda: [] if instance.refresh().status == "failed" else [instance.status]) == []
    assert instance.info.status_reason


def bring(instance: Instance, status: str) -> None:
    """Brings one that runs to where it stands so."""
    match status:
        case "running":
            pass
        case "paused":
            instance.pause()
        case "stopped":
            instance.stop(grace_ms=0)
        case "failed":
            fail(instance)
    assert instance.refresh().status == status


def states(client: FaaSClient, runtime: str) -> list[str]:
    """Where an instance of the runtime can stand for long."""
    return [status for status in LEGAL if status != "paused" or has_cgroups(client, runtime)]


def outcome(call: Any, *arguments: Any, **options: Any) -> Any:
    """What a call gives: its result, or its error."""
    try:
        return call(*arguments, **options)
    except FaaSError as error:
        return error


def first_process(mark: str) -> int:
    """The PID on the host of the first process of the sandbox that the one with the mark is in."""
    beside = leftovers.pids_with(f"sleep {mark}")[0]
    of = Path(f"/proc/{beside}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        # Others come and go, and some are not to be looked at.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/pid").readlink() == of and number_inside(entry.name) == 1:
                return int(entry.name)
    raise AssertionError(f"no first process beside the one with {mark}")


def number_inside(pid: int | str) -> int:
    """The number of a process in the innermost PID namespace that it is in."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[-1] for line in lines if line.startswith("NSpid:")))


def agents_below(first: int) -> list[int]:
    """The agents that a sandbox has now, by its first process: one, or none when it was just killed."""
    return [agent for keeper in _agents_children(first) for agent in _agents_children(keeper)]


def _agents_children(pid: int) -> list[int]:
    """Children of a process that are the agent's program."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "agent\n" and is_alive(int(child)):
                found.append(int(child))
    return found


def is_alive(pid: int) -> list[str]:
    """A process, unless it has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if state == "Z" else [f"process {pid}"]
