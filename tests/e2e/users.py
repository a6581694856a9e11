"""Ordinary users to run a gateway as, made for the tests and gone after them."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import leftovers
import needs


@dataclass(frozen=True)
class User:
    """A user and a directory of its own."""

    name: str
    uid: int
    gid: int
    home: Path
    cgroup: Path | None = None
    """A cgroup below which each unit has one of its own, which is delegated to the user."""

    def command(self, command: list[str], unit: str) -> list[str]:
        """The command, run as this user with nothing of root's, as the one process of a unit.

        A unit that is started again has a new cgroup, as `systemd-run --user --scope` has it: what still runs in the one
        before is left there.
        """
        if self.cgroup is not None:
            own = self.cgroup / f"{unit}-{secrets.token_hex(4)}.scope"
            own.mkdir()
            for path in (own, *(own / f"cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
                os.chown(path, self.uid, self.gid)
            enter = f'echo $$ > {own}/cgroup.procs && exec "$@"'
            plain = User(self.name, self.uid, self.gid, self.home)
            return ["/bin/sh", "-c", enter, "sh", *plain.command(command, unit)]
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


def has_controllers() -> bool:
    """Whether the machine has cgroup v2 with what limits take."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    return controllers.exists() and {"cpu", "memory", "pids"} <= set(controllers.read_text().split())


def trim(cgroup: Path) -> None:
    """Removes a cgroup with all below it, which may have processes in it that are about to end."""
    held = leftovers.eventually(lambda: [str(left) for left in _below(cgroup) if not _is_removed(left)])
    assert held == [], f"processes are left in {held}"


def _below(cgroup: Path) -> list[Path]:
    """The cgroup and those below it, the deepest first."""
    return [Path(root) for root, _, _ in os.walk(cgroup, topdown=False)]


def _is_removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        # Who made it was just about to remove it.
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


@contextlib.contextmanager
def delegate(user: User) -> Iterator[User]:
    """Has the user's commands started in cgroups that are delegated to it (cgroup-v2.rst, "Delegation")."""
    cgroup = Path(f"/sys/fs/cgroup/{user.name}")
    cgroup.mkdir()
    try:
        for above in (cgroup.parent, cgroup):
            (above / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        # The user's own service manager may move the user's processes.
        os.chown(cgroup / "cgroup.procs", user.uid, user.gid)
        yield User(user.name, user.uid, user.gid, user.home, cgroup)
    finally:
        trim(cgroup)
