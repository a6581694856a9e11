"""The life of an instance: what each verb does, what it refuses, and what happens when two come at once."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from faas_sdk import (
    ConflictError,
    ExecuteResult,
    ExecutionTimeoutError,
    FaaSClient,
    FaaSError,
    File,
    Instance,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    SandboxLostError,
    UnsupportedError,
)

import leftovers
import raw
from instances import (
    ALREADY,
    FILE,
    LEGAL,
    OPERATIONS,
    ask,
    assert_kept,
    bring,
    fail,
    has_cgroups,
    outcome,
    settle,
    states,
)
from succession import ONCE, nothing_is_left

HOLD = "head -c {0} /dev/zero | tail -c {0} | wc -c"
"""Holds so many bytes in memory at once."""


@pytest.fixture
def create(tenant, backend):
    """Makes an instance of the runtime."""
    return lambda **options: tenant.instances.create(**backend.create | options)


@pytest.fixture
def pausable(tenant, backend):
    if not has_cgroups(tenant, backend.name):
        with tenant.instances.create(**backend.create) as instance:
            for change in (instance.pause, lambda: instance.update(pids_limit=64)):
                with pytest.raises(UnsupportedError):
                    change()
            assert instance.exec("echo goes on").stdout == "goes on\n"
        return False
    return True


def is_gone(instance: Instance) -> list[str]:
    try:
        return [repr(instance.refresh())]
    except NotFoundError:
        return []


def stands(instance: Instance, *statuses: str) -> list[str]:
    return [] if instance.refresh().status in statuses else [repr(instance)]


def can_stand(instance: Instance, status: str, tenant, backend) -> bool:
    """Whether an instance can come to stand so here; where it cannot that is refused."""
    if status in states(tenant, backend.name):
        return True
    with pytest.raises(UnsupportedError):
        bring(instance, status)
    return False


def test_a_whole_life(tenant, create, backend, mark):
    instance = create(name="whole-life", labels={"job": "7"}, memory_mb=128, cpu_cores=0.5)
    assert (instance.status, instance.name, instance.labels) == ("running", "whole-life", {"job": "7"})
    assert (instance.info.runtime, instance.info.image) == (backend.name, backend.create["image"])
    assert (instance.info.memory_mb, instance.info.cpu_cores, instance.info.expires_at) == (128, 0.5, None)
    settle(instance, mark)
    assert instance.exec("hostname").stdout == f"{instance.id}\n"
    if has_cgroups(tenant, backend.name):
        assert instance.pause().status == "paused"
        assert instance.resume().status == "running"
    assert_kept(instance, mark)
    assert len(leftovers.pids_with(f"sleep {mark}")) == 1
    assert instance.stop().status == "stopped"
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    assert instance.start().status == "running"
    assert_kept(instance, mark)
    assert leftovers.processes_with(mark) == []
    instance.delete()
    assert is_gone(instance) == []
    # Once more is no error, and of what never was is one.
    instance.delete()
    assert raw.request(tenant.base_url, "DELETE", f"/api/v1/instances/{instance.id}", None, {}).status == 204
    with pytest.raises(NotFoundError):
        tenant.instances.delete("ins-0000000000000000")
    create(name="whole-life").delete()


def test_what_an_instance_is_created_with_is_there_for_every_command(tenant, create, backend):
    users = tenant.capabilities().runtimes[backend.name].features.get("users")
    number = "1000" if users is None or users.supported else "0"
    instance = create(
        env_vars={"A": "1", "B": "2"},
        working_dir="/tmp",
        user=f"{number}:{number}",
        files=[
            File(path="/srv/data/run", content="#!/bin/sh\necho ran\n", mode=0o755),
            File(path="rel", content=b"\xff"),
        ],
    )
    said = instance.exec("echo $A $B; pwd; id -u; id -g; /srv/data/run; od -An -tx1 rel").stdout.split()
    assert said == ["1", "2", "/tmp", number, number, "ran", "ff"]
    more = {"env_vars": {"B": "3", "C": "4"}, "working_dir": "/", "user": "0", "stdin": "in", "secrets": {"s": "quiet"}}
    said = instance.exec("echo $A $B $C; pwd; id -u; cat; cat /run/secrets/s", files={"/srv/more": "x"}, **more).stdout
    assert said == "1 3 4\n/\n0\ninquiet"
    assert instance.exec("cat /srv/more; echo $C").stdout == "x\n"


def test_a_command_in_an_instance_ends_as_in_a_sandbox_of_its_own(create, mark):
    instance = create(memory_mb=64)
    result = instance.exec("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
    assert instance.exec("kill -9 $$").signal == "SIGKILL"
    assert instance.exec(["/no/such/program"]).exit_code == 127
    assert instance.exec("head -c 5000 /dev/zero", max_output_bytes=100).stdout_truncated
    with pytest.raises(ExecutionTimeoutError) as caught:
        instance.exec(f"echo begun; sleep {mark}", timeout_ms=2_000)
    assert caught.value.execution is not None
    assert caught.value.execution.stdout == "begun\n"
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []
    with pytest.raises(InvalidRequestError):
        instance.exec("true", working_dir="/no/such/directory")
    assert instance.exec("echo fine").stdout == "fine\n"


def test_a_command_that_runs_out_of_memory_is_told_from_others(tenant, create, backend):
    if not has_cgroups(tenant, backend.name):
        return
    instance = create(memory_mb=64)
    assert instance.exec(HOLD.format(200_000_000)).oom_killed
    result = instance.exec("echo fine")
    assert (result.stdout, result.oom_killed) == ("fine\n", False)
    assert instance.refresh().status == "running"


def test_a_client_that_goes_away_cancels_its_command_and_nothing_else(house, create, mark):
    instance = create()
    settle(instance, mark)
    own = f"86400.{uuid.uuid4().int % 10**12:012}"
    body = json.dumps({"command": f"sleep {own} & sleep {own}", "timeout_ms": 600_000}).encode()
    head = (
        f"POST /api/v1/instances/{instance.id}/exec HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    parts = urlsplit(house.url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(head.encode() + body)
        missing = leftovers.eventually(
            lambda: [] if len(leftovers.pids_with(f"sleep {own}")) >= 2 else ["not both run"]
        )
        assert missing == []
    assert leftovers.eventually(lambda: leftovers.processes_with(own)) == []
    assert_kept(instance, mark)
    assert len(leftovers.pids_with(f"sleep {mark}")) == 1


@pytest.mark.parametrize("status", LEGAL)
def test_what_a_state_does_not_allow_is_a_conflict_that_says_what_it_does(tenant, create, backend, status):
    instance = create()
    if not can_stand(instance, status, tenant, backend):
        return
    bring(instance, status)
    words = ", ".join([*(o for o in OPERATIONS if o in LEGAL[status]), "delete"])
    for operation in OPERATIONS:
        if operation in LEGAL[status]:
            continue
        if operation in ALREADY[status]:
            assert ask(tenant, instance.id, operation).status == status
            continue
        with pytest.raises(ConflictError) as caught:
            ask(tenant, instance.id, operation)
        assert f"the instance is {status}" in caught.value.detail, operation
        assert caught.value.detail.endswith(f"legal now: {words}"), operation
        assert instance.refresh().status == status
    # What is said to be legal is.
    for operation in sorted(LEGAL[status] - {"stop", "pause"}):
        if operation != "update" or has_cgroups(tenant, backend.name):
            ask(tenant, instance.id, operation)


@pytest.mark.parametrize("status", LEGAL)
def test_an_instance_is_deleted_from_every_state_and_twice_at_once(tenant, create, backend, status, mark):
    instance = create()
    if not can_stand(instance, status, tenant, backend):
        return
    settle(instance, mark)
    bring(instance, status)
    with ThreadPoolExecutor(2) as pool:
        path = f"/api/v1/instances/{instance.id}"
        answers = list(pool.map(lambda _: raw.request(tenant.base_url, "DELETE", path, None, {}).status, range(2)))
    assert answers == [204, 204]
    assert is_gone(instance) == []
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_an_instance_is_deleted_while_it_is_made(tenant, create):
    for number in range(6):
        name = f"unborn-{number}"
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(outcome, create, name=name)
            while not made.done():
                for found in tenant.instances.list():
                    if found.name == name:
                        found.delete()
            assert isinstance(made.result(), NotFoundError | Instance), made.result()
        for found in tenant.instances.list():
            if found.name == name:
                found.delete()
    assert [found.name for found in tenant.instances.list()] == []


@pytest.mark.parametrize("end", ["delete", "stop", "fail"])
def test_a_command_whose_instance_ends_is_answered_at_once(tenant, create, mark, end):
    instance = create()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(outcome, instance.exec, f"sleep {mark}", timeout_ms=600_000) for _ in range(2)]
        missing = leftovers.eventually(
            lambda: [] if len(leftovers.pids_with(f"sleep {mark}")) >= 2 else ["they do not run"]
        )
        assert missing == []
        if end == "fail":
            fail(instance)
        elif end == "stop":
            instance.stop(grace_ms=0)
        else:
            instance.delete()
        for answer in waiting:
            assert isinstance(answer.result(60), SandboxLostError), answer.result()
            assert answer.result().detail
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_stop_asks_first(create):
    instance = create()
    instance.exec(
        f"(trap 'echo asked > {FILE}; exit' TERM; echo ready > /ready; while :; do sleep 0.05; done) >/dev/null 2>&1 &"
    )
    assert leftovers.eventually(lambda: [] if instance.exec("cat /ready").ok else ["not ready"]) == []
    instance.stop(grace_ms=30_000)
    assert instance.start().exec(["cat", FILE]).stdout == "asked\n"


def test_while_an_instance_is_being_stopped_nothing_runs_in_it_and_it_can_be_deleted(tenant, create, mark):
    instance = create()
    instance.exec(
        f"(trap '' TERM; echo > /ready; : {mark}; while :; do sleep 1; done) </dev/null >/dev/null 2>&1 & "
        "while [ ! -e /ready ]; do sleep 0.05; done"
    )
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(outcome, instance.stop, grace_ms=60_000)
        other = tenant.instances.get(instance.id)
        assert leftovers.eventually(lambda: stands(other, "stopping")) == []
        with pytest.raises(ConflictError, match="the instance is stopping; legal now: delete"):
            other.exec("true")
        other.delete()
        assert isinstance(stopping.result(60), NotFoundError | SandboxLostError), stopping.result()
    assert is_gone(other) == []


def test_start_begins_anew_over_the_files(create, backend):
    instance = create()
    write = (
        "mkdir -p /srv/deep && cd /srv && echo a > a && chmod 4751 a && ln a b && ln -s a c && mkfifo p && "
        "echo x > /run/gone && echo x > /dev/shm/gone && rm -f /etc/hosts"
    )
    assert instance.exec(write).ok
    look = "cd /srv && ls -ln | awk 'NR > 1 {print $1, $2, $3, $4, $9}'; cat c"
    before = instance.exec(look).stdout
    for _ in range(2):
        instance.stop().start()
        assert instance.exec(look).stdout == before
    assert not instance.exec("cat /dev/shm/gone").ok
    # A container's /run is on its disk.
    assert instance.exec("cat /run/gone").ok == (backend.name == "docker")
    assert instance.exec("hostname").stdout == f"{instance.id}\n"


def cpu_ticks(mark: str) -> int:
    """The CPU time of the processes with a mark, in clock ticks."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in leftovers.pids_with(mark)]
    return sum(int(field[11]) + int(field[12]) for field in fields)


