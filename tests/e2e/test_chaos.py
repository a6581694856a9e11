"""Random work on instances from several threads, with everything that can be killed killed in between.

The test keeps its own model of what it was told. At the end every instance that it was told exists is there with its
file and, unless it was stopped, its background process; every execution in the background that nobody disturbed still
runs, with its output whole; every other is gone; and nothing is left on the host.
FAAS_SOAK_SECONDS says how long (default: 30). FAAS_CHAOS_SEED repeats the choices of an earlier run.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faas_sdk import (
    ConflictError,
    FaaSClient,
    FaaSError,
    Instance,
    InsufficientStorageError,
    NotFoundError,
    OutputEvent,
    OverloadedError,
    SandboxLostError,
    StartedEvent,
    TransportError,
)

import leftovers
import postgres
from gateway import Gateway
from instances import FILE, agents_below, has_cgroups, is_alive, number_inside
from succession import ONCE, Succession
from test_instances_faults import launchers

COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.3; done"

SECONDS = float(os.environ.get("FAAS_SOAK_SECONDS", "30"))
THREADS = 4
EACH = 3
"""How many instances a thread has at the most."""


@dataclass
class Known:
    """What a thread was told of one of its instances."""

    id: str
    mark: str
    status: str | None = "running"
    """None: an answer did not come, so it may stand before or after the change."""
    settled: bool = False
    """Whether its file and its process were there."""
    may_have_failed: bool = False
    """Whether its launcher was killed where that ends what it keeps."""
    execution: str | None = None
    """One that runs in the background and counts."""
    disturbed: bool = False
    """Whether that may have ended: its instance was stopped, or its agent killed."""


@dataclass
class Model:
    """What one thread was told."""

    known: dict[str, Known] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    """Whose deletion was asked for and not answered."""
    done: int = 0
    failures: list[str] = field(default_factory=list)


class Chaos:
    """The threads and the one that kills."""

    def __init__(self, succession: Succession, create: dict[str, object], runtime: str, seed: int) -> None:
        self.succession = succession
        self.create = create
        self.random = random.Random(seed)  # noqa: S311 - repeatable
        self.url = succession.gateway.url
        self.cgroups = has_cgroups(succession.client, runtime)
        self.stop = threading.Event()
        self.models = [Model() for _ in range(THREADS)]
        self.launchers_killed = 0
        """Of those that end with what they keep; counted before any is killed."""
        self.names = secrets.token_hex(4)

    def have_all_done_more_than(self, counts: list[int]) -> bool:
        return all(model.done > count for model, count in zip(self.models, counts, strict=True))

    def client(self) -> FaaSClient:
        return FaaSClient(self.url, retry=ONCE, http_timeout_s=120)

    def work(self, number: int, seed: int) -> None:
        """One thread's work, until it is told to stop."""
        model, choose = self.models[number], random.Random(seed)  # noqa: S311 - repeatable
        while not self.stop.is_set():
            with self.client() as client:
                url = self.url
                while not self.stop.is_set() and url == self.url:
                    try:
                        self.step(client, model, choose, number)
                        model.done += 1
                    except TransportError:
                        break  # the server was killed; the next one has another address
                    except (OverloadedError, InsufficientStorageError):
                        continue
                    except (FaaSError, AssertionError) as error:
                        model.failures.append(f"thread {number}: {error!r}")
                        return
            # Until there is another one.
            self.stop.wait(0.02)

    def step(self, client: FaaSClient, model: Model, choose: random.Random, number: int) -> None:
        if not model.known or (len(model.known) < EACH and choose.random() < 0.2):
            self.make(client, model, choose, number)
            return
        known = choose.choice(list(model.known.values()))
        instance = client.instances.get(known.id)
        self.check(instance, known)
        if not known.settled and known.status == "running":
            with contextlib.suppress(SandboxLostError):
                self.settle(instance, known)
            return
        kinds = ["exec", "background", "pause", "resume", "stop", "start", "delete"]
        kind = choose.choices(kinds, [8, 4, 3, 3, 2, 3, 1])[0]
        if kind in ("pause", "resume") and not self.cgroups:
            kind = "exec"
        if kind == "delete":
            model.known.pop(known.id)
            model.doubtful.add(known.id)
            instance.delete()
            model.doubtful.discard(known.id)
            model.deleted.add(known.id)
            return
        leads_to = {"pause": "paused", "resume": "running", "stop": "stopped", "start": "running"}.get(kind)
        before, known.status = known.status, None if leads_to else known.status
        try:
            if kind == "exec":
                if known.settled:
                    assert instance.exec(["cat", FILE]).stdout == f"{known.mark}\n", instance
                else:
                    instance.exec("true")
            elif kind == "background":
                if known.execution is None:
                    known.execution = instance.exec(COUNT, background=True).id
                else:
                    counted(client, known.execution)
            elif kind == "stop":
                known.disturbed = True
                instance.stop(grace_ms=choose.choice([0, 20]))
            else:
                getattr(instance, kind)()
            if leads_to:
                known.status = leads_to
                assert instance.status == leads_to, instance
        except ConflictError:
            # Where it stands does not allow it, so nothing was changed.
            known.status = before
            is_legal = known.status == "running" and kind in ("exec", "background", "pause", "stop")
            if is_legal and not self.may_end(known):
                raise
        except SandboxLostError:
            # Its agent was killed under the command, or all of it.
            known.status = None if self.may_end(known) else before
            if kind in ("resume", "stop", "pause") and not self.may_end(known):
                raise

    def make(self, client: FaaSClient, model: Model, choose: random.Random, number: int) -> None:
        name = f"{self.names}-{number}-{choose.getrandbits(48):012x}"
        mark = f"86400.{choose.getrandbits(39):012}"
        killed = self.launchers_killed
        try:
            instance = client.instances.create(name=name, memory_mb=64, **self.create)
        except SandboxLostError:
            return  # its launcher was killed meanwhile; then there is none
        known = Known(instance.id, mark)
        model.known[instance.id] = known
        # One that was killed meanwhile may be its own.
        if self.launchers_killed != killed:
            known.may_have_failed = True
        with contextlib.suppress(SandboxLostError):  # its agent was killed; it is tried again
            self.settle(instance, known)

    def settle(self, instance: Instance, known: Known) -> None:
        try:
            done = instance.exec(
                # Whole or not at all, wherever its agent is killed.
                f"[ -e {FILE} ] || {{ echo {known.mark} > {FILE}.new && mv {FILE}.new {FILE} && "
                f"{{ sleep {known.mark} </dev/null >/dev/null 2>&1 & }}; }}"
            )
        except ConflictError:
            # It has failed since it was seen running.
            if not self.may_end(known):
                raise
            return
        assert done.ok, done
        known.settled = True

    def may_end(self, known: Known) -> bool:
        return known.may_have_failed

    def check(self, instance: Instance, known: Known) -> None:
        """Where it is said to stand is where it was told to."""
        if known.status is None:
            known.status = instance.status if instance.status in ("running", "paused", "stopped") else None
        if instance.status == "failed":
            assert known.may_have_failed, instance.info
            known.status = "failed"
        elif known.status is not None and known.status != "failed":
            assert instance.status == known.status, (instance.info, known)

    def kill(self) -> None:
        """Kills one thing or another."""
        kind = self.random.choices(["server", "polite", "launcher", "agent"], [4, 1, 2, 3])[0]
        gateway = self.succession.gateway
        match kind:
            case "server" | "polite":
                self.succession.next(Gateway.kill if kind == "server" else Gateway.stop)
                self.url = self.succession.gateway.url
            case "launcher":
                found = launchers(gateway)
                if not found:
                    return
                if not self.cgroups:
                    self.launchers_killed += 1
                    for model in self.models:
                        for known in list(model.known.values()):
                            known.may_have_failed = True
                victim = self.random.choice(found)
                os.kill(victim, signal.SIGKILL)
                leftovers.eventually(lambda: is_alive(victim))
            case "agent":
                firsts = self.first_processes()
                if firsts:
                    first, id_ = self.random.choice(firsts)
                    for known in [known for model in self.models for known in list(model.known.values())]:
                        known.disturbed |= known.id == id_
                    for agent in agents_below(first):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(agent, signal.SIGKILL)

    def first_processes(self) -> list[tuple[int, str]]:
        """The first process of each instance of this test, and the instance's id, which is its host name."""
        ours = {known.id for model in self.models for known in list(model.known.values())}
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdigit()
                    and (entry / "comm").read_text() == "agent\n"
                    and number_inside(entry.name) == 1
                    and (id_ := (entry / "root/etc/hostname").read_text().strip()) in ours
                ):
                    found.append((int(entry.name), id_))
        return found


