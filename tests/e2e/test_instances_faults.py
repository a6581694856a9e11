"""Instances whose server, launcher, first process or agent is killed: what a client was told is so afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faas_sdk import ConflictError, ExecuteResult, FaaSClient, FaaSError, Instance, TransportError

import leftovers
from executions import log_of
from gateway import Gateway
from instances import (
    FILE,
    LEGAL,
    agents_below,
    assert_kept,
    bring,
    first_process,
    has_cgroups,
    is_alive,
    outcome,
    settle,
    states,
)
from succession import ONCE, nothing_is_left

ENDS = {"killed": Gateway.kill, "asked to end": lambda gateway: gateway.stop()}


@pytest.fixture
def create(succession, backend):
    """Makes an instance with the gateway that runs now."""
    return lambda **options: succession.client.instances.create(**backend.create | options)


def awake(instance: Instance) -> Instance:
    """The same, running."""
    match instance.refresh().status:
        case "paused":
            return instance.resume()
        case "stopped" | "failed":
            return instance.start()
    assert instance.status == "running", instance.info
    return instance


@pytest.mark.parametrize("end", ENDS)
def test_instances_outlive_a_server_in_their_states(succession, create, backend, mark, end):
    stands = {}
    for number, status in enumerate(states(succession.client, backend.name)):
        instance = create(name=f"kept-{status}", labels={"n": str(number)}, ttl_ms=3_600_000, auto_resume=False)
        settle(instance, f"{mark}{number}")
        bring(instance, status)
        stands[number] = (status, instance.refresh().info)
    for _ in range(2):
        before = {number: leftovers.pids_with(f"sleep {mark}{number}") for number in stands}
        client = succession.next(ENDS[end])
        assert client.leaks() == ()
        listed = {instance.id: instance.info for instance in client.instances.list()}
        assert sorted(listed) == sorted(info.id for _, info in stands.values())
        for number, (status, told) in stands.items():
            info = listed[told.id]
            assert (info.status, info.name, info.labels, info.expires_at) == (
                status, told.name, told.labels, told.expires_at,
            ), info  # fmt: skip
            # The very same processes.
            assert leftovers.pids_with(f"sleep {mark}{number}") == before[number]
            assert len(before[number]) == (1 if status in ("running", "paused") else 0)
    for number, (status, told) in stands.items():
        instance = client.instances.get(told.id)
        for operation in ("resume", "start"):
            if operation in LEGAL[status]:
                getattr(instance, operation)()
        assert_kept(instance, f"{mark}{number}")
        assert instance.exec("hostname").stdout == f"{told.id}\n"


def test_a_server_that_ends_leaves_instances_running_and_a_later_one_removes_them(succession, create, mark):
    instance = create()
    settle(instance, mark)
    gateway = succession.gateway
    assert gateway.stop() == 0, gateway.log_text()
    assert len(leftovers.pids_with(f"sleep {mark}")) == 1
    client = succession.next()
    client.instances.delete(instance.id)
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    client.instances.delete(instance.id)
    client = succession.next()
    # What was deleted stays so, and is still known to have been there.
    client.instances.delete(instance.id)
    assert client.instances.list() == ()


@pytest.mark.parametrize("operation", ["create", "exec", "pause", "resume", "stop", "start", "delete"])
def test_a_server_killed_in_the_middle_leaves_what_it_told_and_nothing_else(
    succession, create, backend, mark, operation
):
    if operation in ("pause", "resume") and not has_cgroups(succession.client, backend.name):
        operation = "exec"
    for number in range(5):
        kept = create(name=f"kept-{number}")
        settle(kept, f"{mark}{number}")
        match operation:
            case "resume":
                kept.pause()
            case "start":
                kept.stop(grace_ms=0)
        calls = {
            "create": lambda number=number: create(name=f"new-{number}"),
            "exec": lambda kept=kept: kept.exec("sleep 0.02; echo said"),
            "stop": lambda kept=kept: kept.stop(grace_ms=50),
        }
        call = calls.get(operation) or getattr(kept, operation)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(outcome, call)
            time.sleep(0.012 * number)
            succession.gateway.kill()
            told = answer.result()
        assert isinstance(told, Instance | ExecuteResult | TransportError | None), told
        client = succession.next()
        assert leftovers.eventually(lambda client=client: half_made(client)) == []
        there = {instance.name: instance for instance in client.instances.list()}
        if operation == "create":
            # One that was told of is there; another one may be, and then it is whole.
            assert f"new-{number}" in there or not isinstance(told, Instance)
            if new := there.get(f"new-{number}"):
                assert new.exec("echo whole").stdout == "whole\n"
                new.delete()
        if operation == "delete":
            assert kept.name not in there or told is not None
            if kept.name in there:
                there[kept.name].delete()
            assert leftovers.eventually(lambda number=number: leftovers.processes_with(f"{mark}{number}")) == []
            continue
        kept = there[f"kept-{number}"]
        allowed = {
            "create": {"running"},
            "exec": {"running"},
            "pause": {"running", "paused"},
            "resume": {"running", "paused"},
            "stop": {"running", "stopped"},
            "start": {"running", "stopped"},
        }[operation]
        assert kept.status in allowed, kept.info
        if isinstance(told, Instance) and operation != "create":
            assert kept.status == told.status
        has_process = kept.status in ("running", "paused") and operation not in ("start",)
        assert len(leftovers.pids_with(f"sleep {mark}{number}")) == int(has_process), kept.info
        assert_kept(awake(kept), f"{mark}{number}")
        kept.delete()
        assert leftovers.eventually(lambda number=number: leftovers.processes_with(f"{mark}{number}")) == []


def half_made(client) -> list[str]:
    """What a new server still removes of what the one before it had begun."""
    left = [repr(found) for found in client.instances.list(status=["creating", "stopping"])]
    return left + [str(leak) for leak in client.leaks()]


def test_a_server_killed_under_many_commands_and_creates_leaves_nothing_half(succession, create, mark):
    kept = create()
    settle(kept, mark)
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(outcome, create) for _ in range(4)]
            answers += [pool.submit(outcome, kept.exec, "echo said") for _ in range(4)]
            time.sleep(0.05)
            succession.gateway.kill()
            told = [answer.result() for answer in answers]
        client = succession.next()
        there = {instance.id: instance for instance in client.instances.list()}
        for instance in told:
            if isinstance(instance, Instance):
                assert instance.id in there
        assert leftovers.eventually(lambda client=client: half_made(client)) == []
        there = {instance.id: instance for instance in client.instances.list()}
        for instance in there.values():
            assert instance.exec("echo whole").stdout == "whole\n"
        kept = there[kept.id]
        assert_kept(kept, mark)
        assert len(leftovers.pids_with(f"sleep {mark}")) == 1
        for instance in there.values():
            if instance.id != kept.id:
                instance.delete()


def launchers(gateway: Gateway) -> list[int]:
    """The processes that make the gateway's native sandboxes."""
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    found = []
    for pid in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "faas-launcher" in Path(f"/proc/{pid}/comm").read_text():
                found.append(int(pid))
    return found


