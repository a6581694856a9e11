"""Transfers that are large, slow, cut off, too much, or whose instance goes: nothing hangs, nothing half is left."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import re
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
import raw
from files import Files, archive, watch
from instances import agents_below, first_process, has_cgroups, settle

MIB = 1 << 20
SOAK_S = float(os.environ.get("FAAS_SOAK_SECONDS", "30"))
BIG = (1024 if SOAK_S >= 300 else 256) * MIB
"""The length of a big file."""

SERVER_MIB = 48
"""How much the server's memory may grow while big files pass through it."""

AGENT_MIB = 16
"""How much the agent's may, while sixteen of them are waited for."""


@pytest.fixture
def instance(tenant, backend):
    return tenant.instances.create(**backend.create)


@pytest.fixture
def files(tenant, instance) -> Files:
    return Files(tenant.base_url, instance.id)


@pytest.fixture
def limited(tenant, backend):
    """An instance with a small disk; none where there can be none."""
    if not tenant.capabilities().runtimes[backend.name].features["lasting_disk_limit"].supported:
        return None
    return tenant.instances.create(**backend.create, disk_mb=64)


def chunks(seed: bytes, length: int, digest: hashlib._Hash) -> Iterator[bytes]:
    """So many bytes, no two MiB of which are the same."""
    block = hashlib.shake_256(seed).digest(MIB)
    for number in range(length // MIB):
        piece = number.to_bytes(8, "big") + block[8:]
        digest.update(piece)
        yield piece


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))


def test_a_big_file_passes_through_in_constant_memory(house, files, instance):
    pid = house.process.pid
    # Reset of the peak: see proc_pid_clear_refs(5).
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = peak_kib(pid)
    digest = hashlib.sha256()
    put = files.put("/big", chunks(b"x", BIG, digest))
    assert (put.status, put.json["size_bytes"]) == (201, BIG)
    received = hashlib.sha256()
    with files.open("GET", "/big") as connection:
        connection.endheaders()
        response = connection.getresponse()
        assert response.headers["content-length"] == str(BIG)
        while piece := response.read(MIB):
            received.update(piece)
    assert received.digest() == digest.digest()
    said = instance.exec("sha256sum /big", timeout_ms=300_000)
    assert said.stdout.split()[0] == digest.hexdigest()
    assert peak_kib(pid) - before < SERVER_MIB * 1024


def half_an_upload(files: Files, path: str, wait: float = 0.0, **parameters) -> None:
    """Begins to send a file that is said to be longer, and goes away."""
    with files.open("PUT", path, **parameters) as connection:
        connection.putheader("content-length", str(64 * MIB))
        connection.endheaders()
        connection.send(b"x" * 8 * MIB)
        # It has come as far as the instance, or is about to.
        time.sleep(wait)


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "in place of another"])
def test_an_upload_that_is_cut_off_leaves_what_was_there(files, instance, mark, is_there):
    path = f"/up/file-{mark}"
    instance.exec(f"mkdir /up; {'echo before > ' + path if is_there else 'true'}")
    half_an_upload(files, path, wait=0.5)
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    assert files.names("/up") == ([f"file-{mark}"] if is_there else [])
    if is_there:
        assert files.read(path) == b"before\n"


def test_a_move_that_nobody_waits_for_comes_to_its_end(files, instance, mark):
    tree = f"tree-{mark}"
    many = f"mkdir /{tree} && cd /{tree} && for i in $(seq 4000); do echo $i > $i; done"
    made = instance.exec(many, timeout_ms=600_000)
    assert made.ok, made
    with files.open("POST", f"/{tree}", op="move", to=f"/dev/shm/{tree}") as connection:
        connection.putheader("content-length", "0")
        connection.endheaders()
        while not leftovers.processes_with(mark) and tree in files.names("/"):
            pass
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    assert files.names("/dev/shm") == [tree]
    assert len(files.names(f"/dev/shm/{tree}")) == 4000
    assert tree not in files.names("/")


