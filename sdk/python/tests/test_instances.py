"""Instances: what each verb sends, what it makes of the answer, on the client and on the instance itself."""

import asyncio
from urllib.parse import parse_qs

import pytest

from faas_sdk import (
    AsyncFaaSClient,
    ConflictError,
    ConnectionLostError,
    ExecutionTimeoutError,
    FaaSClient,
    File,
    NotFoundError,
    QuotaExceededError,
    ResponseFormatError,
    RetryPolicy,
    SandboxLostError,
)
from tests.conftest import QUICK
from tests.stub import Reply, execution, instance, metrics, problem

# Each verb that changes an instance: its arguments, and the method, the rest of the path and the body that it sends.
CHANGES = [
    ("stop", {}, "POST", "/stop", {}),
    ("stop", {"grace_ms": 0}, "POST", "/stop", {"grace_ms": 0}),
    ("start", {}, "POST", "/start", {}),
    ("pause", {}, "POST", "/pause", {}),
    ("resume", {}, "POST", "/resume", {}),
    ("set_timeout", {"ttl_ms": 5}, "POST", "/timeout", {"ttl_ms": 5}),
    ("set_timeout", {"ttl_ms": None}, "POST", "/timeout", {"ttl_ms": None}),
    ("set_timeout", {"idle_timeout_ms": None}, "POST", "/timeout", {"idle_timeout_ms": None}),
    ("set_timeout", {}, "POST", "/timeout", {}),
    ("update", {"memory_mb": 64}, "PATCH", "", {"memory_mb": 64}),
    ("update", {"cpu_cores": 0.25, "pids_limit": 9}, "PATCH", "", {"cpu_cores": 0.25, "pids_limit": 9}),
]


def test_create_sends_what_is_given_and_nothing_else(caller, stub):
    stub.replies(Reply(status=201, json=instance()))
    created = caller("instances.create", image="host")
    (seen,) = stub.seen
    assert (seen.method, seen.path, seen.json) == ("POST", "/api/v1/instances", {"image": "host"})
    assert seen.headers["content-type"] == "application/json"
    assert (created.id, created.name, created.status, created.labels) == ("ins-1", None, "running", {})
    assert repr(created).endswith("Instance(id='ins-1', status='running')")
    caller("instances.create")
    assert stub.seen[1].json == {}


def test_every_option_of_create_reaches_its_member(caller, stub):
    stub.replies(Reply(status=201, json=instance()))
    options = {
        "image": "alpine",
        "name": "mine",
        "runtime": "docker",
        "env_vars": {"A": "1"},
        "working_dir": "/srv",
        "user": "nobody",
        "memory_mb": 64,
        "cpu_cores": 0.5,
        "pids_limit": 32,
        "disk_mb": 16,
        "network": "egress",
        "ttl_ms": 1000,
        "idle_timeout_ms": 500,
        "on_timeout": "pause",
        "auto_resume": True,
        "command": ["serve", "-p", "80"],
        "main": True,
        "restart": "on_failure",
        "labels": {"job": "7"},
    }
    caller("instances.create", **options, files=[File(path="/a", content=b"\xff", mode=0o700)], idempotency_key="k-1")
    assert stub.seen[0].headers["idempotency-key"] == "k-1"
    assert stub.seen[0].json == options | {"files": [{"path": "/a", "content_base64": "/w==", "mode": "0700"}]}


def test_every_member_of_an_instance_is_read(caller, stub):
    body = instance(
        name="mine", status="failed", status_reason="out of memory", disk_mb=8, labels={"a": "b"}, cpu_cores=2,
        parent_id="ins-0", snapshot_id="snp-0", ttl_ms=1, idle_timeout_ms=2, expires_at="2026-01-02T03:04:06Z",
        on_timeout="pause", auto_resume=True, newer=1,
    )  # fmt: skip
    stub.replies(Reply(json=body))
    info = caller("instances.get", "ins-1").info
    assert (stub.seen[0].method, stub.seen[0].path) == ("GET", "/api/v1/instances/ins-1")
    for name in instance():
        if name != "resources":
            assert getattr(info, name) == body[name], name
    assert info.raw["newer"] == 1
    assert info.raw["resources"] == body["resources"]


@pytest.mark.parametrize(("verb", "options", "method", "rest", "body"), CHANGES)
def test_a_change_is_one_request_and_its_answer_the_instance(caller, stub, verb, options, method, rest, body):
    stub.replies(Reply(json=instance(status="stopped")))
    assert caller(f"instances.{verb}", "ins-1", **options).status == "stopped"
    (seen,) = stub.seen
    assert (seen.method, seen.path) == (method, f"/api/v1/instances/ins-1{rest}")
    assert seen.json == body