def test_a_paused_instance_uses_no_cpu_and_goes_on_where_it_was(tenant, create, pausable, mark):
    if not pausable:
        return
    busy, idle = create(), create()
    busy.exec(f"sh -c 'while :; do :; done' {mark} </dev/null >/dev/null 2>&1 &")
    assert leftovers.eventually(lambda: [] if cpu_ticks(mark) > 2 else ["it has not run"]) == []
    busy.pause()
    before = cpu_ticks(mark)
    for _ in range(20):
        idle.exec("n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done")
    assert cpu_ticks(mark) == before
    metrics = busy.metrics()
    assert metrics.status == "paused"
    assert metrics.pids is not None
    with pytest.raises(ConflictError, match="the instance is paused; legal now: stop, resume, delete"):
        busy.exec("true")
    busy.resume()
    assert leftovers.eventually(lambda: [] if cpu_ticks(mark) > before + 2 else ["it does not run"]) == []


def test_the_time_of_a_command_does_not_run_while_its_instance_is_paused(create, pausable, mark):
    if not pausable:
        return
    instance = create()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(instance.exec, f"sh -c 'sleep 1; : {mark}'; echo done", timeout_ms=4_000)
        assert leftovers.eventually(lambda: [] if leftovers.pids_with(mark) else ["it does not run"]) == []
        instance.pause()
        # Longer than the whole of it may take.
        time.sleep(5)
        instance.resume()
        assert answer.result().stdout == "done\n"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(outcome, instance.exec, f"sleep {mark}", timeout_ms=1_000)
        assert leftovers.eventually(lambda: [] if leftovers.pids_with(mark) else ["it does not run"]) == []
        instance.pause()
        instance.resume()
        assert isinstance(answer.result(60), ExecutionTimeoutError)


