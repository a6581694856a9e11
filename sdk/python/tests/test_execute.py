"""What `execute` sends and what it makes of the answer."""

import base64
import json

import pytest

from faas_sdk import File, ResponseFormatError
from tests.stub import TIMINGS, USAGE, Reply, execution


def test_the_first_example_sends_command_and_image_and_nothing_else(caller, stub):
    result = caller.execute("echo 'Hello!'", image="alpine")
    assert result.stdout == "Hello!\n"
    (seen,) = stub.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/execute")
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["user-agent"].startswith("faas-sdk-python/")
    assert seen.json == {"command": "echo 'Hello!'", "image": "alpine"}


def test_every_option_reaches_its_member(caller, stub):
    caller.execute(
        ["python3", "-c", "print(1)"],
        image="host",
        runtime="native",
        env_vars={"A": "1", "B": "x=y"},
        working_dir="/tmp",
        user="nobody",
        stdin="in",
        files={"a.txt": "text", "b.bin": b"\x00\xff"},
        secrets={"token": "s3cret"},
        timeout_ms=1000,
        memory_mb=64,
        cpu_cores=0.5,
        pids_limit=32,
        disk_mb=16,
        network="none",
        max_output_bytes=4096,
        labels={"job": "7"},
        request_id="my-id",
    )
    assert stub.seen[0].json == {
        "command": ["python3", "-c", "print(1)"],
        "image": "host",
        "runtime": "native",
        "env_vars": {"A": "1", "B": "x=y"},
        "working_dir": "/tmp",
        "user": "nobody",
        "stdin": "in",
        "files": [{"path": "a.txt", "content": "text"}, {"path": "b.bin", "content_base64": "AP8="}],
        "secrets": {"token": "s3cret"},
        "timeout_ms": 1000,
        "memory_mb": 64,
        "cpu_cores": 0.5,
        "pids_limit": 32,
        "disk_mb": 16,
        "network": "none",
        "max_output_bytes": 4096,
        "labels": {"job": "7"},
    }
    assert stub.seen[0].headers["x-request-id"] == "my-id"


def test_files_as_objects_keep_their_modes(caller, stub):
    caller.execute(
        "x", files=[File(path="run", content="#!/bin/sh", mode=0o755), File(path="k", content=b"k", mode="0600")]
    )
    assert stub.seen[0].json["files"] == [
        {"path": "run", "content": "#!/bin/sh", "mode": "0755"},
        {"path": "k", "content_base64": "aw==", "mode": "0600"},
    ]


def test_stdin_as_bytes_goes_as_base64_and_empty_stdin_is_not_none(caller, stub):
    caller.execute("cat", stdin=b"\x00\x01")
    caller.execute("cat", stdin="")
    assert stub.seen[0].json == {"command": "cat", "stdin_base64": "AAE="}
    assert stub.seen[1].json == {"command": "cat", "stdin": ""}


def test_zero_and_empty_values_are_sent_and_not_swallowed(caller, stub):
    caller.execute("", timeout_ms=0, memory_mb=0, env_vars={}, files=[])
    assert stub.seen[0].json == {"command": "", "timeout_ms": 0, "memory_mb": 0, "env_vars": {}, "files": []}


def test_unicode_goes_both_ways(caller, stub):
    text = "naïve 日本語 \U0001f680 \u2028"
    stub.replies(Reply(json=execution(stdout=text)))
    result = caller.execute(["printf", text])
    assert stub.seen[0].json["command"][1] == text
    assert result.stdout == text
    assert result.stdout_bytes == text.encode()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"command": b"ls"}, TypeError),
        ({"command": ["ls", 1]}, TypeError),
        ({"command": None}, TypeError),
        ({"command": "x", "stdin": 3}, TypeError),
        ({"command": "x", "files": {"a": 3}}, TypeError),
        ({"command": "x", "imgae": "host"}, TypeError),
        ({"command": "x", "cpu_cores": float("nan")}, ValueError),
        ({"command": "lone \ud800"}, ValueError),
    ],
)
def test_what_cannot_be_json_is_refused_before_anything_is_sent(caller, stub, options, error):
    with pytest.raises(error):
        caller.execute(**options)
    assert stub.seen == []


def test_every_member_of_the_answer_is_read(caller, stub):
    stub.replies(
        Reply(
            json=execution(
                exit_code=137,
                signal="SIGKILL",
                stdout="a\ufffd",
                stdout_base64=base64.b64encode(b"a\xff").decode(),
                stderr="e",
                stdout_truncated=True,
                duration_ms=12,
                oom_killed=True,
                error="process exited with code 137",
            )
        )
    )
    result = caller.execute("x")
    assert (result.request_id, result.execution_id) == ("req-1", "exec-1")
    assert (result.exit_code, result.signal, result.ok) == (137, "SIGKILL", False)
    assert (result.stdout, result.stdout_bytes) == ("a\ufffd", b"a\xff")
    assert (result.stderr, result.stderr_bytes, result.stderr_base64) == ("e", b"e", None)
    assert (result.output, result.logs) == (result.stdout, result.stderr)
    assert (result.stdout_truncated, result.stderr_truncated) == (True, False)
    assert (result.duration_ms, result.runtime, result.image, result.oom_killed) == (12, "native", "host", True)
    assert result.error == "process exited with code 137"
    assert {name: getattr(result.timings, name) for name in TIMINGS} == TIMINGS
    assert {name: getattr(result.usage, name) for name in USAGE} == USAGE


def test_a_usage_that_nothing_could_tell_is_none(caller, stub):
    stub.replies(Reply(json=execution(usage={"cpu_us": None, "memory_peak_bytes": None})))
    usage = caller.execute("x").usage
    assert (usage.cpu_us, usage.memory_peak_bytes) == (None, None)


def test_members_of_a_newer_gateway_are_kept_and_no_error(caller, stub):
    stub.replies(Reply(json=execution(cold_start=True, timings=TIMINGS | {"pool_us": 3})))
    result = caller.execute("x")
    assert result.ok
    assert result.raw["cold_start"] is True


def test_a_command_that_fails_is_a_result(caller, stub):
    stub.replies(Reply(json=execution(exit_code=3, error="process exited with code 3")))
    assert caller.execute("exit 3").exit_code == 3


def test_a_huge_answer_is_read_whole(caller, stub):
    text = "x" * (40 << 20)
    stub.replies(Reply(json=execution(stdout=text)))
    assert caller.execute("x").stdout == text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>welcome</html>", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "the body is an array, not an object"),
        (json.dumps(execution(exit_code="0")).encode(), "/exit_code is a string, not a whole number"),
        (json.dumps(execution(exit_code=True)).encode(), "/exit_code is a boolean, not a whole number"),
        (json.dumps(execution(timings={"queue_us": 1})).encode(), "/timings/create_us is missing"),
        (json.dumps(execution(stdout_base64="%")).encode(), "/stdout_base64 is not base64"),
    ],
)
def test_an_answer_that_is_not_the_contracts_is_refused_with_the_place(caller, stub, body, words):
    stub.replies(Reply(body=body))
    with pytest.raises(ResponseFormatError) as caught:
        caller.execute("x")
    assert words in str(caught.value)
    assert caught.value.status == 200
    assert len(stub.seen) == 1


def test_a_redirect_is_not_followed_and_says_where_to(caller, stub):
    stub.replies(Reply(status=308, json={}, headers={"location": "https://elsewhere/"}))
    with pytest.raises(ResponseFormatError, match="https://elsewhere/"):
        caller.execute("x")
