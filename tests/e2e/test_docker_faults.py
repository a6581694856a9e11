"""Engines and images that are no use: one clear problem for each, and a server that stays up.

As soon as the cause is gone it works again by itself.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import http.server
import json
import os
import re
import shutil
import signal
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faas_sdk import FaaSClient, RuntimeUnavailableError

import engine as engines
import leftovers
import oci
import raw
from gateway import Gateway
from instances import assert_kept, settle
from succession import ONCE, nothing_is_left
from users import User

pytestmark = pytest.mark.modes("root")

ALPINE = {"command": "echo works", "image": "alpine", "runtime": "docker"}


def problem(gateway: Gateway, request: dict[str, Any], status: int, code: str, words: str) -> None:
    """Asserts that the request gets this problem, with these words in it, and that the server stays up."""
    body = raw.assert_problem(raw.execute(gateway.url, request), status, code)
    assert re.search(words, body["detail"]), body
    assert raw.request(gateway.url, "GET", "/livez").status == 200


def works(gateway: Gateway, request: dict[str, Any] = ALPINE) -> None:
    """Asserts that the request works, now or when the server has found out that it does."""

    def ask() -> list[str]:
        answer = raw.execute(gateway.url, request)
        return [] if answer.status == 200 and answer.json["stdout"] == "works\n" else [answer.body.decode()]

    assert leftovers.eventually(ask) == []


def is_clean(engine: str, gateway: Gateway) -> None:
    """Waits until no container of the gateway is there, and none of its processes."""
    mark = (gateway.data_dir / "gateway-id").read_text().strip()
    arguments = ("ps", "--all", "--format", "{{.Names}}", "--filter", f"label=faas.gateway={mark}")
    assert leftovers.eventually(lambda: engines.docker(engine, *arguments).split()) == []


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, for a socket."""
    directory = Path(tempfile.mkdtemp(prefix="faas-e2e-place-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


class OldEngine(http.server.BaseHTTPRequestHandler):
    """Answers as Docker 19.03 does."""

    def do_GET(self) -> None:
        api = {"Version": "19.03.15", "ApiVersion": "1.40", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}
        info = {
            "ServerVersion": "19.03.15",
            "OSType": "linux",
            "Architecture": os.uname().machine,
            "Driver": "overlay2",
        }
        name = self.path.split("?")[0].rsplit("/", 1)[1]
        body = json.dumps({"version": api, "info": info, "networks": []}.get(name, {})).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a client"

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def old_engine(path: Path) -> Iterator[None]:
    with socketserver.ThreadingUnixStreamServer(str(path), OldEngine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_an_engine_that_is_too_old_is_told_and_a_newer_one_is_used(engine, start, place):
    link = place / "docker.sock"
    with old_engine(place / "old.sock"):
        link.symlink_to(place / "old.sock")
        gateway = start(None, "--docker-host", f"unix://{link}", "--pull", "never")
        problem(gateway, ALPINE, 501, "runtime_unavailable", r"1\.40.*1\.41|1\.41.*1\.40")
        # `auto` has another reason still: the runtime that is there, which has not this image.
        problem(gateway, ALPINE | {"runtime": "auto"}, 502, "image_unavailable", r"1\.41")
        assert raw.execute(gateway.url, {"command": "echo works"}).status == 200
    link.unlink()
    link.symlink_to(engine.removeprefix("unix://"))
    works(gateway)
    is_clean(engine, gateway)


@pytest.mark.modes("one id")
def test_an_engine_that_is_not_permitted_is_told_and_used_once_it_is(start, mode: User):
    with engines.serve() as own:
        own.directory.chmod(0o711)
        gateway = start(None, "--docker-host", own.host, "--pull", "never")
        problem(gateway, ALPINE, 501, "runtime_unavailable", "permission denied.*member of the socket's group")
        assert raw.execute(gateway.url, {"command": "echo works"}).status == 200
        os.chown(own.directory / "docker.sock", 0, mode.gid)
        works(gateway)
        is_clean(own.host, gateway)
        gateway.stop_and_check()


def test_an_engine_that_is_stopped_in_the_middle_costs_answers_and_nothing_else(start, mark):
    with engines.serve() as own:
        gateway = start(None, "--docker-host", own.host, "--pull", "never", "--max-concurrent", "12")
        request = {"command": ["sleep", mark], "image": "alpine", "runtime": "docker", "timeout_ms": 600_000}

        def missing() -> list[str]:
            return [] if len(leftovers.processes_with(f"sleep {mark}")) == 12 else ["not all run"]

        with ThreadPoolExecutor(12) as pool:
            answers = [pool.submit(raw.execute, gateway.url, request) for _ in range(12)]
            assert leftovers.eventually(missing) == []
            own.end()
            for answer in (answer.result() for answer in answers):
                # One whose agent could still tell has a result: killed.
                if answer.status == 200:
                    assert answer.json["exit_code"] == 137
                else:
                    raw.assert_problem(answer, 502, "sandbox_lost")
        problem(gateway, ALPINE, 501, "runtime_unavailable", "no socket|nobody listens")
        own.restart()
        works(gateway)
        is_clean(own.host, gateway)
        gateway.stop_and_check()


def test_an_instance_whose_engine_does_not_answer_is_stopped_once_it_does(start, mark):
    with engines.serve() as own:
        gateway = start(None, "--docker-host", own.host, "--docker-transport", "socket", "--pull", "never")
        with FaaSClient(gateway.url, retry=ONCE) as client:
            instance = client.instances.create(image="alpine", runtime="docker")
            settle(instance, mark)
            os.kill(own.pid, signal.SIGSTOP)
            try:
                with pytest.raises(RuntimeUnavailableError):
                    instance.stop(grace_ms=0)
                assert instance.refresh().status == "stopping"
                assert leftovers.pids_with(f"sleep {mark}") != []
            finally:
                os.kill(own.pid, signal.SIGCONT)
            stands = leftovers.eventually(lambda: [] if instance.refresh().status == "stopped" else [instance.status])
            assert stands == []
            assert leftovers.pids_with(f"sleep {mark}") == []
            assert_kept(instance.start(), mark)
            nothing_is_left(client)
        is_clean(own.host, gateway)
        gateway.stop_and_check()


@pytest.fixture
def pulling(engine: str, start: Callable[..., Gateway]) -> Iterator[Gateway]:
    """A gateway whose engine may fetch; at the end no container of it may be there."""
    gateway = start(None, "--docker-host", engine)
    yield gateway
    is_clean(engine, gateway)


@pytest.mark.parametrize("how", ["other bytes", "cut", "empty"])
def test_an_image_that_is_damaged_at_its_registry_is_told_and_taken_once_it_is_whole(
    engine, pulling, registry, root, how
):
    # A layer of its own, so that the engine has it from nowhere else.
    layer = root[:-1024] + oci.tar({"mark": how.encode()})
    image = oci.Image([layer])
    name = registry.push(image, "damaged-" + how.replace(" ", "-"))
    file = registry.file_of(image.described[0]["digest"])
    whole = file.read_bytes()
    damaged = {
        "other bytes": gzip.compress(layer.replace(b"root:x:0:0", b"root:y:0:0"), 1, mtime=0),
        "cut": whole[: len(whole) // 2],
        "empty": b"",
    }[how]
    file.write_bytes(damaged)
    request = ALPINE | {"image": name}
    problem(pulling, request, 502, "image_unavailable", f"{re.escape(name)}.*(damaged|engine's log|again)")
    works(pulling)
    file.write_bytes(whole)
    works(pulling, request)
    is_clean(engine, pulling)
    engines.docker(engine, "rmi", name)


def test_a_layer_that_is_no_archive_is_told(engine, pulling, registry):
    image = oci.Image([b"this is no archive " * 100])
    name = registry.push(image, "no-archive")
    problem(pulling, ALPINE | {"image": name}, 502, "image_unavailable", "damaged")
    works(pulling)


def test_an_image_that_is_not_there_or_for_another_machine_is_told(engine, pulling, registry, root):
    ghost = f"{registry.name}/ghost:1"
    problem(pulling, ALPINE | {"image": ghost}, 502, "image_unavailable", "check the name and the tag|docker login")
    foreign = registry.push(oci.Image([root], architecture="arm64"), "foreign")
    problem(pulling, ALPINE | {"image": foreign}, 502, "image_unavailable", "arm64|platform")
    works(pulling, ALPINE | {"image": registry.push(oci.Image([root]), "ghost", "1")})
    for name in (foreign, ghost):
        with contextlib.suppress(AssertionError):
            engines.docker(engine, "rmi", name)


def fill(path: Path) -> Path:
    """A file that takes all that is left of the disk."""
    file = path / "fill"
    with file.open("wb", buffering=0) as out:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while out.write(b"x" * size):
                    pass
    assert os.statvfs(path).f_bavail == 0, errno.ENOSPC
    return file


def test_an_engine_whose_disk_is_full_is_told_and_works_once_there_is_room(start, registry, root):
    with engines.serve(disk_mb=48) as own:
        gateway = start(None, "--docker-host", own.host)
        works(gateway)
        large = registry.push(oci.Image([root[:-1024] + oci.tar({"large": os.urandom(60 << 20)})]), "large")
        problem(gateway, ALPINE | {"image": large}, 507, "insufficient_storage", "engine's disk.*free some")
        works(gateway)
        is_clean(own.host, gateway)
        filler = fill(own.data)
        problem(gateway, ALPINE, 507, "insufficient_storage", "engine's disk.*free some")
        filler.unlink()
        works(gateway)
        is_clean(own.host, gateway)
        gateway.stop_and_check()