def test_a_command_resumes_an_instance_that_says_so(create, pausable):
    if not pausable:
        return
    instance = create(auto_resume=True)
    instance.pause()
    assert instance.exec("echo awake").stdout == "awake\n"
    assert instance.refresh().status == "running"


def test_an_instance_whose_time_is_over_is_deleted(create):
    instance = create(ttl_ms=300)
    assert instance.info.ttl_ms == 300
    assert instance.info.expires_at is not None
    assert leftovers.eventually(lambda: is_gone(instance)) == []
    idle = create(idle_timeout_ms=300)
    assert leftovers.eventually(lambda: is_gone(idle)) == []


def test_times_can_be_set_anew_and_taken_away(create):
    instance = create(ttl_ms=600_000, idle_timeout_ms=600_000)
    first = instance.info.expires_at
    assert first is not None
    assert instance.set_timeout(ttl_ms=None).info.ttl_ms is None
    assert instance.info.idle_timeout_ms == 600_000
    assert instance.info.expires_at is not None
    assert instance.set_timeout(idle_timeout_ms=None).info.expires_at is None
    assert instance.set_timeout(ttl_ms=900_000).info.expires_at > first
    for wrong in ({}, {"ttl_ms": 0}, {"idle_timeout_ms": -1}):
        with pytest.raises(InvalidRequestError):
            instance.set_timeout(**wrong)
    assert instance.refresh().info.ttl_ms == 900_000
    instance.set_timeout(ttl_ms=1)
    assert leftovers.eventually(lambda: is_gone(instance)) == []


