"""One gateway process: started on a port of its own, stopped politely or not, looked after."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from queue import Empty, Queue
from typing import ClassVar

import leftovers
from users import User

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60.0
STOP_S = 60.0


def program() -> Path:
    """The gateway's program.

    Raises:
        FileNotFoundError: there is none; the message says where it was looked for.
    """
    if named := os.environ.get("FAAS_GATEWAY_BIN"):
        path = Path(named)
        if not path.is_file():
            raise FileNotFoundError(f"FAAS_GATEWAY_BIN is {named}, and there is no such file")
        return path
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    built = [path for kind in ("release", "debug") if (path := target / kind / "faas-gateway-server").is_file()]
    if not built:
        raise FileNotFoundError(f"no faas-gateway-server in {target}/release or {target}/debug: build it first")
    return max(built, key=lambda path: path.stat().st_mtime)


def readable(program: Path, user: User) -> str:
    """A copy of the program where an ordinary user can read it."""
    copy = user.home / program.name
    if not copy.exists():
        shutil.copy(program, copy)
        copy.chmod(0o755)
    return str(copy)


class Gateway:
    """A running gateway."""

    running: ClassVar[set[int]] = set()
    """PIDs of all that run."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *arguments: str,
        environment: dict[str, str] | None = None,
        user: User | None = None,
    ) -> None:
        self._own_dir = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="faas-e2e-"))
        command = [str(program()), "--listen", "127.0.0.1:0", "--data-dir", str(self.data_dir), *arguments]
        if user is not None:
            os.chown(self.data_dir, user.uid, user.gid)
            command = user.command([readable(program(), user), *command[1:]], unit=self.data_dir.name)
        self.log = Path(tempfile.mkstemp(prefix="faas-e2e-", suffix=".log")[1])
        self._lines: Queue[str | None] = Queue()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ
                # The machine's own engine is no test's; an argument wins over this.
                | {"RUST_LOG": "debug", "FAAS_DOCKER_HOST": "none"}
                | ({"HOME": str(user.home)} if user else {})
                | (environment or {}),
                text=True,
            )
        self.running.add(self.process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = self._wait_until_listening()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """Sends SIGTERM and waits; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not stop on SIGTERM; its log:\n{self.log_text()}") from None
        self._reader.join()
        self.running.discard(self.process.pid)
        return code

    def kill(self) -> None:
        """Ends it without a chance to clean up."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.running.discard(self.process.pid)

    def stop_and_check(self) -> None:
        """Stops it; asserts that it ended well and left nothing on the machine."""
        code = self.stop()
        assert code == 0, f"exit code {code} after SIGTERM; its log:\n{self.log_text()}"
        left = leftovers.eventually(lambda: leftovers.children(self.running) + leftovers.marked(self.marks()))
        assert left == [], f"left behind: {left}; its log:\n{self.log_text()}"
        self.remove()

    def remove(self) -> None:
        """Removes its log, and its data directory where that is its own."""
        self.log.unlink()
        if self._own_dir:
            shutil.rmtree(self.data_dir)

    def marks(self) -> list[str]:
        """What is in the name of each thing that this gateway makes on the host."""
        return [str(self.data_dir), (self.data_dir / "gateway-id").read_text().strip()]

    def log_text(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-8_000:]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)
        self.process.stdout.close()

    def _wait_until_listening(self) -> str:
        while True:
            try:
                line = self._lines.get(timeout=START_S)
            except Empty:
                raise AssertionError(f"the gateway does not say that it listens; its log:\n{self.log_text()}") from None
            if line is None:
                code = self.process.wait()
                raise AssertionError(f"the gateway ended with code {code}; its log:\n{self.log_text()}")
            if found := re.fullmatch(r"listening on (http://\S+:\d+)\n", line):
                return found[1]
