"""A Docker engine that a test may ill-treat (scripts/test-engine.sh), with the image alpine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import leftovers
from gateway import REPOSITORY, Gateway

SCRIPT = REPOSITORY / "scripts/test-engine.sh"


def docker(host: str, *arguments: str) -> str:
    """What Docker's own client says of an engine."""
    done = subprocess.run(["docker", "--host", host, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {arguments}: {done.stderr}"
    return done.stdout


class Engine:
    """A running engine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self._run("start", "alpine")

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    def end(self) -> None:
        """Ends it as a service manager would, if it runs, and waits for that."""
        try:
            pid = self.pid
        except FileNotFoundError:
            return
        os.kill(pid, signal.SIGTERM)
        assert leftovers.eventually(lambda: command_line(pid)) == []
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        Gateway.running.discard(pid)

    def restart(self) -> None:
        self._run("restart")

    def _run(self, verb: str, *images: str) -> None:
        run(verb, self.directory, *images)
        # The script has gone, so it is a child of these tests now, and no gateway's leftover.
        Gateway.running.add(self.pid)


def run(verb: str, directory: Path, *images: str) -> None:
    command = [SCRIPT, verb, directory, *images]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def command_line(pid: int) -> list[str]:
    """That of a process that runs; one that has ended has none."""
    with contextlib.suppress(OSError):
        if line := Path(f"/proc/{pid}/cmdline").read_text():
            return [line]
    return []


@contextlib.contextmanager
def serve(*, disk_mb: int | None = None) -> Iterator[Engine]:
    """Starts an engine, whose disk may be a small one, and ends it."""
    directory = Path(tempfile.mkdtemp(prefix="faas-e2e-eng-"))
    try:
        if disk_mb is not None:
            (directory / "data").mkdir()
            options = f"size={disk_mb}m,mode=711"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tests", directory / "data"], check=True)
        engine = Engine(directory)
        try:
            yield engine
        finally:
            # Here, since it has to be waited for.
            engine.end()
    finally:
        run("stop", directory)
    left = leftovers.processes_with(str(directory)) + leftovers.marked([str(directory)])
    assert left == []