def counted(client: FaaSClient, execution: str) -> str:
    """The status of an execution that counts, whose output is whole so far."""
    started = client.executions.get(execution)
    log, most = b"", started.info.next_offset
    assert started.info.first_offset == 0, started.info
    if most > 0:
        with contextlib.closing(started.stream(offset=0)) as events:
            for event in events:
                assert isinstance(event, (StartedEvent, OutputEvent)), event
                if isinstance(event, OutputEvent):
                    assert event.offset == len(log), event
                    log += event.data
                if len(log) >= most:
                    break
    numbers = [int(line) for line in log.split(b"\n")[:-1]]
    assert numbers == list(range(len(numbers))), log
    return started.status


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """What the gateway keeps its rows in, as its arguments."""
    if request.param == "sqlite":
        yield ()
        return
    with postgres.database(postgres.url()) as url:
        yield ("--database-url", url)


def test_what_was_told_is_so_whatever_is_killed(
    start: Callable[..., Gateway], backend, database: tuple[str, ...]
) -> None:
    seed = int(os.environ.get("FAAS_CHAOS_SEED") or secrets.randbits(32))
    print(f"FAAS_CHAOS_SEED={seed}")  # shown where the test fails
    succession = Succession(start, *backend.arguments, *database)
    try:
        chaos = Chaos(succession, backend.create, backend.name, seed)
        threads = [threading.Thread(target=chaos.work, args=(n, seed + n)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        while time.monotonic() < begun + SECONDS and not chaos.have_all_done_more_than([0] * THREADS):
            time.sleep(0.01)
        # A slow machine has more time between what is killed, or nothing would ever be done.
        slowness = max(1.0, time.monotonic() - begun)
        at_first = [model.done for model in chaos.models]
        while time.monotonic() < begun + SECONDS and not any(model.failures for model in chaos.models):
            chaos.stop.wait(chaos.random.uniform(0.3, 2.5) * slowness)
            chaos.kill()
        chaos.stop.set()
        for thread in threads:
            thread.join()
        # The last word has the last server.
        client = succession.next()
        assert_told(client, chaos)
        assert chaos.have_all_done_more_than(at_first), ([model.done for model in chaos.models], at_first)
    finally:
        succession.close()


def assert_told(client: FaaSClient, chaos: Chaos) -> None:
    failures = [failure for model in chaos.models for failure in model.failures]
    assert not failures, "\n".join([*failures, *chaos.succession.errors()])
    known = {known.id: known for model in chaos.models for known in model.known.values()}
    deleted = {id_ for model in chaos.models for id_ in model.deleted}
    doubtful = {id_ for model in chaos.models for id_ in model.doubtful}

    def still_there() -> list[str]:
        return [
            repr(found)
            for found in client.instances.list()
            if found.id in deleted or (found.id in doubtful and found.status == "stopping")
        ]

    assert leftovers.eventually(still_there) == []
    there = {found.id: found for found in client.instances.list()}
    assert sorted(set(known) - set(there)) == []
    for one in known.values():
        instance = there[one.id]
        chaos.check(instance, one)
        if instance.status in ("running", "paused") and one.settled and not one.may_have_failed:
            runs = leftovers.pids_with(f"sleep {one.mark}")
            # One that was started again has none.
            assert len(runs) <= 1, runs
        if one.execution is not None:
            status = counted(client, one.execution)
            if not one.disturbed and not one.may_have_failed:
                assert status == "running", (client.executions.get(one.execution).info, one)
        match instance.status:
            case "paused":
                instance.resume()
            case "stopped" | "failed":
                instance.start()
        if one.settled:
            assert instance.exec(["cat", FILE]).stdout == f"{one.mark}\n", instance
    for id_ in deleted:
        with pytest.raises(NotFoundError):
            client.instances.get(id_)
        client.instances.delete(id_)
    assert leftovers.eventually(lambda: [str(leak) for leak in client.leaks()]) == []