def test_an_instance_that_is_used_is_not_idle(create):
    instance = create(idle_timeout_ms=1_000)
    assert instance.exec("sleep 3; echo done").stdout == "done\n"
    assert leftovers.eventually(lambda: is_gone(instance)) == []


@pytest.mark.parametrize("limit", ["ttl_ms", "idle_timeout_ms"])
def test_an_instance_whose_time_is_over_is_paused_where_it_says_so(create, pausable, mark, limit):
    options = {limit: 600_000, "on_timeout": "pause", "auto_resume": True}
    if not pausable:
        with pytest.raises(UnsupportedError):
            create(**options)
        return
    instance = create(**options)
    settle(instance, mark)
    instance.set_timeout(**{limit: 700})
    for _ in range(2):
        assert leftovers.eventually(lambda: stands(instance, "paused")) == []
        assert instance.info.status_reason
        assert instance.info.expires_at is None
        assert_kept(instance, mark)
    assert len(leftovers.pids_with(f"sleep {mark}")) == 1


def test_a_start_renews_a_ttl_that_is_over(create, pausable):
    if not pausable:
        return
    instance = create(ttl_ms=600_000, on_timeout="pause")
    instance.stop()
    over = instance.set_timeout(ttl_ms=1_000).info
    # Nothing would be saved by pausing it.
    assert over.expires_at is None
    time.sleep(1.2)
    assert instance.refresh().status == "stopped"
    instance.set_timeout(ttl_ms=600_000)
    first = instance.start().info.expires_at
    assert first is not None
    instance.stop()
    instance.set_timeout(ttl_ms=60_000)
    second = instance.start().info.expires_at
    assert second is not None and second < first
    instance.stop()
    instance.set_timeout(ttl_ms=3_000)
    time.sleep(3.2)
    third = instance.start()
    assert (third.status, third.info.expires_at is not None) == ("running", True)
    assert instance.exec("echo fine").stdout == "fine\n"


