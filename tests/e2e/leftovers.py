"""What a gateway may leave on the machine, found by descent and by the marks it puts on what it makes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
"""See prctl(2)."""

SETTLE_S = 30.0
"""How long something may take to go away before it counts as left. Not a measure of anything."""


def become_subreaper() -> None:
    """Makes orphans of processes below this one its own children, so that none is lost from sight."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def eventually(ask: Callable[[], list[str]]) -> list[str]:
    """What `ask` still finds when it has had time to find nothing."""
    deadline = time.monotonic() + SETTLE_S
    while (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def processes_with(mark: str) -> list[str]:
    """Live processes of the machine, sandboxes included, whose command line has the mark."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if mark in command_line and pid != os.getpid():
                found.append(f"process {pid}: {command_line.strip()}")
    return found


def pids_with(mark: str) -> list[int]:
    """The same as numbers."""
    return [int(line.split()[1].rstrip(":")) for line in processes_with(mark)]


def children(expected: Iterable[int] = ()) -> list[str]:
    """Children of this process beyond the expected ones; those that have ended are reaped on the way."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
            if int(rest[1]) != os.getpid() or pid in set(expected):
                continue
            if rest[0] == "Z":
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                continue
            found.append(f"process {pid} ({name})")
    return found


def marked(marks: Iterable[str]) -> list[str]:
    """Mounts, cgroups and loop devices that have one of the marks in a name."""
    marks = list(marks)

    def has_mark(text: str) -> bool:
        return any(mark in text for mark in marks)

    found = [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if has_mark(line)]
    for root, directories, _ in os.walk("/sys/fs/cgroup"):
        found += [f"cgroup {root}/{name}" for name in directories if has_mark(name)]
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if has_mark(file.read_text()):
                found.append(f"loop device {file.parts[3]} on {file.read_text().strip()}")
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
