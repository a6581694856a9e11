"""Databases for tests: of their own on the server that all share, or on one that a test may ill-treat."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import needs
from gateway import REPOSITORY, Gateway

SCRIPT = REPOSITORY / "scripts/test-postgres.sh"


def url() -> str:
    """Where the server for tests is."""
    given = os.environ.get("FAAS_TEST_POSTGRES_URL")
    if not given:
        reason = "FAAS_TEST_POSTGRES_URL is not set (scripts/test-postgres.sh starts a server)"
        needs.skip("postgres", reason, "tests/e2e")
        raise AssertionError("unreachable")
    return given


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """A database of a test's own; its URL."""
    name = f"faas_e2e_{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def execute(server: str, statement: str) -> None:
    """One statement."""
    command = ["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", statement, server]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Server:
    """A server of a test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = self.start()

    def start(self) -> str:
        """Starts it; its URL."""
        url = self._run("start")
        # The script has gone, so it is a child of these tests now, and no gateway's leftover.
        self._pid = int((self.directory / "data/postmaster.pid").read_text().split()[0])
        Gateway.running.add(self._pid)
        return url

    def halt(self) -> None:
        """Ends it and keeps its data."""
        self._run("halt")
        self._reap()

    def stop(self) -> None:
        """Ends it and removes its directory."""
        self._run("stop")
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        Gateway.running.discard(self._pid)

    def _run(self, verb: str) -> str:
        done = subprocess.run([SCRIPT, verb, self.directory], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{verb}: {done.stderr}"
        return done.stdout.strip()
