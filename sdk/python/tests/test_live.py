"""A few calls to the gateway at ``FAAS_BASE_URL``; without it these are skipped."""

import asyncio
import io
import os
import platform
import shutil
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from faas_sdk import (
    AsyncFaaSClient,
    ConflictError,
    ExecutionTimeoutError,
    FaaSClient,
    ImageUnavailableError,
    InvalidRequestError,
    NotFoundError,
    OutputEvent,
    RangeNotSatisfiableError,
)
from tests.archive import saved

pytestmark = pytest.mark.skipif(
    not os.environ.get("FAAS_BASE_URL"), reason="FAAS_BASE_URL is not set: no gateway to talk to"
)


@pytest.fixture
def client():
    with FaaSClient() as client:
        yield client


def test_the_specifications_example(client):
    result = client.execute("echo 'Hello!'", image="host")
    assert result.stdout == "Hello!\n"
    assert result.ok


def test_bytes_and_files(client):
    result = client.execute("cat data; cat", stdin=b"\x00\xff", files={"/tmp/data": b"\xfe"}, working_dir="/tmp")
    assert result.stdout_bytes == b"\xfe\x00\xff"


def test_a_failing_command_is_a_result(client):
    result = client.execute(["sh", "-c", "echo oops >&2; exit 3"])
    assert (result.exit_code, result.stderr, result.error) == (3, "oops\n", "process exited with code 3")


def test_a_timeout_has_the_output_so_far(client):
    with pytest.raises(ExecutionTimeoutError) as caught:
        client.execute("echo begun; sleep 600", timeout_ms=2_000)
    assert caught.value.execution is not None
    assert caught.value.execution.stdout == "begun\n"


def test_errors_are_typed(client):
    with pytest.raises(InvalidRequestError):
        client.execute("")
    with pytest.raises(ImageUnavailableError):
        client.execute("true", image="no-such-image")


def test_the_gateway_tells_of_itself(client):
    assert client.health().status in ("healthy", "degraded")
    assert client.capabilities().default_image
    assert client.version().version == client.health().version


def test_the_asynchronous_client():
    async def together() -> list[str]:
        async with AsyncFaaSClient() as client:
            results = await asyncio.gather(*(client.execute(["echo", str(n)]) for n in range(8)))
            return [result.stdout for result in results]

    assert asyncio.run(together()) == [f"{n}\n" for n in range(8)]


def test_the_life_of_an_instance(client):
    with client.instances.create(image="host", env_vars={"A": "1"}, labels={"sdk": "python"}) as instance:
        assert instance.exec("echo $A > /tmp/kept; hostname").stdout == f"{instance.id}\n"
        assert instance.pause().status == "paused"
        with pytest.raises(ConflictError, match=r"legal now: .*resume"):
            instance.exec("true")
        assert instance.resume().exec("cat /tmp/kept").stdout == "1\n"
        assert instance.set_timeout(ttl_ms=600_000).info.ttl_ms == 600_000
        assert instance.metrics().instance_id == instance.id
        assert instance.id in [found.id for found in client.instances.list(labels={"sdk": "python"})]
        assert client.instances.get(instance.id).info.expires_at is not None
    client.instances.delete(instance.id)
    with pytest.raises(NotFoundError):
        instance.refresh()
    assert client.leaks() == ()


def test_a_command_that_goes_on_by_itself(client):
    with client.instances.create(image="host") as instance:
        started = instance.exec("read line; echo got $line; exit 3", background=True, stdin_open=True)
        started.input("x\n")
        assert (started.wait(timeout_s=60).status, started.exit_code) == ("exited", 3)
        assert client.executions.get(started.id).output().stdout == b"got x\n"
        assert b"".join(event.data for event in started.stream(offset=4) if isinstance(event, OutputEvent)) == b"x\n"
        with pytest.raises(RangeNotSatisfiableError) as caught:
            list(started.stream(offset=1000))
        assert caught.value.next_offset == 6
        with pytest.raises(ConflictError):
            started.input("more")
        assert [one.id for one in instance.executions()] == [started.id]
        with client.instances.pty(instance.id, command="read line; echo got $line") as terminal:
            terminal.write("y\n")
            assert b"got y" in b"".join(terminal)
            assert terminal.end is not None
            assert terminal.end.exit_code == 0