def test_a_killed_server_leaves_no_move_and_no_upload_half_done(succession, backend, mark):
    instance = succession.client.instances.create(**backend.create)
    tree = f"tree-{mark}"
    many = f"mkdir /{tree} && cd /{tree} && seq 4000 | while read n; do echo $n > $n; done; mkdir /up"
    assert instance.exec(many, timeout_ms=600_000).ok
    files = Files(succession.gateway.url, instance.id)
    with (
        files.open("PUT", "/up/file") as upload,
        files.open("POST", f"/{tree}", op="move", to=f"/dev/shm/{tree}") as move,
    ):
        upload.putheader("content-length", str(64 * MIB))
        upload.endheaders()
        upload.send(b"x" * MIB)
        move.putheader("content-length", "0")
        move.endheaders()
        while not leftovers.processes_with(mark) and tree in files.names("/"):
            pass
        succession.gateway.kill()
    succession.next()
    files = Files(succession.gateway.url, instance.id)
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    assert files.names("/dev/shm") == [tree]
    assert len(files.names(f"/dev/shm/{tree}")) == 4000
    assert tree not in files.names("/")
    assert leftovers.eventually(lambda: files.names("/up")) == []


def test_an_archive_of_a_directory_in_use_is_whole(files, instance):
    change = "i=$((i + 1)); mkdir d$i; echo $i > d$i/f; ln -s f d$i/l; ln d$i/f h$i; rm -r d$((i - 3)) h$((i - 3))"
    script = f"mkdir -p /busy/stays && cd /busy && i=0 && while sleep 0; do {change}; done 2>/dev/null"
    changing = instance.exec(script, background=True)
    while files.get("/busy/stays", stat=True).status != 200 or len(files.names("/busy")) == 1:
        time.sleep(0.01)
    for _ in range(50):
        answer = files.get("/busy", tar=True)
        assert answer.status == 200, answer
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
            assert "stays" in tar.getnames()
    assert changing.refresh().status == "running"


def test_an_upload_that_stops_coming_is_given_up(start, backend, mark):
    gateway = start(None, *backend.arguments, "--read-timeout-ms", "1000")
    made = raw.request(gateway.url, "POST", "/api/v1/instances", json.dumps(backend.create).encode())
    files = Files(gateway.url, made.json["id"])
    with files.open("PUT", f"/file-{mark}") as connection:
        connection.putheader("content-length", "100")
        connection.endheaders()
        connection.send(b"x")
        answer = connection.getresponse()
        assert answer.status == 408, answer.read()
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    assert files.get(f"/file-{mark}").status == 404
    assert raw.request(gateway.url, "DELETE", files.route.removesuffix("/files"), None, {}).status == 204