def test_whoever_comes_when_an_idle_instance_is_paused_is_answered(create, pausable):
    if not pausable:
        return
    instance = create(idle_timeout_ms=300, on_timeout="pause", auto_resume=True)
    for number in range(30):
        assert instance.exec(f"echo {number}", http_timeout_s=60).stdout == f"{number}\n"
        # The clock is looked at every 250 ms.
        time.sleep(0.28 + number / 100)


def test_limits_are_changed_while_it_runs(create, pausable):
    if not pausable:
        return
    instance = create(memory_mb=256)
    hold = HOLD.format(90_000_000)
    assert instance.exec(hold).stdout.strip() == "90000000"
    assert instance.update(memory_mb=64).info.memory_mb == 64
    assert instance.exec(hold).oom_killed
    assert instance.update(memory_mb=256, cpu_cores=0.25).info.cpu_cores == 0.25
    assert instance.update(cpu_cores=1).info.cpu_cores == 1
    assert instance.exec(hold).stdout.strip() == "90000000"
    forks = "n=0; while [ $n -lt 30 ]; do sleep 5 & n=$((n+1)); done; kill $(jobs -p); wait; echo all"
    assert instance.exec(forks).stdout == "all\n"
    instance.update(pids_limit=16, cpu_cores=0.25)
    assert instance.exec(forks).stdout != "all\n"
    assert instance.metrics().pids_limit == 16
    # All or nothing; and they are kept.
    with pytest.raises(InvalidRequestError):
        instance.update(memory_mb=128, pids_limit=0)
    instance.stop().start()
    assert (instance.info.memory_mb, instance.info.pids_limit, instance.info.cpu_cores) == (256, 16, 0.25)
    assert instance.exec(forks).stdout != "all\n"


def test_a_limit_below_what_is_held_is_refused_and_changes_nothing(create, pausable):
    if not pausable:
        return
    instance = create(memory_mb=256)
    assert instance.exec("head -c 50000000 /dev/zero > /dev/shm/held").ok
    with pytest.raises(FaaSError) as caught:
        instance.update(memory_mb=32, cpu_cores=0.25)
    assert not caught.type.__name__.startswith("Internal"), caught.value
    instance.refresh()
    assert instance.info.memory_mb == 256
    assert instance.info.cpu_cores != 0.25
    assert instance.exec("wc -c < /dev/shm/held").stdout.strip() == "50000000"


