"""Each member of an ExecuteRequest does what it promises."""

from __future__ import annotations

import pytest
from faas_sdk import File

import raw


def test_a_string_is_run_by_the_shell_and_an_array_as_it_is(client):
    assert client.execute("echo $((6 * 7))").stdout == "42\n"
    assert client.execute(["echo", "$((6 * 7))", "a b"]).stdout == "$((6 * 7)) a b\n"


def test_the_answer_is_whole(client):
    result = client.execute("echo out; echo err >&2", request_id="e2e-1")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert (result.exit_code, result.signal, result.error, result.oom_killed) == (0, None, None, False)
    assert (result.stdout_truncated, result.stderr_truncated) == (False, False)
    assert (result.stdout_base64, result.stderr_base64) == (None, None)
    assert (result.runtime, result.image, result.request_id) == ("native", "host", "e2e-1")
    assert result.execution_id
    assert result.duration_ms >= 1
    assert result.timings.exec_us >= 1
    assert (result.raw["output"], result.raw["logs"]) == ("out\n", "err\n")


def test_executions_have_ids_of_their_own(client):
    results = [client.execute("true") for _ in range(3)]
    assert len({result.execution_id for result in results}) == 3
    assert len({result.request_id for result in results}) == 3


@pytest.mark.parametrize(
    "env_vars",
    [
        {"A": "1", "B": "x=y", "EMPTY": ""},
        [["A", "0"], ["A", "1"], ["B", "x=y"], ["EMPTY", ""]],
        ["A=1", "B=x=y", "EMPTY="],
    ],
    ids=["object", "pairs", "strings"],
)
def test_env_vars_in_three_forms(gateway, env_vars):
    answer = raw.execute(gateway.url, {"command": 'echo "$A $B ${EMPTY-unset}"', "env_vars": env_vars})
    assert answer.status == 200, answer
    assert answer.json["stdout"] == "1 x=y \n"


def test_env_vars_are_added_to_the_images_and_may_replace_them(client):
    assert client.execute("echo $PATH", env_vars={"X": "1"}).stdout == "/usr/local/bin:/usr/bin:/bin\n"
    assert client.execute(["/bin/sh", "-c", "echo $PATH"], env_vars={"PATH": "/nowhere"}).stdout == "/nowhere\n"


def test_env_vars_hold_unicode_line_breaks_and_spaces(client):
    value = "naïve 日本語\n two  spaces '\" $HOME \\"
    assert client.execute(["printenv", "V"], env_vars={"V": value}).stdout == value + "\n"


def test_the_working_directory(client):
    assert client.execute("pwd").stdout == "/\n"
    assert client.execute("pwd", working_dir="/tmp").stdout == "/tmp\n"


def test_stdin_as_text_and_as_bytes(client):
    assert client.execute("cat", stdin="héllo\n").stdout == "héllo\n"
    every_byte = bytes(range(256))
    assert client.execute("cat", stdin=every_byte).stdout_bytes == every_byte
    assert client.execute("cat; echo end", stdin="").stdout == "end\n"


def test_without_stdin_a_reader_sees_its_end(client):
    assert client.execute("cat; echo end").stdout == "end\n"


def test_much_stdin_reaches_a_reader_and_does_not_hang_one_that_does_not_read(client):
    much = b"0123456789abcdef" * (4 << 16)
    assert client.execute("wc -c", stdin=much).stdout.strip() == str(len(much))
    assert client.execute("true", stdin=much).ok
    assert client.execute("head -c 3", stdin=much).stdout == "012"


def test_files_are_there_before_the_command_runs(client):
    result = client.execute(
        "cat relative deep/er/file; stat -c %a /tmp/script relative; /tmp/script; od -An -tx1 bytes; "
        "cat 'ünïcode name'",
        working_dir="/tmp",
        files=[
            File(path="relative", content="1\n"),
            File(path="/tmp/deep/er/file", content="2\n"),
            File(path="/tmp/script", content="#!/bin/sh\necho 3\n", mode=0o755),
            File(path="bytes", content=b"\x00\xff\n"),
            File(path="ünïcode name", content="4\n"),
        ],
    )
    assert result.stderr == ""
    assert result.stdout == "1\n2\n755\n644\n3\n 00 ff 0a\n4\n"