def newest_launcher(gateway: Gateway) -> int:
    return max(
        launchers(gateway), key=lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    )


def test_a_killed_launcher_ends_at_most_what_the_host_lets_it(succession, create, backend, mark):
    if backend.name != "native":
        return
    instance = create()
    settle(instance, mark)
    victim = newest_launcher(succession.gateway)
    os.kill(victim, signal.SIGKILL)
    assert leftovers.eventually(lambda: is_alive(victim)) == []
    if has_cgroups(succession.client, backend.name):
        assert_kept(instance, mark)
        assert len(leftovers.pids_with(f"sleep {mark}")) == 1
        assert instance.refresh().status == "running"
    else:
        assert leftovers.eventually(lambda: [] if instance.refresh().status == "failed" else [instance.status]) == []
        assert instance.info.status_reason
        assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
        assert_kept(instance.start(), mark)
    # Others are made as before, and the next server finds all of them.
    other = create()
    assert other.exec("echo fine").stdout == "fine\n"
    client = succession.next()
    for found in (instance, other):
        assert client.instances.get(found.id).status == "running"
    assert_kept(client.instances.get(instance.id), mark)
    assert leftovers.eventually(lambda: [str(leak) for leak in client.leaks()]) == []


def test_an_instance_whose_first_process_is_killed_has_failed_and_can_be_started(succession, create, mark):
    instance = create()
    settle(instance, mark)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(outcome, instance.exec, f"sleep {mark}7", timeout_ms=600_000)
        assert leftovers.eventually(lambda: [] if leftovers.pids_with(f"sleep {mark}7") else ["it does not run"]) == []
        os.kill(first_process(mark), signal.SIGKILL)
        assert getattr(waiting.result(60), "code", None) == "sandbox_lost", waiting.result()
    assert leftovers.eventually(lambda: [] if instance.refresh().status == "failed" else [instance.status]) == []
    assert instance.info.status_reason
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    with pytest.raises(ConflictError, match=r"the instance is failed \(.+\); legal now: start, delete"):
        instance.exec("true")
    # The next server says the same.
    reason = instance.info.status_reason
    instance = succession.next().instances.get(instance.id)
    assert (instance.status, instance.info.status_reason) == ("failed", reason)
    assert_kept(instance.start(), mark)