def test_metrics_follow_what_it_does(tenant, create, backend):
    instance = create(memory_mb=256)
    before = instance.metrics()
    assert (before.instance_id, before.status, before.memory_limit_bytes) == (instance.id, "running", 256 << 20)
    assert instance.exec(
        "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; head -c 30000000 /dev/zero > /dev/shm/x"
    ).ok
    after = instance.metrics()
    if has_cgroups(tenant, backend.name):
        assert before.memory_bytes is not None
        assert after.memory_bytes is not None
        assert after.memory_bytes > before.memory_bytes + 25_000_000
        assert after.pids is not None
        assert after.pids >= 1
    if before.cpu_us is not None:
        assert after.cpu_us is not None
        assert after.cpu_us > before.cpu_us
    instance.stop()
    stopped = instance.metrics()
    assert (stopped.status, stopped.memory_bytes, stopped.pids) == ("stopped", None, None)


def test_a_name_is_for_one_instance(create):
    first = create(name="taken.1")
    with pytest.raises(ConflictError, match=r"taken\.1"):
        create(name="taken.1")
    first.delete()
    assert create(name="taken.1").name == "taken.1"


CREATE = "/api/v1/instances"
BAD_CREATES = [
    ("/image", {"image": ""}),
    ("/image", {"image": "a b"}),
    ("/name", {"name": ""}),
    ("/name", {"name": "-a"}),
    ("/name", {"name": "a/b"}),
    ("/name", {"name": "x" * 65}),
    ("/runtime", {"runtime": "qemu"}),
    ("/env_vars", {"env_vars": {"A=B": "1"}}),
    ("/working_dir", {"working_dir": "tmp"}),
    ("/user", {"user": "a b"}),
    ("/files/0/path", {"files": [{"path": "", "content": ""}]}),
    ("/files/0/mode", {"files": [{"path": "/a", "content": "", "mode": "9"}]}),
    ("/memory_mb", {"memory_mb": 0}),
    ("/memory_mb", {"memory_mb": 1 << 40}),
    ("/cpu_cores", {"cpu_cores": 0}),
    ("/pids_limit", {"pids_limit": 0}),
    ("/disk_mb", {"disk_mb": 0}),
    ("/network", {"network": "all"}),
    ("/ttl_ms", {"ttl_ms": 0}),
    ("/idle_timeout_ms", {"idle_timeout_ms": 10**15}),
    ("/on_timeout", {"on_timeout": "stop"}),
    ("/auto_resume", {"auto_resume": "yes"}),
    ("/labels/", {"labels": {"": "x"}}),
    ("/labels/a", {"labels": {"a": "x" * 300}}),
    ("/command", {"command": ""}),
    ("/restart", {"restart": "always"}),
]


@pytest.mark.parametrize(("pointer", "body"), BAD_CREATES)
def test_a_create_that_is_not_valid_is_refused_with_the_place(house, tenant, pointer, body):
    answer = raw.request(house.url, "POST", CREATE, json.dumps(body).encode())
    problem = raw.assert_problem(answer, 422, "invalid_request")
    assert pointer in [error["pointer"] for error in problem["errors"]], problem
    assert tenant.instances.list() == ()


