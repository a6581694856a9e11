"""Sends calls from asyncio code."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Never, TypeVar

import httpx2

from faas_sdk._core.answer import WholeReader, answer_reader, is_result
from faas_sdk._core.call import Call
from faas_sdk._core.config import ClientConfig
from faas_sdk._core.event_source import EventSource, LineReader
from faas_sdk._core.retry import as_lost, retry_wait_s
from faas_sdk._transport.failure import headers_of, limits, timeouts, transport_error
from faas_sdk._transport.upload import async_pieces
from faas_sdk.errors import FaaSError

T = TypeVar("T")
E = TypeVar("E")


class AsyncTransport:
    """A pool of connections to one gateway, for one event loop."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        """The client's settings."""
        self._http = httpx2.AsyncClient(limits=limits(config), trust_env=not config.is_loopback)

    async def send(self, call: Call[T]) -> T:
        """Sends a call, again where that is safe, and reads the answer. Cancelling it closes the connection.

        Raises:
            FaaSError: the last attempt's failure.
        """
        attempt = 0
        while True:
            try:
                return await self._exchange(call)
            except FaaSError as error:
                wait_s = retry_wait_s(self.config.retry, call, error, attempt, random.random())  # noqa: S311 - spreads load
                if wait_s is None:
                    raise
            attempt += 1
            await asyncio.sleep(wait_s)

    async def stream(self, source: EventSource[E]) -> AsyncGenerator[E]:
        """Gives the events of a source as they come. Closing the generator closes the connection.

        A call is sent again where that is safe. After an event only a source that resumes goes on, over another
        connection.

        Raises:
            FaaSError: the last attempt's failure, or that of the stream.
        """
        attempt = 0
        while True:
            call = source.call()
            begun = False
            try:
                async with aclosing(self._events(call, source)) as events:
                    async for event in events:
                        begun = True
                        source.took(event)
                        yield event
            except FaaSError as error:
                if begun:
                    attempt = 0
                wait_s = None
                if not source.said_error and (source.resumes or not begun):
                    wait_s = retry_wait_s(
                        self.config.retry,
                        call,
                        as_lost(error, call) if source.resumes else error,
                        attempt,
                        random.random(),  # noqa: S311 - spreads load
                    )
                if wait_s is None:
                    raise
            else:
                return
            attempt += 1
            await asyncio.sleep(wait_s)

    async def open(self, call: Call[bytes]) -> Body:
        """Sends a call, again where that is safe, and gives the body of its answer piece by piece.

        Raises:
            FaaSError: the last attempt's failure.
        """
        attempt = 0
        while True:
            try:
                response, url, timeout_s = await self._send(call)
                return Body(response, await _opened(call, response, url, timeout_s))
            except FaaSError as error:
                wait_s = retry_wait_s(self.config.retry, call, error, attempt, random.random())  # noqa: S311 - spreads load
                if wait_s is None:
                    raise
            attempt += 1
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def _events(self, call: Call[Never], source: EventSource[E]) -> AsyncGenerator[E]:
        response, url, timeout_s = await self._send(call)
        reader = LineReader(source, call, response.status_code, headers_of(response))
        async with aclosing(response), aclosing(_body(response, url, timeout_s)) as body:
            async for piece in body:
                for event in reader.feed(piece):
                    yield event
        reader.end()

    async def _exchange(self, call: Call[T]) -> T:
        response, url, timeout_s = await self._send(call)
        reader = answer_reader(call, response.status_code, headers_of(response))
        async with aclosing(response), aclosing(_body(response, url, timeout_s)) as body:
            async for piece in body:
                reader.feed(piece)
        return reader.result()

    async def _send(self, call: Call[T]) -> tuple[httpx2.Response, str, float]:
        """The answer as far as its headers, where it came from, and the longest silence."""
        url = self.config.url(call.path)
        timeout_s = self.config.http_timeout(call)
        request = self._http.build_request(
            call.method,
            url,
            content=async_pieces(call.body),
            headers=self.config.request_headers(call),
            timeout=timeouts(timeout_s),
        )
        try:
            return await self._http.send(request, stream=True), url, timeout_s
        except httpx2.RequestError as error:
            raise transport_error(error, url, timeout_s) from error


async def _body(response: httpx2.Response, url: str, timeout_s: float) -> AsyncGenerator[bytes]:
    try:
        async for piece in response.aiter_bytes():
            yield piece
    except httpx2.RequestError as error:
        raise transport_error(error, url, timeout_s) from error


async def _opened(call: Call[bytes], response: httpx2.Response, url: str, timeout_s: float) -> AsyncGenerator[bytes]:
    """The pieces of a body.

    Raises:
        FaaSError: it is no result's.
    """
    if is_result(call, response.status_code, headers_of(response)):
        return _body(response, url, timeout_s)
    reader = WholeReader(call, response.status_code, headers_of(response))
    async with aclosing(response), aclosing(_body(response, url, timeout_s)) as body:
        async for piece in body:
            reader.feed(piece)
    reader.result()
    raise AssertionError("what is no result has an error in it")


class Body:
    """The body of an answer while it comes."""

    def __init__(self, response: httpx2.Response, pieces: AsyncGenerator[bytes]) -> None:
        self._response = response
        self.pieces = pieces
        """Its pieces; :class:`FaaSError` where the connection breaks."""

    async def close(self) -> None:
        """Closes the connection, where not all of it was read."""
        await self.pieces.aclose()
        await self._response.aclose()
