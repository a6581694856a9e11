"""The gateway that most tests share, one that a test may ill-treat, and the clients."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faas_sdk.client import FaaSClient

import leftovers
import needs
from gateway import Gateway


@pytest.fixture(scope="session", autouse=True)
def _keep_orphans_in_sight() -> None:
    leftovers.become_subreaper()


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        needs.skip("root", "not root", "tests/e2e")


@pytest.fixture(scope="session")
def gateway(_root: None, _keep_orphans_in_sight: None) -> Iterator[Gateway]:
    """A gateway for many tests; at the end it must stop well and leave nothing."""
    running = Gateway(environment={"E2E_PRIVATE": "private-to-the-gateway"})
    yield running
    running.stop_and_check()


@pytest.fixture
def start(_root: None, _keep_orphans_in_sight: None) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways for one test alone; those it has not stopped itself are stopped and checked after it."""
    started: list[Gateway] = []

    def begin(data_dir: Path | None = None, *arguments: str) -> Gateway:
        started.append(Gateway(data_dir, *arguments))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.stop_and_check()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[FaaSClient]:
    with FaaSClient(gateway.url) as client:
        yield client


@pytest.fixture
def mark() -> str:
    """A duration for `sleep` that no other process of the machine has on its command line."""
    return f"86400.{uuid.uuid4().int % 10**12:012}"