def test_files_events_and_logs(client):
    with client.instances.create(image="host", command="echo main") as instance:
        instance.files.write("/srv/a", b"\x00\xff", mode=0o600)
        assert instance.files.read("/srv/a", offset=1) == b"\xff"
        assert instance.files.write_stream("/srv/b", (b"x" * 1000 for _ in range(1000))).size_bytes == 1_000_000
        with instance.files.open("/srv/b") as file:
            assert len(file.read()) == 1_000_000
        assert [found.name for found in instance.files.list("/srv")] == ["a", "b"]
        with closing(instance.files.watch("/srv")) as events:
            assert next(events).kind == "ready"
            instance.files.remove("/srv/a")
            assert (next(events).kind, instance.files.list("/srv")[0].name) == ("deleted", "b")
        client.executions.get(instance.main.execution_id).wait(timeout_s=60)
        assert [entry.text for entry in instance.logs() if entry.type == "stdout"] == ["main\n"]
    with closing(client.events(after=0, subject=instance.id, kind="instance.")) as events:
        kinds = []
        while "instance.deleted" not in kinds:
            kinds.append(next(events).kind)
    assert kinds[:2] == ["instance.creating", "instance.running"]


def test_an_asynchronous_instance():
    async def together() -> list[str]:
        async with AsyncFaaSClient() as client, await client.instances.create(image="host") as instance:
            results = await asyncio.gather(*(instance.exec(["echo", str(n)]) for n in range(8)))
            return [result.stdout for result in results]

    assert asyncio.run(together()) == [f"{n}\n" for n in range(8)]


ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@pytest.fixture
def tiny(client):
    """The name of an image that nobody else has, and its archive."""
    name = f"sdk-python-{uuid.uuid4().hex}:1"
    files = {"marker": name.encode()}
    if (busybox := shutil.which("busybox")) is not None:
        files |= {f"bin/{program}": Path(busybox).read_bytes() for program in ("busybox", "cat")}
    yield name, saved(files, "named-in-the-archive:1", architecture=ARCHITECTURE)
    for image in client.images.list(name):
        client.images.remove(image.id)


def test_an_image_is_imported_listed_and_removed(client, tiny, tmp_path):
    name, archive = tiny
    (tmp_path / "image.tar").write_bytes(archive)
    (image,) = client.images.import_archive(tmp_path / "image.tar", name)
    assert image.names == (f"docker.io/library/{name}",)
    assert (image.architecture, image.env_vars, image.layers) == (ARCHITECTURE, {"PATH": "/bin"}, 1)
    assert [found.id for found in client.images.list(name)] == [image.id]
    assert image.id in [found.id for found in client.images.list()]
    assert len(client.images.list(limit=1)) == 1
    client.images.remove(name)
    assert client.images.list(name) == ()
    with pytest.raises(NotFoundError):
        client.images.remove(name)


def test_an_open_file_is_imported_with_progress(client, tiny):
    name, archive = tiny
    phases = []
    (image,) = client.images.import_archive(
        io.BytesIO(archive), name, on_progress=lambda step: phases.append(step.phase)
    )
    assert phases
    assert client.images.list(name)[0].id == image.id


def test_a_command_runs_in_an_imported_image(client, tiny):
    if shutil.which("busybox") is None:
        pytest.skip("busybox: it is not in PATH")
    name, archive = tiny
    client.images.import_archive(archive, name)
    result = client.execute(["cat", "/marker"], image=name, runtime="native")
    assert result.stdout == name
    assert result.raw["usage"] == {
        "cpu_us": result.usage.cpu_us,
        "memory_peak_bytes": result.usage.memory_peak_bytes,
    }


@pytest.mark.parametrize("on_progress", [None, lambda _step: None])
def test_what_is_no_archive_is_refused_however_long_it_is(client, on_progress):
    for archive in (b"no tar", b"no tar" * (1 << 20)):
        with pytest.raises(InvalidRequestError):
            client.images.import_archive(archive, on_progress=on_progress)


@pytest.mark.parametrize("on_progress", [None, lambda _step: None])
def test_a_registry_that_is_not_there_is_an_image_that_is_not_there(client, on_progress):
    with pytest.raises(ImageUnavailableError):
        client.images.pull("127.0.0.1:1/none", on_progress=on_progress)
    with pytest.raises(InvalidRequestError):
        client.images.pull("No:Such:Name", on_progress=on_progress)


def test_images_with_the_asynchronous_client(client, tiny, tmp_path):
    name, archive = tiny
    (tmp_path / "image.tar").write_bytes(archive)

    async def all_of_it() -> None:
        async with AsyncFaaSClient() as other:
            phases: list[str] = []
            (image,) = await other.images.import_archive(
                tmp_path / "image.tar", name, on_progress=lambda step: phases.append(step.phase)
            )
            assert phases
            assert [found.id for found in await other.images.list(name)] == [image.id]
            await other.images.remove(image.id)

    asyncio.run(all_of_it())
    assert client.images.list(name) == ()
