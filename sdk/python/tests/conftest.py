"""The stub gateway, and both clients behind one blocking face, so that each test holds for both."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from typing import Any

import pytest

from faas_sdk import AsyncFaaSClient, FaaSClient, RetryPolicy
from tests.stub import StubGateway

QUICK = RetryPolicy(initial_backoff_s=0.0, max_backoff_s=0.0)
"""Two retries without a wait."""


class Caller:
    """Makes a client of one kind, does one call with it, closes it."""

    def __init__(self, kind: str, base_url: str) -> None:
        self.kind = kind
        self.base_url = base_url
        self.settings: dict[str, Any] = {"retry": QUICK}

    def __call__(self, verb: str, *args: Any, **options: Any) -> Any:
        if self.kind == "sync":
            with FaaSClient(self.base_url, **self.settings) as client:
                return operator.attrgetter(verb)(client)(*args, **options)
        return asyncio.run(self._call(verb, *args, **options))

    async def _call(self, verb: str, *args: Any, **options: Any) -> Any:
        async with AsyncFaaSClient(self.base_url, **self.settings) as client:
            return await operator.attrgetter(verb)(client)(*args, **options)

    def of_instance(self, verb: str, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Gets an instance, calls a verb of it; the verb's result, and the instance as it is told of afterwards."""
        if self.kind == "sync":
            with FaaSClient(self.base_url, **self.settings) as client:
                found = client.instances.get("ins-1")
                return getattr(found, verb)(*args, **options), found
        return asyncio.run(self._of_instance(verb, *args, **options))

    async def _of_instance(self, verb: str, *args: Any, **options: Any) -> tuple[Any, Any]:
        async with AsyncFaaSClient(self.base_url, **self.settings) as client:
            found = await client.instances.get("ins-1")
            return await getattr(found, verb)(*args, **options), found

    def execute(self, *args: Any, **options: Any) -> Any:
        return self("execute", *args, **options)


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    gateway = StubGateway()
    yield gateway
    gateway.stop()


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest, stub: StubGateway) -> Caller:
    return Caller(request.param, stub.url)