def test_many_files_and_a_big_one(client):
    files = {f"/tmp/many/{n}": f"{n}\n" for n in range(500)} | {"/tmp/big": b"z" * (4 << 20)}
    result = client.execute("cat /tmp/many/* | sort -n | tail -1; ls /tmp/many | wc -l; wc -c < /tmp/big", files=files)
    assert result.stdout.split() == ["499", "500", str(4 << 20)]


def test_an_input_file_cannot_leave_the_sandbox(client):
    result = client.execute("ls /tmp", files={"/tmp/../../../../../../tmp/e2e-outside": "x"})
    assert result.stdout == "e2e-outside\n"


@pytest.mark.modes("root", "range", "delegated")
@pytest.mark.parametrize(("user", "ids"), [("nobody", "65534:65534"), ("1234", "1234:"), ("1234:5678", "1234:5678")])
def test_the_user(client, user, ids):
    result = client.execute("echo $(id -u):$(id -g)", user=user)
    assert result.stdout.startswith(ids), result


def test_without_a_user_the_command_is_root_of_its_sandbox(client):
    assert client.execute("id -u; echo $HOME").stdout == "0\n/root\n"


@pytest.mark.modes("root", "range", "delegated")
def test_files_belong_to_the_user(client):
    result = client.execute(
        "stat -c %U f; echo more >> f && cat f", user="nobody", working_dir="/tmp", files={"f": "x\n"}
    )
    assert result.stdout == "nobody\nx\nmore\n"


@pytest.mark.modes("root", "range", "delegated")
@pytest.mark.parametrize("user", [None, "nobody"])
def test_secrets_are_files_on_a_tmpfs_for_the_user_alone(client, user):
    result = client.execute(
        "cat /run/secrets/token; echo; stat -c '%u %a' /run/secrets/token; id -u; stat -f -c %T /run/secrets/token; "
        "env; cat /proc/self/cmdline",
        user=user,
        secrets={"token": "s3cret-value", "other": "x"},
    )
    value, owner, uid, filesystem, *rest = result.stdout.split("\n")
    assert value == "s3cret-value"
    assert owner.split()[0] == uid
    assert int(owner.split()[1], 8) & 0o077 == 0
    assert filesystem == "tmpfs"
    assert "s3cret-value" not in "".join(rest)


@pytest.mark.modes("root", "range", "delegated")
def test_another_user_of_the_sandbox_cannot_read_a_secret(client):
    result = client.execute(
        ["python3", "-c", "import os; os.setgid(4321); os.setuid(4321); print(open('/run/secrets/token').read())"],
        secrets={"token": "s3cret-value"},
    )
    assert not result.ok
    assert "Permission" in result.stderr
    assert "s3cret-value" not in result.stdout


def test_secrets_do_not_reach_the_log(client, gateway):
    client.execute("true", secrets={"token": "s3cret-not-for-the-log"}, env_vars={"E": "env-not-for-the-log"})
    assert "s3cret-not-for-the-log" not in gateway.log.read_text()
    assert "env-not-for-the-log" not in gateway.log.read_text()


def test_labels_are_taken(client):
    assert client.execute("true", labels={"team": "a", "jöb": "7"}).ok


def test_each_execution_has_a_sandbox_of_its_own(client):
    assert client.execute("echo x > /tmp/here; echo y > /var/tmp/there; hostname").ok
    assert client.execute("ls -A /tmp /var/tmp /root").stdout == "/root:\n\n/tmp:\n\n/var/tmp:\n"
    assert client.execute("hostname").stdout != client.execute("hostname").stdout
