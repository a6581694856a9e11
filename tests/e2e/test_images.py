"""Images: imported, pulled, run, listed, removed; over HTTP and from the command line beside a running gateway."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from faas_sdk import FaaSClient, ImageUnavailableError, InvalidRequestError, RetryPolicy

import leftovers
import oci
import raw
import registry as registries
from gateway import Gateway, program, readable
from registry import Registry
from users import User

ONCE = RetryPolicy(max_retries=0)
TAR = {"content-type": "application/x-tar"}
CONFIG = {"Env": ["PATH=/bin", "GREETING=hello"], "WorkingDir": "/var", "Entrypoint": ["/no/such/entrypoint"]}


@pytest.fixture
def pulling(start: Callable[..., Gateway], registry: Registry) -> Gateway:
    """A gateway that may fetch from the registry."""
    return start(None, "--insecure-registries", registry.name)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can read."""
    directory = Path(tempfile.mkdtemp(prefix="faas-e2e-place-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not get smaller, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def add(gateway: Gateway, archive: bytes, headers: dict[str, str] | None = None, **query: str) -> raw.RawAnswer:
    path = "/api/v1/images" + (f"?{urlencode(query)}" if query else "")
    return raw.request(gateway.url, "POST", path, archive, TAR | (headers or {}))


def added(gateway: Gateway, archive: bytes, **query: str) -> list[dict[str, Any]]:
    answer = add(gateway, archive, **query)
    assert answer.status == 201, answer
    images: list[dict[str, Any]] = answer.json["images"]
    return images


def pull(gateway: Gateway, name: str, headers: dict[str, str] | None = None) -> raw.RawAnswer:
    body = json.dumps({"name": name}).encode()
    return raw.request(gateway.url, "POST", "/api/v1/images", body, raw.JSON | (headers or {}))


def images_of(gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
    answer = raw.request(gateway.url, "GET", f"/api/v1/images{query}", headers={})
    assert answer.status == 200, answer
    images: list[dict[str, Any]] = answer.json
    return images


def names_of(gateway: Gateway) -> set[str]:
    return {name for image in images_of(gateway) for name in image["names"]}


def remove(gateway: Gateway, name: str) -> raw.RawAnswer:
    return raw.request(gateway.url, "DELETE", f"/api/v1/images?name={quote(name, safe='')}", headers={})


def files_of(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*")}


@pytest.mark.parametrize("packed", ["plain", "gzip"])
@pytest.mark.parametrize("kind", ["layout", "saved"])
def test_an_archive_of_each_kind_is_imported_run_and_removed(gateway, client, root, kind, packed):
    image = oci.Image([root, oci.tar({"var/note": kind.encode()})], CONFIG)
    name = f"import/{kind}:{packed}"
    archive = image.layout(name) if kind == "layout" else image.saved(name)
    [info] = added(gateway, archive if packed == "plain" else gzip.compress(archive, 1))
    assert (info["id"], info["names"], info["layers"]) == (image.id, [f"docker.io/{name}"], 2)
    assert (info["working_dir"], info["entrypoint"]) == ("/var", ["/no/such/entrypoint"])
    assert info["size_bytes"] > 1_000_000
    assert info in [shown | {"last_used_at": info["last_used_at"]} for shown in images_of(gateway, f"?name={name}")]
    for wanted in (name, f"docker.io/{name}", image.id):
        result = client.execute('cat note; echo; pwd; echo "$GREETING"; id -u', image=wanted)
        assert result.stdout.split("\n") == [kind, "/var", "hello", "0", ""]
        assert (result.stderr, result.exit_code, result.runtime, result.image) == ("", 0, "native", wanted)
    assert client.execute(["/bin/echo", "a b"], image=name, working_dir="/bin").stdout == "a b\n"
    # Nothing of one sandbox is in the next.
    client.execute("echo changed > note; rm -r /bin", image=name)
    assert client.execute("cat note", image=name).stdout == kind
    assert remove(gateway, name).status == 204
    assert f"docker.io/{name}" not in names_of(gateway)
    raw.assert_problem(remove(gateway, name), 404, "not_found")


@pytest.mark.modes("root", "range", "delegated")
def test_the_images_user_and_the_owners_of_its_files_are_kept(gateway, client, root):
    layer = oci.tar({"srv/": b"", "srv/file": b"x"}, owner=(1000, 29), mode=0o4750)
    added(gateway, oci.Image([root, layer], {"Env": ["PATH=/bin"], "User": "app"}).saved("users:1"))
    result = client.execute("id -un; id -Gn; stat -c '%u:%g %a' /srv/file", image="users:1")
    assert result.stdout == "app\napp audio\n1000:29 4750\n"
    result = client.execute("id -un; cat /srv/file", image="users:1", user="nobody")
    assert (result.stdout, result.exit_code) == ("nobody\n", 1)
    assert client.execute("id -u; id -g", image="users:1", user="7:8").stdout == "7\n8\n"
    assert remove(gateway, "users:1").status == 204


@pytest.mark.modes("one id")
def test_with_one_id_every_file_is_roots_and_other_users_are_refused(gateway, client, root):
    layer = oci.tar({"srv/": b"", "srv/file": b"x"}, owner=(1000, 29))
    added(gateway, oci.Image([root, layer], {"Env": ["PATH=/bin"]}).saved("users:1"))
    assert client.execute("stat -c '%u:%g' /srv/file; cat /srv/file", image="users:1").stdout == "0:0\nx"
    with pytest.raises(Exception, match="user|uid") as caught:
        client.execute("id", image="users:1", user="app")
    assert caught.value.code in ("unsupported", "invalid_request")
    assert remove(gateway, "users:1").status == 204


def test_forty_layers_and_what_they_take_away(gateway, client, root):
    layers = [root, oci.tar({"d/": b"", "d/old": b"", "gone": b""})]
    layers += [oci.tar({f"l{number}": str(number).encode()}) for number in range(37)]
    layers += [oci.tar({".wh.gone": b"", "d/": b"", "d/.wh..wh..opq": b"", "d/new": b""})]
    [info] = added(gateway, oci.Image(layers, CONFIG).layout("forty:1"))
    assert info["layers"] == 40
    result = client.execute("cat /l0 /l36; ls /d; ls /gone", image="forty:1")
    assert (result.stdout, result.exit_code) == ("036new\n", 1)
    assert remove(gateway, "forty:1").status == 204


def test_an_image_in_use_stays(gateway, client, root, mark):
    added(gateway, oci.Image([root], CONFIG).saved("busy:1"))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(
            client.execute, f"sleep {mark} & cat; kill $!", image="busy:1", timeout_ms=60_000, stdin=""
        )
        assert running.result().exit_code == 0
        running = pool.submit(
            client.execute, "while [ ! -e /tmp/x ]; do sleep 0.1; done", image="busy:1", timeout_ms=4_000
        )
        is_used = leftovers.eventually(
            lambda: [] if any(image["in_use"] for image in images_of(gateway, "?name=busy:1")) else ["nobody uses it"]
        )
        assert is_used == []
        problem = raw.assert_problem(remove(gateway, "busy:1"), 409, "conflict")
        assert problem["retryable"]
        assert running.exception() is not None
    assert leftovers.eventually(lambda: [] if remove(gateway, "busy:1").status == 204 else ["it stays"]) == []


def test_an_image_stays_for_an_instance_that_is_stopped(gateway, client, root):
    added(gateway, oci.Image([root], CONFIG).saved("kept:1"))
    with client.instances.create(image="kept:1") as instance:
        assert instance.exec("echo kept > /file").ok
        instance.stop()
        raw.assert_problem(remove(gateway, "kept:1"), 409, "conflict")
        assert instance.start().exec("cat /file").stdout == "kept\n"
    assert leftovers.eventually(lambda: [] if remove(gateway, "kept:1").status == 204 else ["it stays"]) == []


def test_the_list_comes_in_pages(start):
    gateway = start()
    for number in range(5):
        added(gateway, oci.Image([oci.tar({"file": str(number).encode()})]).saved(f"page:{number}"))
    whole = images_of(gateway)
    assert [image["names"] for image in whole] == [[f"docker.io/library/page:{number}"] for number in (4, 3, 2, 1, 0)]
    pages, cursor = [], ""
    while True:
        answer = raw.request(gateway.url, "GET", f"/api/v1/images?limit=2{cursor}", headers={})
        pages.append(answer.json)
        if "x-next-cursor" not in answer.headers:
            break
        cursor = f"&cursor={answer.headers['x-next-cursor']}"
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sum(pages, []) == whole
    for wrong in ("limit=0", "limit=1001", "limit=x", "cursor=x", "unknown=1"):
        answer = raw.request(gateway.url, "GET", f"/api/v1/images?{wrong}", headers={})
        raw.assert_problem(answer, 422, "invalid_request")


def test_progress_comes_as_events(gateway, root):
    archive = oci.Image([root], CONFIG).saved("events:1")
    answer = add(gateway, archive, {"accept": "application/x-ndjson"})
    assert answer.status == 201
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    events = [json.loads(line) for line in answer.body.splitlines() if line]
    assert {event["event"] for event in events[:-1]} == {"progress"}
    assert events[-1]["event"] == "done"
    assert events[-1]["images"][0]["names"] == ["docker.io/library/events:1"]
    answer = add(gateway, archive, {"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: done\n" in answer.body.decode()
    answer = pull(gateway, "localhost:1/nothing", {"accept": "application/x-ndjson"})
    last = json.loads(answer.body.splitlines()[-1])
    assert (last.get("event", "error"), last["code"]) == ("error", "image_unavailable")
    assert remove(gateway, "events:1").status == 204


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"no archive at all",
        bytes(1 << 20),
        oci.tar({"file": b"of no image"}),
        oci.tar({"oci-layout": b"{", "index.json": b"{"}),
        oci.tar({"manifest.json": b'[{"Config":"../../etc/shadow","RepoTags":["x"],"Layers":["/etc/passwd"]}]'}),
        gzip.compress(b"no archive at all"),
    ],
    ids=["empty", "text", "zeros", "no image", "broken JSON", "paths outside", "text in gzip"],
)
def test_what_is_no_archive_is_refused(gateway, archive):
    answer = add(gateway, archive)
    raw.assert_problem(answer, answer.status, answer.json["code"])
    assert answer.json["code"] in ("invalid_request", "image_unavailable")


def test_an_archive_that_is_cut_or_changed_is_refused_and_the_whole_one_is_taken(gateway, client, root):
    image = oci.Image([root], CONFIG)
    archive = image.layout("cut:1")
    for part in (len(archive) // 10, len(archive) // 2, len(archive) - 40_000):
        raw.assert_problem(answer := add(gateway, archive[:part]), answer.status, "invalid_request")
    layer = next(blob for blob in image.blobs.values() if len(blob) > 100_000)
    at = archive.index(layer) + len(layer) // 2
    changed = archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]
    answer = add(gateway, changed)
    assert answer.status in (422, 502), answer
    assert "docker.io/library/cut:1" not in names_of(gateway)
    added(gateway, archive)
    assert client.execute("echo whole", image="cut:1").stdout == "whole\n"
    assert remove(gateway, "cut:1").status == 204


def test_an_image_for_another_processor_is_refused(gateway, root):
    problem = raw.assert_problem(
        add(gateway, oci.Image([root], CONFIG, architecture="s390x").saved("other:1")), 502, "image_unavailable"
    )
    assert "s390x" in problem["detail"]


NAMES = [
    "",
    "../x",
    "a:b:c",
    "UPPER",
    "a b",
    "a\n",
    "/etc/passwd",
    "a@sha256:12",
    "a/../b",
    "a" * 300,
    "x:" + "t" * 129,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_with_tricks_in_them_are_refused(gateway, client, name):
    raw.assert_problem(pull(gateway, name), 422, "invalid_request")
    raw.assert_problem(add(gateway, b"x", name=name), 422, "invalid_request")
    raw.assert_problem(remove(gateway, name), 422, "invalid_request")
    with pytest.raises(InvalidRequestError):
        client.execute("true", image=name)


def test_bombs_are_refused_and_leave_nothing(start):
    gateway = start(None, "--max-images-mb", "64")
    before = files_of(gateway.data_dir / "images")
    zeros = oci.tar({"zeros": bytes(200 << 20)})
    raw.assert_problem(add(gateway, oci.Image([zeros]).layout("bomb:1")), 507, "insufficient_storage")
    packed = gzip.compress(oci.Image([zeros]).saved("bomb:1"), 9)
    assert len(packed) < 1 << 20
    raw.assert_problem(answer := add(gateway, packed), answer.status, answer.json["code"])
    assert answer.json["code"] in ("insufficient_storage", "payload_too_large")
    assert leftovers.eventually(lambda: sorted(files_of(gateway.data_dir / "images") - before)) == []


def test_the_least_recently_used_makes_room(start):
    gateway = start(None, "--max-images-mb", "6")
    for number in range(3):
        added(gateway, oci.Image([oci.tar({"file": noise(number, 2 << 20)})]).saved(f"room:{number}"))
        assert f"docker.io/library/room:{number}" in names_of(gateway)
    assert names_of(gateway) == {"docker.io/library/room:1", "docker.io/library/room:2"}
    answer = add(gateway, oci.Image([oci.tar({"file": noise(9, 7 << 20)})]).saved("room:9"))
    raw.assert_problem(answer, answer.status, answer.json["code"])
    assert answer.json["code"] in ("insufficient_storage", "payload_too_large")


@pytest.mark.modes("root")
def test_a_full_disk_is_said_and_leaves_nothing(start, place):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tests", str(place)], check=True)
    try:
        gateway = start(place / "data")
        before = files_of(place / "data/images")
        large = oci.Image([oci.tar({"file": noise(1, 40 << 20)})]).layout("large:1")
        problem = raw.assert_problem(add(gateway, large), 507, "insufficient_storage")
        assert problem["retryable"]
        assert leftovers.eventually(lambda: sorted(files_of(place / "data/images") - before)) == []
        added(gateway, oci.Image([oci.tar({"file": noise(1, 1 << 20)})]).layout("small:1"))
        gateway.stop_and_check()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def begin(gateway: Gateway, archive: bytes) -> socket.socket:
    """Sends half of an import."""
    parts = urlsplit(gateway.url)
    connection = socket.create_connection((parts.hostname, parts.port))
    head = f"POST /api/v1/images HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-tar\r\ncontent-length: {len(archive)}\r\n\r\n"
    connection.sendall(head.encode() + archive[: len(archive) // 2])
    return connection


def test_a_client_that_goes_away_leaves_nothing(start, root):
    gateway = start()
    before = files_of(gateway.data_dir / "images")
    archive = oci.Image([noise_layer(3)]).layout("away:1")
    connection = begin(gateway, archive)
    time.sleep(0.5)
    connection.close()
    assert leftovers.eventually(lambda: sorted(files_of(gateway.data_dir / "images") - before)) == []
    added(gateway, archive)


def noise_layer(seed: int) -> bytes:
    return oci.tar({"file": noise(seed, 8 << 20)})


def test_kill_in_the_middle_of_an_import_leaves_nothing_half_made(start):
    directory = Path(tempfile.mkdtemp(prefix="faas-e2e-"))
    gateway = start(directory)
    before = files_of(directory / "images")
    archive = oci.Image([noise_layer(4)]).layout("killed:1")
    connection = begin(gateway, archive)
    time.sleep(0.5)
    gateway.kill()
    connection.close()
    gateway.log.unlink()
    assert leftovers.eventually(lambda: leftovers.children(Gateway.running)) == []
    again = start(directory)
    assert files_of(directory / "images") == before
    added(again, archive)
    again.kill()
    again.log.unlink()
    assert leftovers.eventually(lambda: leftovers.children(Gateway.running)) == []
    third = start(directory)
    assert names_of(third) == {"docker.io/library/killed:1"}
    third.stop_and_check()
    shutil.rmtree(directory)


def test_many_requests_for_an_image_pull_it_once(pulling, registry, root, mark):
    image = oci.Image([root, oci.tar({"mark": mark.encode()})], CONFIG)
    name = registry.push(image, f"once/{mark.replace('.', '-')}")
    digests = [layer["digest"] for layer in image.described]
    before = [registry.times_fetched(digest) for digest in digests]
    with FaaSClient(pulling.url, retry=ONCE) as client, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: client.execute("cat /mark", image=name), range(8)))
    assert [result.stdout for result in results] == [mark] * 8
    once = [times + 1 for times in before]
    assert [registry.times_fetched(digest) for digest in digests] == once
    [info] = images_of(pulling)
    assert info["names"] == [name]
    assert info["repo_digests"] == [f"{name.rpartition(':')[0]}@{image.manifest['digest']}"]
    answer = pull(pulling, name)
    assert (answer.status, answer.json["images"][0]["id"]) == (201, image.id)
    assert [registry.times_fetched(digest) for digest in digests] == once


def test_a_tag_that_moved_is_seen_by_a_pull_alone(pulling, registry, root):
    old, new = (oci.Image([root, oci.tar({"age": age})], CONFIG) for age in (b"old", b"new"))
    name = registry.push(old, "moved")
    with FaaSClient(pulling.url, retry=ONCE) as client:
        assert client.execute("cat /age", image=name).stdout == "old"
        registry.push(new, "moved")
        assert client.execute("cat /age", image=name).stdout == "old"
        assert pull(pulling, name).status == 201
        assert client.execute("cat /age", image=name).stdout == "new"
        digest = f"{name.rpartition(':')[0]}@{old.manifest['digest']}"
        assert client.execute("cat /age", image=digest).stdout == "old"


def test_what_a_registry_has_not_is_said(pulling, registry, root):
    registry.push(oci.Image([root], CONFIG), "there")
    for name in (f"{registry.name}/there:not", f"{registry.name}/not-there", "localhost:1/x"):
        problem = raw.assert_problem(pull(pulling, name), 502, "image_unavailable")
        assert name in problem["detail"]
        with FaaSClient(pulling.url, retry=ONCE) as client, pytest.raises(ImageUnavailableError, match=name):
            client.execute("true", image=name)
    other = registry.push(oci.Image([root], CONFIG, architecture="s390x"), "other")
    assert "s390x" in raw.assert_problem(pull(pulling, other), 502, "image_unavailable")["detail"]


def test_a_changed_layer_is_not_taken_and_the_retry_works(pulling, registry, root):
    image = oci.Image([root, oci.tar({"seed": noise(5, 100_000)})], CONFIG)
    name = registry.push(image, "changed")
    file = registry.file_of(image.described[1]["digest"])
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    raw.assert_problem(pull(pulling, name), 502, "image_unavailable")
    assert images_of(pulling) == []
    file.write_bytes(whole)
    assert pull(pulling, name).status == 201


def test_plain_http_is_spoken_where_it_is_allowed_alone(start, registry, root):
    name = registry.push(oci.Image([root], CONFIG), "plain")
    problem = raw.assert_problem(pull(start(), name), 502, "image_unavailable")
    assert "insecure_registries" in problem["detail"]


def test_without_certificate_authorities_plain_http_works_and_https_says_what_it_lacks(start, registry, root, place):
    name = registry.push(oci.Image([root], CONFIG), "no-authorities")
    nowhere = {"SSL_CERT_FILE": str(place / "none"), "SSL_CERT_DIR": str(place / "none")}
    gateway = start(None, "--insecure-registries", registry.name, environment=nowhere)
    assert pull(gateway, name).status == 201
    problem = raw.assert_problem(pull(gateway, "localhost:1/x"), 502, "image_unavailable")
    assert "ca-certificates" in problem["detail"]


def test_a_registry_is_asked_through_the_proxy_of_the_environment(start, registry, root):
    name = registry.push(oci.Image([root], CONFIG), "behind")
    elsewhere = name.replace(registry.name, "registry.invalid:80")
    with registries.proxy(registry) as (address, asked):
        # `localhost` and its like are asked without one.
        through = {"HTTP_PROXY": address, "http_proxy": address, "NO_PROXY": "", "no_proxy": ""}
        gateway = start(None, "--insecure-registries", "registry.invalid:80", environment=through)
        assert pull(gateway, elsewhere).status == 201
        with FaaSClient(gateway.url) as client:
            assert client.execute("echo here", image=elsewhere).stdout == "here\n"
    assert any(line.startswith("http://registry.invalid/v2/behind/blobs/") for line in asked), asked


def test_a_slow_pull_takes_no_place_of_an_execution(start):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"localhost:{silent.getsockname()[1]}"
        gateway = start(None, "--insecure-registries", host, "--max-concurrent", "1")
        with ThreadPoolExecutor() as waiting, FaaSClient(gateway.url, retry=ONCE) as client:
            slow = [waiting.submit(client.execute, "true", image=f"{host}/slow:{tag}") for tag in range(3)]
            asked, _ = silent.accept()
            assert client.execute("echo here").stdout == "here\n"
            assert not any(call.done() for call in slow)
            asked.close()
            silent.close()
            for call in slow:
                with pytest.raises(ImageUnavailableError):
                    call.result()


def test_a_policy_of_never_pulls_nothing(start, registry, root):
    name = registry.push(oci.Image([root], CONFIG), "never")
    gateway = start(None, "--insecure-registries", registry.name, "--pull", "never")
    with FaaSClient(gateway.url, retry=ONCE) as client:
        with pytest.raises(ImageUnavailableError, match=name):
            client.execute("true", image=name)
        assert pull(gateway, name).status == 201
        assert client.execute("echo here", image=name).stdout == "here\n"


def test_credentials_are_for_their_registry(start, root, place):
    with registries.serve(with_login=True) as private:
        name = private.push(oci.Image([root], CONFIG), "private")
        auth = place / "config.json"

        def pulled(host: str, password: str) -> raw.RawAnswer:
            word = registries.base64.b64encode(f"{registries.USER}:{password}".encode()).decode()
            auth.write_text(json.dumps({"auths": {host: {"auth": word}}}))
            auth.chmod(0o644)
            options = ("--insecure-registries", private.name, "--registry-auth-file", str(auth))
            gateway = start(None, *options)
            answer = pull(gateway, name)
            gateway.stop_and_check()
            return answer

        for host, password in (("localhost:1", registries.PASSWORD), (private.name, "wrong")):
            problem = raw.assert_problem(pulled(host, password), 502, "image_unavailable")
            assert name in problem["detail"]
            assert registries.PASSWORD not in problem["detail"]
        assert pulled(private.name, registries.PASSWORD).status == 201


def command_line(gateway: Gateway, mode: User | None, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """The exit code, stdout and stderr of `faas-gateway-server images` for the gateway's directory."""
    command = [str(program()) if mode is None else readable(program(), mode), "images", *arguments]
    command += ["--data-dir", str(gateway.data_dir)]
    if mode is not None:
        command = mode.command(command, unit="command-line")
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, env=os.environ | {"HOME": "/"})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_command_line_works_beside_a_running_gateway(start, mode, root, place):
    gateway = start()
    image = oci.Image([root], CONFIG)
    archive = place / "image.tar"
    archive.write_bytes(image.layout("line:1"))
    archive.chmod(0o644)
    assert command_line(gateway, mode, "import", str(archive))[:2] == (0, f"{image.id} docker.io/library/line:1\n")
    with FaaSClient(gateway.url, retry=ONCE) as client:
        assert client.execute("echo here", image="line:1").stdout == "here\n"
    code, out, err = command_line(gateway, mode, "import", "-", "--name", "line:2", "-q", stdin=image.saved("x:9"))
    assert (code, err) == (0, "")
    assert names_of(gateway) == {"docker.io/library/line:1", "docker.io/library/line:2"}
    code, out, _ = command_line(gateway, mode, "list", "--json")
    assert (code, json.loads(out)[0]["id"]) == (0, image.id)
    assert "docker.io/library/line:2" in command_line(gateway, mode, "list")[1]
    assert command_line(gateway, mode, "remove", "line:1")[:2] == (0, "")
    assert command_line(gateway, mode, "remove", "line:1")[0] == 1
    assert names_of(gateway) == {"docker.io/library/line:2"}
    for arguments, expected in (
        (["import", str(place / "nothing")], 1),
        (["import", "-"], 64),
        (["pull", "a:b:c"], 64),
        (["pull", "localhost:1/x"], 1),
        ([], 64),
    ):
        code, out, err = command_line(gateway, mode, *arguments)
        assert (code, out) == (expected, ""), err
        assert err.splitlines()[-1].startswith("faas-gateway-server"), err
    directory = place / "layout"
    subprocess.run(["mkdir", str(directory)], check=True)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(directory)], check=True)
    subprocess.run(["chmod", "-R", "a+rX", str(directory)], check=True)
    assert command_line(gateway, mode, "import", str(directory))[0] == 0
    assert names_of(gateway) == {"docker.io/library/line:1", "docker.io/library/line:2"}


def test_imports_at_once_do_not_disturb_each_other(gateway, client, root):
    archives = [oci.Image([root, oci.tar({"n": str(n).encode()})], CONFIG).saved(f"at-once:{n}") for n in range(6)]
    threads = [threading.Thread(target=added, args=(gateway, archive)) for archive in archives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        assert client.execute("cat /n", image=f"at-once:{number}").stdout == str(number)
        assert remove(gateway, f"at-once:{number}").status == 204