def begin_download(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert len(response.read(MIB)) == MIB
    return response


def is_cut_off(response: http.client.HTTPResponse) -> bool:
    """Whether the connection ends before the content does."""
    while response.read(MIB):
        pass
    # Counted down from the header content-length.
    return bool(response.length)


@pytest.mark.parametrize("parameters", [{}, {"tar": True}, {"watch": True}], ids=["file", "tar", "watch"])
def test_who_goes_away_in_the_middle_leaves_no_program(files, instance, mark, parameters):
    instance.exec(f"mkdir /d-{mark}; truncate -s 1G /d-{mark}/file")
    path = f"/d-{mark}" + ("/file" if not parameters else "")
    if "watch" in parameters:
        with watch(files, path):
            assert len(leftovers.pids_with(mark)) == 1
    else:
        with files.open("GET", path, **parameters) as connection:
            begin_download(connection)
            assert len(leftovers.pids_with(mark)) == 1
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_a_slow_reader_holds_up_nobody_else_and_nothing_is_kept_for_it(house, files, instance, mark):
    settle(instance, mark)
    [agent] = agents_below(first_process(mark))
    instance.exec("truncate -s 1G /slow; echo x > /file")
    pid = house.process.pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = peak_kib(pid)
    agent_before = peak_kib(agent)
    with contextlib.ExitStack() as held:
        for _ in range(16):
            connection = held.enter_context(files.open("GET", "/slow"))
            connection.endheaders()
            assert held.enter_context(connection.getresponse()).read(1) == b"\0"
        for _ in range(50):
            assert files.read("/file") == b"x\n"
            assert instance.exec("echo y").stdout == "y\n"
    assert peak_kib(agent) - agent_before < AGENT_MIB * 1024
    assert peak_kib(pid) - before < SERVER_MIB * 1024


@pytest.mark.parametrize("end", ["delete", "stop", "kill"])
def test_an_instance_that_goes_ends_its_transfers_at_once(tenant, files, instance, mark, end):
    settle(instance, mark)
    instance.exec("truncate -s 64G /file; mkdir /w")
    ended: dict[str, object] = {}

    def download() -> None:
        with files.open("GET", "/file") as connection:
            response = begin_download(connection)
            begun.wait()
            ended["download"] = "cut off" if is_cut_off(response) else "whole"

    def upload() -> None:
        def pieces() -> Iterator[bytes]:
            yield b"x" * MIB
            begun.wait()
            gone.wait()
            for _ in range(64):
                yield b"x" * MIB

        try:
            ended["upload"] = files.put("/up", pieces()).status
        except OSError as error:
            # The answer has come before all was sent, and the connection has been closed behind it.
            ended["upload"] = type(error)

    def look() -> None:
        with watch(files, "/w") as events:
            begun.wait()
            last = events.next()
            ended["watch"] = (last["event"], last["code"])

    begun, gone = threading.Barrier(4), threading.Event()
    threads = [threading.Thread(target=work) for work in (download, upload, look)]
    [thread.start() for thread in threads]
    begun.wait(60)
    match end:
        case "delete":
            instance.delete()
        case "stop":
            instance.stop(grace_ms=0)
        case "kill":
            os.kill(first_process(mark), 9)
    gone.set()
    [thread.join(60) for thread in threads]
    assert not [thread for thread in threads if thread.is_alive()], ended
    assert ended["download"] == "cut off", ended
    assert ended["upload"] in (404, 409, 502) or issubclass(ended["upload"], OSError), ended
    assert ended["watch"][0] == "error", ended
    assert ended["watch"][1] in ("sandbox_lost", "not_found"), ended


def test_a_transfer_goes_on_where_its_instance_was_paused(tenant, backend, files, instance):
    if not has_cgroups(tenant, backend.name):
        return
    instance.exec("seq 10000000 > /file")
    with files.open("GET", "/file") as connection:
        response = begin_download(connection)
        instance.pause()
        instance.resume()
        rest = response.read()
    assert rest.endswith(b"10000000\n")
    assert len(rest) + MIB == files.stat("/file")["size_bytes"]


def test_what_does_not_fit_is_refused_and_nothing_of_it_is_left(tenant, limited):
    if limited is None:
        return
    files = Files(tenant.base_url, limited.id)
    limited.exec("mkdir /d; echo x > /d/file")
    pieces = (b"x" * MIB for _ in range(128))
    refused = sent(files, "/d/file", pieces)
    assert refused in (507, None)
    assert files.names("/d") == ["file"]
    assert files.read("/d/file") == b"x\n"
    bomb = archive(("small", b"1"), ("bomb", b"\0" * 128 * MIB))
    assert sent(files, "/d", iter([bomb]), tar=True) in (507, None)
    assert files.ask("DELETE", "/d", recursive=True).status == 204
    assert files.put("/again", b"x" * MIB).status == 201


def sent(files: Files, path: str, pieces: Iterator[bytes], **parameters) -> int | None:
    """The status of the answer; none where the connection broke while its client was still sending."""
    try:
        return files.put(path, pieces, **parameters).status
    except OSError:
        return None


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_program_that_is_ended_from_inside_is_an_error(files, instance, mark, signal):
    instance.exec(f"truncate -s 1G /file-{mark}")
    kill = (
        f'for d in /proc/[0-9]*; do grep -q "file-{mark}" $d/cmdline && [ "${{d#/proc/}}" != $$ ] && '
        f"kill -{signal} ${{d#/proc/}}; done"
    )
    with files.open("GET", f"/file-{mark}") as connection:
        response = begin_download(connection)
        instance.exec(kill + " 2>/dev/null; true")
        assert is_cut_off(response)
    assert files.get("/etc/passwd").status == 200


def test_a_file_that_becomes_shorter_breaks_off(files, instance):
    instance.exec("truncate -s 1G /file")
    with files.open("GET", "/file") as connection:
        response = begin_download(connection)
        instance.exec("truncate -s 2M /file")
        assert is_cut_off(response)


def test_the_agent_dies_under_a_transfer(files, instance, mark):
    settle(instance, mark)
    instance.exec("truncate -s 1G /file")
    with files.open("GET", "/file") as connection:
        response = begin_download(connection)
        for agent in agents_below(first_process(mark)):
            os.kill(agent, 9)
        assert is_cut_off(response)
    assert leftovers.eventually(lambda: [] if files.get("/etc/passwd").status == 200 else ["no files"]) == []