@pytest.mark.parametrize(("verb", "options", "method", "rest", "body"), CHANGES)
def test_an_instance_changes_itself_and_is_told_of_as_it_is(caller, stub, verb, options, method, rest, body):
    stub.replies(Reply(json=instance()), Reply(json=instance(status="stopped", name="mine")))
    result, changed = caller.of_instance(verb, **options)
    assert result is changed
    assert (changed.status, changed.name) == ("stopped", "mine")
    seen = stub.seen[1]
    assert (seen.method, seen.path) == (method, f"/api/v1/instances/ins-1{rest}")
    assert seen.json == body


def test_an_instance_can_be_asked_for_once_more(caller, stub):
    stub.replies(Reply(json=instance()), Reply(json=instance(status="paused")))
    result, found = caller.of_instance("refresh")
    assert result is found
    assert found.status == "paused"


def test_exec_sends_the_command_and_gives_what_execute_gives(caller, stub):
    stub.replies(Reply(json=execution(exit_code=3, error="process exited with code 3")))
    result = caller("instances.exec", "ins-1", "exit 3")
    assert (result.exit_code, result.stdout) == (3, "Hello!\n")
    (seen,) = stub.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/instances/ins-1/exec")
    assert seen.json == {"command": "exit 3"}


def test_every_option_of_exec_reaches_its_member(caller, stub):
    stub.replies(Reply(json=instance()), Reply(json=execution()))
    options = {
        "env_vars": {"A": "1"},
        "working_dir": "/srv",
        "user": "1:1",
        "secrets": {"token": "s3cret"},
        "timeout_ms": 1000,
        "max_output_bytes": 4096,
        "keep_running": True,
        "stdin_open": True,
        "labels": {"job": "7"},
    }
    result, _ = caller.of_instance(
        "exec", ["cat"], **options, stdin=b"\0", files={"a": "b"}, request_id="my-id", idempotency_key="k-1"
    )
    assert result.ok
    assert stub.seen[1].json == options | {
        "command": ["cat"],
        "stdin_base64": "AA==",
        "files": [{"path": "a", "content": "b"}],
    }
    assert (stub.seen[1].headers["x-request-id"], stub.seen[1].headers["idempotency-key"]) == ("my-id", "k-1")


@pytest.mark.parametrize("status", [202, 204])
def test_delete_has_no_result(caller, stub, status):
    stub.replies(Reply(status=status))
    assert caller("instances.delete", "ins-1") is None
    (seen,) = stub.seen
    assert (seen.method, seen.path, seen.raw) == ("DELETE", "/api/v1/instances/ins-1", b"")


def test_a_deletion_is_sent_again_where_the_connection_breaks_and_nothing_else_is(caller, stub):
    stub.replies(Reply(cut_after=-1), Reply(status=204))
    caller("instances.delete", "ins-1")
    assert len(stub.seen) == 2
    for verb, arguments in (("create", ()), ("stop", ("ins-1",)), ("exec", ("ins-1", "true"))):
        stub.seen.clear()
        stub.replies(Reply(cut_after=-1))
        with pytest.raises(ConnectionLostError):
            caller(f"instances.{verb}", *arguments)
        assert len(stub.seen) == 1, verb
    stub.replies(Reply(cut_after=-1), Reply(status=201, json=instance()))
    assert caller("instances.create", idempotency_key="k-1").id == "ins-1"


def test_metrics(caller, stub):
    body = metrics(newer=1)
    stub.replies(Reply(json=body))
    found = caller("instances.metrics", "ins-1")
    assert stub.seen[0].path == "/api/v1/instances/ins-1/metrics"
    for name in metrics():
        assert getattr(found, name) == body[name], name
    assert found.raw["newer"] == 1
    untold = {name: None for name in metrics() if name.endswith(("bytes", "_us", "pids")) and "limit" not in name}
    stub.replies(Reply(json=instance()), Reply(json=metrics(**untold)))
    found, _ = caller.of_instance("metrics")
    assert {name: getattr(found, name) for name in untold} == untold


def test_a_list_of_several_pages_is_one_list(caller, stub):
    stub.replies(
        Reply(json=[instance(id="ins-1")], headers={"x-next-cursor": "1f-ins-1"}),
        Reply(json=[instance(id="ins-2"), instance(id="ins-3")]),
    )
    assert [found.id for found in caller("instances.list")] == ["ins-1", "ins-2", "ins-3"]
    assert [seen.path.partition("?")[2] for seen in stub.seen] == ["", "cursor=1f-ins-1"]


def test_a_list_is_asked_for_by_status_and_labels(caller, stub):
    stub.replies(Reply(json=[]))
    assert caller("instances.list", status=["running", "paused"], labels={"a": "b c", "d": "e=f"}, limit=3) == ()
    assert stub.seen[0].path.partition("?")[2] == "status=running%2Cpaused&label=a%3Db+c%2Cd%3De%3Df&limit=3"
    caller("instances.list", status="failed", labels={})
    assert stub.seen[1].path.partition("?")[2] == "status=failed"


