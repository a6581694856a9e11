"""Files, events and logs of an instance, through the SDK from one end to the other."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from faas_sdk import (
    AsyncFaaSClient,
    ConflictError,
    NotFoundError,
    RangeNotSatisfiableError,
    SandboxLostError,
)

import leftovers
from instances import outcome

PIECE = bytes(range(256)) * 1024


@pytest.fixture
def instance(tenant, backend):
    return tenant.instances.create(**backend.create)


def test_files_come_back_as_they_went(instance, tmp_path):
    files = instance.files
    info = files.write("/srv/a/b/text", "h\u00e9llo\n", mode=0o640)
    assert (info.path, info.name, info.type, info.size_bytes, info.mode) == (
        "/srv/a/b/text", "text", "file", 7, "0640",
    )  # fmt: skip
    assert files.read_text("/srv/a/b/text") == "h\u00e9llo\n"
    assert instance.exec("cat /srv/a/b/text; stat -c %a /srv/a/b/text").stdout == "h\u00e9llo\n640\n"
    assert files.read("/srv/a/b/text", offset=1, length=2) == "\u00e9".encode()
    assert files.read("/srv/a/b/text", offset=5) == b"o\n"
    with pytest.raises(RangeNotSatisfiableError):
        files.read("/srv/a/b/text", offset=8)
    files.write("/srv/a/b/text", b"")
    assert (files.read("/srv/a/b/text"), files.stat("/srv/a/b/text").mode) == (b"", "0640")
    (tmp_path / "local").write_bytes(PIECE * 16)
    pieces = (PIECE for _ in range(64))
    for name, source, size in (
        ("file", tmp_path / "local", 16),
        ("pieces", pieces, 64),
        ("open", io.BytesIO(PIECE), 1),
    ):
        assert files.write_stream(f"/srv/{name}", source).size_bytes == size * len(PIECE)
        digest = hashlib.sha256()
        with files.open(f"/srv/{name}") as file:
            while piece := file.read(1 << 16):
                digest.update(piece)
        assert digest.hexdigest() == hashlib.sha256(PIECE * size).hexdigest()
        assert instance.exec(f"sha256sum < /srv/{name}").stdout.split()[0] == digest.hexdigest()
    assert [found.name for found in files.list("/srv")] == ["a", "file", "open", "pieces"]


def test_directories_links_moves_and_removals(instance):
    files = instance.files
    made = files.mkdir("/srv/d/e", mode=0o700)
    assert (made.type, made.mode) == ("directory", "0700")
    assert files.mkdir("/srv/d/e").mode == "0700"
    instance.exec("ln -s ../x /srv/d/link; mkfifo /srv/d/fifo")
    assert [(one.name, one.type, one.target) for one in files.list("/srv/d")] == [
        ("e", "directory", None), ("fifo", "fifo", None), ("link", "symlink", "../x"),
    ]  # fmt: skip
    assert files.move("/srv/d/link", "/srv/d/e/moved").path == "/srv/d/e/moved"
    with pytest.raises(ConflictError):
        files.remove("/srv/d")
    with pytest.raises(NotFoundError):
        files.remove("/srv/none")
    files.remove("/srv/d/fifo")
    files.remove("/srv/d", recursive=True)
    with pytest.raises(NotFoundError):
        files.stat("/srv/d")
    for number in range(2500 // 50):
        instance.exec(f"mkdir -p /srv/many; cd /srv/many; for i in $(seq 50); do : > {number:03}-$i; done")
    names = [one.name for one in files.list("/srv/many")]
    assert (len(names), names) == (2500, sorted(names))


def test_tar_archives_go_both_ways(instance, tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, mode in (("top", 0o755), ("deep/below", 0o600)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(PIECE), mode
            tar.addfile(entry, io.BytesIO(PIECE))
    unpacked = instance.files.upload_tar("/srv/t", iter([archive.getvalue()]))
    assert unpacked.bytes == 2 * len(PIECE)
    with instance.files.download_tar("/srv/t") as file, tarfile.open(fileobj=file, mode="r|") as tar:
        found = {member.name.removeprefix("./"): member.mode & 0o777 for member in tar if member.isfile()}
    assert {name.removeprefix("t/"): mode for name, mode in found.items()} == {"top": 0o755, "deep/below": 0o600}


def test_a_watch_tells_what_happens(instance):
    instance.files.mkdir("/srv/w")
    with closing(instance.files.watch("/srv/w", recursive=True)) as events, ThreadPoolExecutor(1) as pool:
        assert next(events).kind == "ready"
        instance.exec("cd /srv/w; echo a > a; mv a b; rm b")
        seen = []
        while not seen or seen[-1][0] != "deleted":
            event = next(events)
            seen.append((event.kind, event.path))
        assert ("created", "/srv/w/a") in seen
        assert seen[-1] == ("deleted", "/srv/w/b")
        rest = pool.submit(outcome, list, events)
        instance.delete()
        assert isinstance(rest.result(60), SandboxLostError), rest.result()


def test_files_with_the_asynchronous_client(instance, house):
    async def all_of_it():
        async def pieces():
            for _ in range(8):
                yield PIECE

        async with AsyncFaaSClient(house.url) as client:
            files = (await client.instances.get(instance.id)).files
            await files.write_stream("/srv/async", pieces())
            async with await files.open("/srv/async", offset=256) as file:
                return b"".join([piece async for piece in file])

    assert asyncio.run(all_of_it()) == (PIECE * 8)[256:]


def test_events_tell_what_becomes_of_an_instance_and_its_executions(tenant, backend):
    instance = tenant.instances.create(**backend.create)
    started = instance.exec("exit 3", background=True).wait()
    instance.stop(grace_ms=0)
    with closing(tenant.events(after=0, subject=instance.id)) as events:
        seen = []
        while not seen or seen[-1].kind != "instance.stopped":
            seen.append(next(events))
    assert [event.kind for event in seen][:2] == ["instance.creating", "instance.running"]
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})
    assert {event.subject for event in seen} == {instance.id}
    with closing(tenant.events(after=seen[0].seq, kind="execution.", subject=started.id)) as events:
        begun, ended = next(events), next(events)
    assert (begun.kind, ended.kind) == ("execution.started", "execution.ended")
    assert begun.data["instance_id"] == ended.data["instance_id"] == instance.id
    with closing(tenant.events(after=1 << 60)) as events, pytest.raises(RangeNotSatisfiableError):
        next(events)
    # What comes from now on: the first of it is after all that was.
    with ThreadPoolExecutor(1) as pool, closing(tenant.events(kind=["instance.deleted"])) as events:
        coming = pool.submit(outcome, next, events)
        while not coming.done():
            tenant.instances.create(**backend.create).delete()
        assert coming.result().seq > ended.seq


def test_events_outlive_a_server_and_a_client_goes_on_after_the_last(succession, backend):
    instance = succession.client.instances.create(**backend.create)
    with closing(succession.client.events(after=0, subject=instance.id)) as events:
        last = next(event for event in events if event.kind == "instance.running")
    client = succession.next()
    client.instances.stop(instance.id, grace_ms=0)
    with closing(client.events(after=last.seq, subject=instance.id)) as events:
        assert next(events).kind == "instance.stopping"
    with closing(client.events(after=0, subject=instance.id)) as events:
        assert next(events).kind == "instance.creating"


def test_a_log_is_followed_to_the_end_of_its_instance(tenant, backend):
    instance = tenant.instances.create(**backend.create, command="echo main; echo err >&2; sleep 600")
    with ThreadPoolExecutor(1) as pool:
        following = instance.logs(follow=True)
        first = next(following)
        entries = pool.submit(lambda: [first, *following])
        missing = leftovers.eventually(
            lambda: [] if {"main\n", "err\n"} <= {one.text for one in instance.logs()} else ["not written"]
        )
        assert missing == []
        instance.delete()
        told = entries.result(60)
    assert {"main\n", "err\n"} <= {entry.text for entry in told}
    assert "instance.running" in [entry.kind for entry in told]
