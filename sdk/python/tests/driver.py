"""Drives what either client gives, from blocking tests: what is awaited is awaited, and streams become lists."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

from faas_sdk import AsyncFaaSClient, FaaSClient
from tests.conftest import Caller


class Driver:
    """Both clients behind the same steps."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._is_async = isinstance(client, AsyncFaaSClient)

    async def __call__(self, verb: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The result of a verb."""
        result = verb(*args, **options)
        return await result if inspect.isawaitable(result) else result

    async def each(self, stream: Any, most: int | None = None) -> list[Any]:
        """The events of a stream, or the first of them; it is closed then."""
        got: list[Any] = []
        if self._is_async:
            async with aclosing(stream):
                async for event in stream:
                    got.append(event)
                    if len(got) == most:
                        break
            return got
        with closing(stream):
            for event in stream:
                got.append(event)
                if len(got) == most:
                    break
        return got


def drive(caller: Caller, steps: Callable[[Driver], Any]) -> Any:
    """Runs the steps with a client of the caller's kind."""

    async def run() -> Any:
        if caller.kind == "sync":
            with FaaSClient(caller.base_url, **caller.settings) as client:
                return await steps(Driver(client))
        async with AsyncFaaSClient(caller.base_url, **caller.settings) as client:
            return await steps(Driver(client))

    return asyncio.run(run())
