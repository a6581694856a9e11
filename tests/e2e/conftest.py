"""The gateway that most tests share, one that a test may ill-treat, and the clients.

Every test that uses a gateway runs once for each of its modes: as root, as an ordinary user with one id, and as one
with a range of them; where the machine has cgroup v2, as one to whom a cgroup is delegated, too. E2E_MODES leaves some of
them out.
`@pytest.mark.modes("root")` names the modes that a test is for.

Several processes may run these tests at once (`-n 4 --dist loadgroup`): whatever a test counts bears a mark of its own.
What counts on the machine as a whole is marked `alone`, and run when nothing else is.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faas_sdk.client import FaaSClient

import leftovers
import needs
import postgres
import registry as registries
from gateway import REPOSITORY, Gateway
from succession import ONCE, Succession, nothing_is_left
from users import User, delegate, has_controllers, make_user


@pytest.fixture
def many_descriptors():
    """This process may have a few thousand open while the test runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session", autouse=True)
def _keep_orphans_in_sight() -> None:
    leftovers.become_subreaper()


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        needs.skip("root", "not root", "tests/e2e")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive of a root with busybox, as images/alpine.sh makes it."""
    path = tmp_path_factory.mktemp("images") / "root.tar"
    subprocess.run([REPOSITORY / "images/alpine.sh", path], check=True, capture_output=True)
    return path.read_bytes()


@pytest.fixture(scope="session")
def registry(_root: None) -> Iterator[registries.Registry]:
    """A registry that all tests push to, each to repositories of its own."""
    with registries.serve() as running:
        yield running


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "modes(*names): the modes of the gateway that the test is for")
    config.addinivalue_line(
        "markers", "alone: looks at the machine as a whole, where no other test may run meanwhile"
    )
    config.addinivalue_line("markers", "xdist_group(name): tests that one process runs, one after the other")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the modes that a test is not for; keeps together what shares a gateway."""

    def is_wanted(item: pytest.Item) -> bool:
        marker, callspec = item.get_closest_marker("modes"), getattr(item, "callspec", None)
        name = callspec.params.get("mode") if callspec else None
        if callspec and callspec.params.get("backend") == "docker" and name != "root":
            return False
        return marker is None or name is None or name in marker.args

    unwanted = [item for item in items if not is_wanted(item)]
    items[:] = [item for item in items if is_wanted(item)]
    config.hook.pytest_deselected(items=unwanted)
    for item in items:
        if SHARED & set(getattr(item, "fixturenames", ())):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            words = [item.path.stem, *(str(parameters[name]) for name in ("mode", "backend") if name in parameters)]
            item.add_marker(pytest.mark.xdist_group("-".join(words).replace(" ", "_")))


SHARED = {"gateway", "house"}
"""Fixtures that are worth to be made once for many tests."""

MODES = os.environ.get("E2E_MODES", "root,one id,range").split(",")
MODES += ["delegated"] if has_controllers() else []


@pytest.fixture(scope="session", params=MODES)
def mode(request: pytest.FixtureRequest, _root: None) -> Iterator[User | None]:
    """Whom the gateway runs as; None is root."""
    if request.param == "root":
        yield None
        return
    with make_user(with_range=request.param != "one id") as user:
        if request.param == "delegated":
            with delegate(user) as user:
                yield user
        else:
            yield user


@pytest.fixture(scope="session")
def gateway(mode: User | None, _keep_orphans_in_sight: None) -> Iterator[Gateway]:
    """A gateway for many tests; at the end it must stop well and leave nothing."""
    running = Gateway(environment={"E2E_PRIVATE": "private-to-the-gateway"}, user=mode)
    yield running
    running.stop_and_check()


@pytest.fixture
def start(mode: User | None, _keep_orphans_in_sight: None) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways for one test alone; those it has not stopped itself are stopped and checked after it."""
    started: list[Gateway] = []

    def begin(data_dir: Path | None = None, *arguments: str, environment: dict[str, str] | None = None) -> Gateway:
        started.append(Gateway(data_dir, *arguments, environment=environment, user=mode))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.stop_and_check()


@pytest.fixture(scope="session")
def engine(_root: None) -> str:
    """Where the Docker engine for tests listens."""
    host = os.environ.get("FAAS_TEST_DOCKER_HOST")
    if not host:
        needs.skip("docker", "FAAS_TEST_DOCKER_HOST is not set (scripts/test-engine.sh starts an engine)", "tests/e2e")
        raise AssertionError("unreachable")
    return host


@pytest.fixture
def postgresql() -> Iterator[postgres.Server]:
    """A server that the test may ill-treat."""
    postgres.url()
    with tempfile.TemporaryDirectory(prefix="faas-e2e-") as directory:
        Path(directory).chmod(0o711)
        server = postgres.Server(Path(directory) / "pg")
        yield server
        server.stop()


@dataclass(frozen=True)
class Backend:
    """What instances are made on."""

    name: str
    arguments: tuple[str, ...]
    """Of the gateway."""
    create: dict[str, Any]
    """What every instance is created with."""


@pytest.fixture(scope="session", params=["native", "docker"])
def backend(request: pytest.FixtureRequest, mode: User | None) -> Backend:
    """The runtimes that have instances; Docker for a gateway of root."""
    if request.param == "native":
        return Backend("native", (), {"image": "host", "runtime": "native"})
    engine = request.getfixturevalue("engine")
    arguments = ("--docker-host", engine, "--docker-transport", "socket", "--pull", "never")
    return Backend("docker", arguments, {"image": "alpine", "runtime": "docker"})


@pytest.fixture(scope="session")
def house(backend: Backend, mode: User | None, _keep_orphans_in_sight: None) -> Iterator[Gateway]:
    """A gateway for the instances of many tests; at the end it must stop well and leave nothing."""
    running = Gateway(None, *backend.arguments, user=mode)
    yield running
    running.stop_and_check()


@pytest.fixture
def tenant(house: Gateway) -> Iterator[FaaSClient]:
    """A client for instances. Those that a test leaves are deleted, and nothing may be left of any."""
    with FaaSClient(house.url, retry=ONCE) as client:
        yield client
        nothing_is_left(client)


@pytest.fixture
def succession(backend: Backend, start: Callable[..., Gateway]) -> Iterator[Succession]:
    """Gateways on one data directory, for a test that ends one after the other."""
    gateways = Succession(start, *backend.arguments)
    yield gateways
    gateways.close()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[FaaSClient]:
    with FaaSClient(gateway.url) as client:
        yield client


@pytest.fixture
def mark() -> str:
    """A duration for `sleep` that no other process of the machine has on its command line."""
    return f"86400.{uuid.uuid4().int % 10**12:012}"
