"""The image `host`: what runs in it, and what of the host cannot be seen from it."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

import needs


@pytest.mark.parametrize(
    ("program", "command", "output"),
    [
        ("bash", ["bash", "-c", "echo ${BASH_VERSINFO[0]:+yes}"], "yes\n"),
        ("python3", ["python3", "-c", "import json, ssl, sqlite3, hashlib; print(2**100)"], f"{2**100}\n"),
        ("node", ["node", "-e", "console.log([1,2,3].map(x => x*x).join())"], "1,4,9\n"),
        ("awk", "echo 3 4 | awk '{print $1*$2}'", "12\n"),
        (
            "git",
            "git init -q r && cd r && git -c user.name=n -c user.email=e commit -q --allow-empty -m m && "
            "git log --format=%s",
            "m\n",
        ),
        ("sed", "echo abc | sed s/b/x/", "axc\n"),
        ("perl", ["perl", "-MPOSIX", "-e", "print floor(3.7), qq(\\n)"], "3\n"),
    ],
)
def test_the_hosts_programs_run(client, program, command, output):
    if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin") is None:
        needs.skip(program, f"{program} is not on this host", "test_the_hosts_programs_run")
    result = client.execute(command, working_dir="/tmp")
    assert (result.stdout, result.exit_code) == (output, 0), result


def test_homes_are_empty_and_there_is_no_shadow(client):
    result = client.execute(
        "ls -A /root /home; cat /etc/shadow /etc/gshadow; ls /etc/ssh /etc/sudoers /etc/ssl/private"
    )
    assert result.stdout == "/home:\n\n/root:\n"
    for path in ["/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/sudoers", "/etc/ssl/private"]:
        assert path in result.stderr, result.stderr


def test_what_lies_on_the_host_is_not_there(client):
    for place in ["/tmp", "/var/tmp", "/root", "/home", "/opt", "/srv", "/var/lib", "/etc", "/"]:
        if not Path(place).is_dir():
            continue
        with tempfile.NamedTemporaryFile(dir=place, prefix="e2e-host-") as file:
            Path(file.name).chmod(0o644)
            file.write(b"x")
            file.flush()
            assert client.execute(["ls", file.name]).exit_code == 2, file.name


def test_files_for_the_hosts_root_alone_are_not_readable(client):
    with tempfile.NamedTemporaryFile(dir="/usr/local", prefix="e2e-host-") as file:
        Path(file.name).chmod(0o600)
        file.write(b"for root alone")
        file.flush()
        result = client.execute(["cat", file.name])
    assert result.exit_code == 1
    assert "for root alone" not in result.stdout + result.stderr


@pytest.mark.parametrize("path", ["/usr", "/usr/bin", "/bin", "/lib", "/usr/local"])
def test_the_hosts_programs_cannot_be_changed(client, path):
    result = client.execute(f"touch {path}/e2e-written; echo $?; rm -f {path}/sh; test -e /bin/sh; echo $?")
    assert not Path(f"{path}/e2e-written").exists()
    assert result.stdout == "1\n0\n" or result.stdout.startswith("0\n"), (
        result
    )  # refused, or in the sandbox's own layer


def test_the_hosts_processes_and_environment_are_invisible(client):
    result = client.execute(
        "ls /proc | grep -c '^[0-9]'; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; env"
    )
    count, rest = result.stdout.split("\n", 1)
    assert int(count) < 12
    assert "E2E_PRIVATE" not in rest
    assert "private-to-the-gateway" not in rest
    assert "pytest" not in rest
    assert client.execute(f"kill -0 {os.getpid()}").exit_code != 0


def test_there_are_no_sockets_of_the_host(client):
    with socket.socket(socket.AF_UNIX) as listener:
        path = tempfile.mktemp(prefix="e2e-", dir="/run")  # noqa: S306 - bind makes it, and nothing else
        listener.bind(path)
        listener.listen()
        try:
            result = client.execute("find /run /var/run/ -type s; ls -A /run")
        finally:
            Path(path).unlink()
    assert "e2e-" not in result.stdout
    assert [line for line in result.stdout.splitlines() if line.startswith("/")] == []


def test_there_is_loopback_and_no_other_network(client, gateway):
    result = client.execute("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
    assert result.stdout == "lo\n"
    port = gateway.url.rsplit(":", 1)[1]
    source = f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})))"
    assert client.execute(["python3", "-c", source]).stdout.strip() == "111"
    own = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); "
        "c.send(b'x'); print(s.accept()[0].recv(1))"
    )
    assert client.execute(["python3", "-c", own]).stdout == "b'x'\n"


def test_the_hostname_is_the_sandboxes(client):
    result = client.execute("uname -n; hostname; cat /proc/sys/kernel/hostname")
    names = set(result.stdout.split())
    assert len(names) == 1
    assert names != {os.uname().nodename}


def test_devices_are_the_harmless_ones(client):
    result = client.execute(
        "find /dev -type b; find /dev -type c | sort; echo x > /dev/null; head -c 8 /dev/urandom | wc -c"
    )
    assert result.stderr == ""
    lines = result.stdout.split()
    allowed = {
        "/dev/full",
        "/dev/null",
        "/dev/random",
        "/dev/tty",
        "/dev/urandom",
        "/dev/zero",
        "/dev/ptmx",
        "/dev/pts/ptmx",
    }
    assert set(lines[:-1]) <= allowed
    assert lines[-1] == "8"


def test_the_usual_places_can_be_written(client):
    result = client.execute(
        "for d in /tmp /var/tmp /root /home /run /dev/shm /var/lib /etc /mnt /opt /srv; do "
        "echo x > $d/e2e && cat $d/e2e || echo FAILED $d; done | sort | uniq -c"
    )
    assert result.stdout.split() == ["11", "x"], result
