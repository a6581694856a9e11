"""A few calls to the gateway at ``FAAS_BASE_URL``; without it these are skipped."""

import asyncio
import os

import pytest

from faas_sdk import AsyncFaaSClient, ExecutionTimeoutError, FaaSClient, ImageUnavailableError, InvalidRequestError

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
        client.execute("echo begun; sleep 600", timeout_ms=300)
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