@pytest.mark.parametrize(
    ("label", "sent"),
    [({"a,b": "c"}, r"a\,b=c"), ({"a": "b,c"}, r"a=b\,c"), ({"a=b": "c=d"}, r"a\=b=c=d"), ({"\\": "\\,"}, r"\\=\\\,")],
)
def test_what_would_divide_a_label_of_a_filter_is_part_of_it(caller, stub, label, sent):
    stub.replies(Reply(json=[]))
    caller("instances.list", labels=label)
    assert parse_qs(stub.seen[0].path.partition("?")[2]) == {"label": [sent]}


def test_an_id_never_leads_to_another_path(caller, stub):
    stub.replies(Reply(json=instance()))
    for wrong in ("", ".", ".."):
        with pytest.raises(ValueError, match="which is no id"):
            caller("instances.get", wrong)
    with pytest.raises(TypeError, match="instance_id is a string, not int"):
        caller("instances.get", 7)
    assert stub.seen == []
    caller("instances.pause", "a/../b?c#d e")
    assert stub.seen[0].path == "/api/v1/instances/a%2F..%2Fb%3Fc%23d%20e/pause"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", NotFoundError),
        (409, "conflict", ConflictError),
        (429, "quota_exceeded", QuotaExceededError),
        (502, "sandbox_lost", SandboxLostError),
    ],
)
def test_a_refusal_has_its_class(caller, stub, status, code, kind):
    stub.replies(Reply(status=status, json=problem(status, code, detail="the instance is stopped; legal now: start")))
    with pytest.raises(kind, match="legal now: start"):
        caller("instances.exec", "ins-1", "true")
    assert len(stub.seen) == 1


def test_a_timeout_in_an_instance_has_the_output_so_far(caller, stub):
    stub.replies(Reply(status=504, json=problem(504, "execution_timeout", execution=execution(stdout="begun"))))
    with pytest.raises(ExecutionTimeoutError) as caught:
        caller("instances.exec", "ins-1", "true")
    assert caught.value.execution is not None
    assert caught.value.execution.stdout == "begun"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "the body is an array, not an object"),
        (instance(id=1), "/id is a number, not a string"),
        (instance(cpu_cores="1"), "/cpu_cores is a string, not a number"),
        (instance(cpu_cores=True), "/cpu_cores is a boolean, not a number"),
        (instance(labels={"a": 1}), "/labels/a is a number, not a string"),
        (instance(auto_resume=None), "/auto_resume is null, not a boolean"),
    ],
)
def test_an_instance_that_is_not_the_contracts_is_refused_with_the_place(caller, stub, body, words):
    stub.replies(Reply(json=body))
    with pytest.raises(ResponseFormatError, match=words):
        caller("instances.get", "ins-1")


@pytest.mark.parametrize("raises", [False, True])
def test_an_instance_is_deleted_at_the_end_of_its_block(caller, stub, raises):
    stub.replies(Reply(status=201, json=instance()), Reply(json=execution()), Reply(status=204))

    def blocking():
        with FaaSClient(stub.url, retry=QUICK) as client, client.instances.create() as created:
            created.exec("true")
            if raises:
                raise LookupError

    async def asynchronous():
        async with (
            AsyncFaaSClient(stub.url, retry=QUICK) as client,
            await client.instances.create() as created,
        ):
            await created.exec("true")
            if raises:
                raise LookupError

    def run():
        return blocking() if caller.kind == "sync" else asyncio.run(asynchronous())

    if raises:
        with pytest.raises(LookupError):
            run()
    else:
        run()
    assert [(seen.method, seen.path) for seen in stub.seen][2:] == [("DELETE", "/api/v1/instances/ins-1")]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"imgae": "host"}, TypeError),
        ({"files": {"a": 3}}, TypeError),
        ({"cpu_cores": float("nan")}, ValueError),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(caller, stub, options, error):
    with pytest.raises(error):
        caller("instances.create", **options)
    assert stub.seen == []


def test_a_change_waits_for_the_longest_grace_of_a_stop(stub):
    stub.replies(Reply(json=instance()))
    waits = []
    with FaaSClient(stub.url, retry=RetryPolicy(max_retries=0)) as client:
        send = client._transport.send

        def noted(call):
            waits.append(client._transport.config.http_timeout(call))
            return send(call)

        client._transport.send = noted
        client.instances.stop("ins-1", grace_ms=60_000)
        stub.replies(Reply(json=execution()))
        client.instances.exec("ins-1", "true", timeout_ms=90_000)
    assert waits == [150.0, 150.0]
