"""Settings: argument, then environment, then default; and what is derived from them."""

import asyncio
import threading

import pytest

from faas_sdk import AsyncFaaSClient, FaaSClient
from faas_sdk._core.config import client_config
from faas_sdk._core.operations import execute, server
from tests.stub import Reply, execution


def config(environment=None, **settings):
    defaults = {"base_url": None, "http_timeout_s": None, "retry": None, "headers": None, "max_connections": 100}
    return client_config(**defaults | settings, environment=environment or {})


def test_the_base_url_comes_from_argument_then_environment_then_default():
    environment = {"FAAS_BASE_URL": "http://from-environment:1/"}
    assert config(environment, base_url="http://from-argument:2").base_url == "http://from-argument:2"
    assert config(environment).base_url == "http://from-environment:1"
    assert config().base_url == "http://localhost:8080"
    assert config({"FAAS_BASE_URL": ""}).base_url == "http://localhost:8080"


def test_the_clients_read_the_environment(monkeypatch):
    monkeypatch.setenv("FAAS_BASE_URL", "http://127.0.0.1:9")
    with FaaSClient() as client:
        assert client.base_url == "http://127.0.0.1:9"
        assert repr(client) == "FaaSClient(base_url='http://127.0.0.1:9')"
    assert repr(AsyncFaaSClient()) == "AsyncFaaSClient(base_url='http://127.0.0.1:9')"


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://x", "http://", "http://x:port", "http://[::1", "http://x?a", "http://x#a"]
)
def test_a_base_url_that_is_none_is_refused_with_its_origin(url):
    with pytest.raises(ValueError, match="base_url is"):
        config(base_url=url)
    if url:
        with pytest.raises(ValueError, match="FAAS_BASE_URL is"):
            config({"FAAS_BASE_URL": url})


def test_a_base_url_may_have_a_path(caller, stub):
    caller.base_url = f"{stub.url}/faas/"
    caller.execute("x")
    assert stub.seen[0].path == "/faas/api/v1/execute"


@pytest.mark.parametrize("setting", [{"http_timeout_s": 0}, {"http_timeout_s": float("nan")}, {"max_connections": 0}])
def test_settings_without_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        config(**setting)


def test_the_http_timeout_is_the_calls_then_the_clients_then_derived():
    one = config(http_timeout_s=5.0)
    assert one.http_timeout(execute.execute("x", http_timeout_s=1.0)) == 1.0
    assert one.http_timeout(execute.execute("x", timeout_ms=100_000)) == 5.0
    derived = config()
    assert derived.http_timeout(execute.execute("x")) == 90.0
    assert derived.http_timeout(execute.execute("x", timeout_ms=100_000)) == 160.0
    assert derived.http_timeout(execute.execute("x", timeout_ms=-5)) == 60.0
    assert derived.http_timeout(server.health()) == 30.0


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:8080", True), ("http://gateway.localhost", True), ("http://127.0.0.9", True),
        ("http://[::1]:1", True), ("http://10.0.0.1", False), ("https://gateway.example", False),
    ],
)  # fmt: skip
def test_loopback_addresses_are_known(url, loopback):
    assert config(base_url=url).is_loopback is loopback


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(caller, stub, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert caller.execute("x").ok
    assert len(stub.seen) == 1


def test_the_clients_headers_are_sent_and_the_calls_win(caller, stub):
    caller.settings = {"headers": {"Authorization": "Bearer k", "X-Request-Id": "client", "User-Agent": "mine"}}
    caller.execute("x", request_id="call")
    seen = stub.seen[0].headers
    assert (seen["authorization"], seen["x-request-id"], seen["user-agent"]) == ("Bearer k", "call", "mine")


@pytest.mark.parametrize("text", ["", "a\nb", "a\r\nx: y", "naïve", "\x00", " a"])
def test_text_that_cannot_be_a_header_is_refused_before_anything_is_sent(caller, stub, text):
    with pytest.raises(ValueError, match="x-request-id"):
        caller.execute("x", request_id=text)
    with pytest.raises(ValueError, match="x-mine"):
        config(headers={"x-mine": text})
    assert stub.seen == []


@pytest.mark.parametrize("name", ["", "a b", "x:", "naïve", "x\n"])
def test_a_header_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="header name"):
        config(headers={name: "x"})


def test_a_client_may_be_closed_twice(stub):
    client = FaaSClient(stub.url)
    client.execute("x")
    client.close()
    client.close()

    async def twice() -> None:
        other = AsyncFaaSClient(stub.url)
        await other.execute("x")
        await other.close()
        await other.close()

    asyncio.run(twice())


def test_threads_share_a_client(stub):
    results = []
    with FaaSClient(stub.url, max_connections=4) as client:
        threads = [threading.Thread(target=lambda: results.append(client.execute("x").ok)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * 16


def test_more_calls_than_connections_wait_and_do_not_fail(stub):
    async def many() -> list[bool]:
        async with AsyncFaaSClient(stub.url, max_connections=2) as client:
            return [result.ok for result in await asyncio.gather(*(client.execute("x") for _ in range(20)))]

    assert asyncio.run(many()) == [True] * 20


def test_cancelling_a_call_closes_its_connection(stub):
    held = threading.Event()
    stub.replies(Reply(json=execution(), hold=held), Reply(json=execution(stdout="second")))

    async def cancelled() -> str:
        async with AsyncFaaSClient(stub.url, max_connections=1) as client:
            task = asyncio.create_task(client.execute("x"))
            await asyncio.to_thread(stub.arrived.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await client.execute("y")).stdout

    assert asyncio.run(cancelled()) == "second"