def test_an_instance_whose_first_process_is_killed_without_a_server_has_failed(succession, create, mark):
    instance = create()
    settle(instance, mark)
    init = first_process(mark)
    succession.gateway.kill()
    os.kill(init, signal.SIGKILL)
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    instance = succession.next().instances.get(instance.id)
    assert instance.status == "failed"
    assert instance.info.status_reason
    assert_kept(instance.start(), mark)


def test_an_instance_whose_agent_is_killed_goes_on(succession, create, mark):
    instance = create()
    settle(instance, mark)
    for _ in range(3):
        agent = agent_of(mark)
        os.kill(agent, signal.SIGKILL)
        assert leftovers.eventually(lambda agent=agent: is_alive(agent)) == []
        # Another one comes; until then a command is refused and not left hanging.
        answers = []

        def refused(answers: list[object] = answers) -> list[object]:
            answers.append(outcome(instance.exec, "true"))
            return [] if isinstance(answers[-1], ExecuteResult) else answers[-1:]

        assert leftovers.eventually(refused) == []
        # A gateway of none of the sandbox's users may come in the moment in which the next one's socket is made.
        assert [answer for answer in answers if "Permission denied" in str(answer)] == []
        assert_kept(instance, mark)
        assert len(leftovers.pids_with(f"sleep {mark}")) == 1
        assert instance.refresh().status == "running"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(outcome, instance.exec, f"sleep {mark}7", timeout_ms=600_000)
        assert leftovers.eventually(lambda: [] if leftovers.pids_with(f"sleep {mark}7") else ["it does not run"]) == []
        os.kill(agent_of(mark), signal.SIGKILL)
        answer = waiting.result(60)
        assert isinstance(answer, FaaSError), answer
        assert answer.code == "sandbox_lost", answer
    assert instance.refresh().status == "running"
    # A server that is killed while there is none finds another.
    os.kill(agent_of(mark), signal.SIGKILL)
    client = succession.next()
    assert_kept(client.instances.get(instance.id), mark)


def test_an_agent_that_was_stopped_holds_up_nobody(create, mark):
    instance, other = create(), create()
    settle(instance, mark)
    os.kill(agent_of(mark), signal.SIGSTOP)
    # More than wait for an agent at most.
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: outcome(instance.exec, "true", timeout_ms=100), range(100)))
    assert {answer.code for answer in answers} <= {"execution_timeout", "sandbox_lost"}, answers
    assert other.exec("echo fine").stdout == "fine\n"
    assert instance.stop(grace_ms=100).status == "stopped"
    assert_kept(instance.start(), mark)


def test_time_in_which_an_instance_is_paused_does_not_count_over_a_restart(succession, create, backend, mark):
    if not has_cgroups(succession.client, backend.name):
        return
    instance = create()
    execution = instance.exec(f"sleep {mark}", background=True, timeout_ms=6_000)
    instance.pause()
    time.sleep(7)
    client = succession.next()
    instance = client.instances.get(instance.id).resume()
    # Its agent has had time to end it.
    assert instance.exec("echo fine").stdout == "fine\n"
    assert client.executions.get(execution.id).status == "running"