def test_what_is_wrong_with_other_requests_is_told(house, tenant, create):
    instance = create()
    here = f"{CREATE}/{instance.id}"
    cases = [
        ("POST", "/exec", {}, "/command"),
        ("POST", "/exec", {"command": ""}, "/command"),
        ("POST", "/exec", {"command": "true", "timeout_ms": 0}, "/timeout_ms"),
        ("POST", "/exec", {"command": "true", "memory_mb": 64}, "/memory_mb"),
        ("POST", "/exec", {"command": "true", "stdin": "a", "stdin_base64": "YQ=="}, "/stdin_base64"),
        ("POST", "/exec", {"command": "true", "secrets": {"a/b": "x"}}, "/secrets/a~1b"),
        ("POST", "/exec", {"command": "true", "user": "nobody-of-that-name"}, "/user"),
        ("POST", "/stop", {"grace_ms": 60_001}, "/grace_ms"),
        ("POST", "/stop", {"grace": 1}, "/grace"),
        ("POST", "/start", {"now": True}, "/now"),
        ("POST", "/timeout", {}, ""),
        ("POST", "/timeout", {"ttl_ms": "1"}, "/ttl_ms"),
        ("PATCH", "", {}, ""),
        ("PATCH", "", {"disk_mb": 8}, "/disk_mb"),
        ("PATCH", "", {"memory_mb": 0}, "/memory_mb"),
    ]
    for method, rest, body, pointer in cases:
        answer = raw.request(house.url, method, here + rest, json.dumps(body).encode())
        problem = raw.assert_problem(answer, 422, "invalid_request")
        assert pointer in [error["pointer"] for error in problem["errors"]], (method, rest, body, problem)
    for method, rest in (("POST", "/exec"), ("POST", "/timeout"), ("PATCH", "")):
        raw.assert_problem(raw.request(house.url, method, here + rest, b"{", raw.JSON), 400, "invalid_request")
        raw.assert_problem(raw.request(house.url, method, here + rest, None, {}), 415, "unsupported_media_type")
    raw.assert_problem(raw.request(house.url, "POST", CREATE, None, {}), 415, "unsupported_media_type")
    for query in (
        "status=dead",
        "label=a",
        "label=a=1,b",
        "label=a=1&label=a=2",
        "limit=1&limit=2",
        "limit=0",
        "limit=1001",
        "cursor=none",
        "name=x",
    ):
        raw.assert_problem(raw.request(house.url, "GET", f"{CREATE}?{query}", None, {}), 422, "invalid_request")
    raw.assert_problem(raw.request(house.url, "PUT", here, b"{}"), 405, "method_not_allowed")
    # Of verbs whose body may be left out it may be, but not its type.
    for verb in ("stop", "start"):
        raw.assert_problem(raw.request(house.url, "POST", f"{here}/{verb}", None, {}), 415, "unsupported_media_type")
        assert raw.request(house.url, "POST", f"{here}/{verb}", None).status == 200
    assert instance.exec("echo fine").stdout == "fine\n"


def test_what_is_not_there_is_not_found(house, tenant):
    there = f"{CREATE}/ins-0123456789abcdef"
    for method, rest, body in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PATCH", "", {"pids_limit": 64}),
        ("POST", "/exec", {"command": "true"}),
        ("POST", "/stop", None),
        ("POST", "/start", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/timeout", {"ttl_ms": 1}),
        ("GET", "/metrics", None),
        ("GET", "/nothing", None),
    ]:
        sent = None if body is None else json.dumps(body).encode()
        raw.assert_problem(raw.request(house.url, method, there + rest, sent), 404, "not_found")


def test_a_list_is_asked_for_by_status_and_labels(tenant, create):
    run = uuid.uuid4().hex
    running, stopped = create(labels={"run": run, "n": "1"}), create(labels={"run": run, "n": "2", "é": "= ü"})
    other = create()
    stopped.stop(grace_ms=0)

    def found(**options):
        return {instance.id for instance in tenant.instances.list(**options)}

    assert found(labels={"run": run}) == {running.id, stopped.id}
    assert found(labels={"run": run, "n": "2"}) == {stopped.id}
    assert found(labels={"é": "= ü"}) == {stopped.id}
    assert found(labels={"run": run, "n": "3"}) == set()
    assert found(status="stopped") == {stopped.id}
    assert found(status=["stopped", "running"]) == {running.id, stopped.id, other.id}
    assert found(status="stopped", labels={"n": "1"}) == set()
    assert [instance.id for instance in tenant.instances.list(limit=2)] == [other.id, stopped.id]


def test_a_list_can_be_asked_for_any_label(house, tenant, create):
    strange = {"a,b": "x,y", "c=d": "=", "back\\slash": "\\", "plain": "1"}
    ours = create(labels=strange).id
    create(labels={"a,b": "x"})

    def asked(*labels: str) -> list[str]:
        answer = raw.request(house.url, "GET", f"{CREATE}?{urlencode([('label', label) for label in labels])}")
        assert answer.status == 200, answer
        return [found["id"] for found in answer.json]

    whole = r"a\,b=x\,y", r"c\=d==", r"back\slash=\\", "plain=1"
    assert asked(*whole) == asked(",".join(whole)) == [ours]
    assert [asked(label) for label in whole] == [[ours]] * 4
    assert [found.id for found in tenant.instances.list(labels=strange)] == [ours]
    assert asked(*whole, "plain=1", "other=2") == asked(r"a\,b=y") == []


