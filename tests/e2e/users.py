"""Ordinary users to run a gateway as, made for the tests and gone after them."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import needs


@dataclass(frozen=True)
class User:
    """A user and a directory of its own."""

    name: str
    uid: int
    gid: int
    home: Path

    def command(self, command: list[str]) -> list[str]:
        """The command, run as this user with nothing of root's."""
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--", *command]


@contextlib.contextmanager
def make_user(*, with_range: bool) -> Iterator[User]:
    """Makes a user of the system, with or without a range of subordinate ids."""
    if with_range and shutil.which("newuidmap") is None:
        needs.skip("uidmap", "newuidmap is not installed", "tests/e2e")
    name = f"faas-e2e-{secrets.token_hex(4)}"
    home = Path(tempfile.mkdtemp(prefix="faas-e2e-home-"))
    # Without the flag useradd gives every user a range as soon as /etc/subuid is there.
    extra = [] if with_range else ["--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0"]
    subprocess.run(
        ["useradd", "--no-create-home", "--home-dir", str(home), *extra, name], check=True, capture_output=True
    )
    try:
        entry = pwd.getpwnam(name)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        yield User(name, entry.pw_uid, entry.pw_gid, home)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)
        shutil.rmtree(home)