def agent_of(mark: str) -> int:
    """The PID on the host of the agent beside a process."""
    first = first_process(mark)
    assert leftovers.eventually(lambda: [] if agents_below(first) else [f"no agent below {first}"]) == []
    return agents_below(first)[0]


def test_files_that_were_written_before_the_kill_are_there(succession, create):
    instance = create()
    assert instance.exec(f"i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done > {FILE}").ok
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(outcome, instance.exec, "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null")
        succession.gateway.kill()
        writing.result()
    instance = succession.next().instances.get(instance.id)
    assert instance.exec(f"wc -l < {FILE}; tail -1 {FILE}").stdout.split() == ["2000", "1999"]


@pytest.mark.modes("root")
def test_without_its_postgresql_a_gateway_changes_nothing_and_then_tells_what_is(start, postgresql, mark):
    gateway = start(None, "--database-url", postgresql.url)
    with FaaSClient(gateway.url, retry=ONCE) as client:
        names = ["runs", "stopping", "pausing", "paused", "stopped", "limits", "doomed"]
        instances = {name: client.instances.create(image="host", runtime="native", name=name) for name in names}
        for number, name in enumerate(names):
            settle(instances[name], f"{mark}{number}")
        instances["paused"].pause()
        instances["stopped"].stop(grace_ms=0)
        execution = instances["runs"].exec("until [ -e /go ]; do sleep 0.05; done; echo went", background=True)
        had = instances["limits"].info.pids_limit
        postgresql.halt()
        calls = {
            "create": outcome(client.instances.create, image="host", runtime="native"),
            "stop": outcome(instances["stopping"].stop, grace_ms=0),
            "pause": outcome(instances["pausing"].pause),
            "resume": outcome(instances["paused"].resume),
            "start": outcome(instances["stopped"].start),
            "update": outcome(instances["limits"].update, pids_limit=had + 7),
        }
        told = {name: getattr(call, "code", call) for name, call in calls.items()}
        assert set(told.values()) <= {"overloaded", "runtime_unavailable"}, told
        # What ends with its request is in no store.
        assert instances["runs"].exec("echo fine").stdout == "fine\n"
        # It is under way, whatever the store says.
        outcome(instances["doomed"].delete)
        client.instances.files(instances["runs"].id).write("/go", b"")
        postgresql.start()

        def unlike() -> list[str]:
            """Those of which something is told that is not so."""
            is_so = {"running": True, "paused": False, "stopped": None}
            found = []
            for number, name in enumerate(names[:-1]):
                status = instances[name].refresh().status
                processes = leftovers.pids_with(f"sleep {mark}{number}")
                stands = goes_on(processes[0]) if processes else None
                if stands != is_so.get(status, "unsettled"):
                    found.append(f"{name} is {status}, and its process {processes} goes on: {stands}")
            return found

        assert leftovers.eventually(unlike) == []
        assert leftovers.eventually(lambda: [repr(i) for i in client.instances.list() if i.name == "doomed"]) == []
        ends = leftovers.eventually(lambda: [] if execution.refresh().status == "exited" else [execution.status])
        assert ends == [], ends
        assert log_of(execution.stream(offset=0))[0] == b"went\n"
        limits = instances["limits"].metrics().pids_limit, instances["limits"].info.pids_limit
        assert limits == (had, had)
        for number, name in enumerate(names[:-1]):
            assert_kept(awake(instances[name]), f"{mark}{number}")
        nothing_is_left(client)


def goes_on(pid: int) -> bool:
    """Whether a process is not held by the freezer of its cgroup, of version 2 (kernel: cgroup-v2.rst)."""
    (place,) = [line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    beside = Path("/sys/fs/cgroup/unified")  # where version 1 has the rest
    events = Path(f"{beside if beside.exists() else '/sys/fs/cgroup'}{place}/cgroup.events").read_text()
    return "frozen 0" in events.splitlines()