def test_pages_neither_repeat_nor_leave_out_while_instances_come_and_go(house, create):
    made = [create() for _ in range(6)]
    seen: list[str] = []
    cursor = ""
    while True:
        answer = raw.request(house.url, "GET", f"{CREATE}?limit=2{cursor}", None, {})
        assert answer.status == 200
        seen += [instance["id"] for instance in answer.json]
        if "x-next-cursor" not in answer.headers:
            break
        cursor = f"&cursor={answer.headers['x-next-cursor']}"
        if len(seen) == 2:
            # One that was told of, the one at the cursor, one that comes next, and a new one.
            made[5].delete()
            made[4].delete()
            made[3].delete()
            create()
    assert seen == [instance.id for instance in (made[5], made[4], made[2], made[1], made[0])]


def test_fifty_commands_sixteen_at_a_time(create):
    instance = create(memory_mb=256)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: instance.exec(f"echo {n}; echo {n} >> /all; exit {n % 7}"), range(50)))
    assert [(result.stdout, result.exit_code) for result in results] == [(f"{n}\n", n % 7) for n in range(50)]
    assert sorted(int(line) for line in instance.exec("cat /all").stdout.split()) == list(range(50))


def at_once(*calls):
    """What each call gives, all begun at the same moment."""
    gate = threading.Barrier(len(calls))

    def begin(call):
        gate.wait()
        return outcome(call)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


def test_two_that_race_leave_one_truth(tenant, create, backend, mark):
    pausable = has_cgroups(tenant, backend.name)
    for _ in range(5):
        instance = create()
        other = tenant.instances.get(instance.id)
        # A command may be told of before, refused after, or lost on the way.
        stopped, ran = at_once(partial(instance.stop, grace_ms=0), partial(other.exec, "echo ran"))
        assert isinstance(stopped, Instance), stopped
        assert isinstance(ran, ExecuteResult | ConflictError | SandboxLostError), ran
        assert instance.refresh().status == "stopped"
        for started in at_once(instance.start, other.start):
            assert isinstance(started, Instance), started
            assert started.status == "running"
        assert instance.exec("ps -ef 2>/dev/null | grep -c '[a]gent' || true").ok
        if pausable:
            instance.pause()
            paused, resumed = at_once(instance.pause, other.resume)
            assert isinstance(paused, Instance), paused
            assert isinstance(resumed, Instance), resumed
            status = instance.refresh().status
            assert status in ("running", "paused")
            if status == "paused":
                instance.resume()
            assert instance.exec("echo fine").stdout == "fine\n"
        deleted, ran = at_once(instance.delete, partial(other.exec, f"sleep {mark}", timeout_ms=600_000))
        assert deleted is None
        assert isinstance(ran, NotFoundError | ConflictError | SandboxLostError), ran
        assert is_gone(other) == []
    both = at_once(lambda: create(name="one"), lambda: create(name="one"))
    assert sorted(type(result).__name__ for result in both) == ["ConflictError", "Instance"]
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_there_are_no_more_instances_than_allowed(start, backend):
    gateway = start(None, "--max-instances", "2", *backend.arguments)
    with FaaSClient(gateway.url, retry=ONCE) as client:
        made = at_once(*[lambda: client.instances.create(**backend.create)] * 4)
        refused = [result for result in made if not isinstance(result, Instance)]
        assert len(refused) == 2
        assert all(isinstance(result, QuotaExceededError) and "max_instances" in result.detail for result in refused)
        client.instances.list()[0].delete()
        client.instances.create(**backend.create)
        nothing_is_left(client)
