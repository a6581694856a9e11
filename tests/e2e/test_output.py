"""Output: bytes, text, much of it, and no end of it."""

from __future__ import annotations

import base64

import pytest
from faas_sdk import ExecutionTimeoutError

MIB = 1 << 20


def test_bytes_that_are_not_utf8_are_exact_in_base64(client):
    result = client.execute(r"printf 'a\377\000b'; printf '\200' >&2")
    assert result.stdout_bytes == b"a\xff\x00b"
    assert result.stderr_bytes == b"\x80"
    assert result.stdout == "a\ufffd\x00b"
    assert base64.b64decode(result.raw["stdout_base64"]) == b"a\xff\x00b"


def test_text_comes_as_text_alone(client):
    text = 'naïve 日本語 \U0001f680 \u2028 \x00 \x1b[0m \t "quoted" \\'
    result = client.execute(["cat"], stdin=text)
    assert result.stdout == text
    assert result.stdout_base64 is None


def test_the_first_bytes_are_kept_and_the_rest_is_flagged(client):
    result = client.execute("head -c 12582912 /dev/zero | tr '\\0' x; echo small >&2", max_output_bytes=10 * MIB)
    assert result.stdout == "x" * (10 * MIB)
    assert (result.stdout_truncated, result.stderr_truncated) == (True, False)
    assert result.stderr == "small\n"
    assert result.exit_code == 0


def test_ten_mebibytes_come_whole_where_they_are_allowed(client):
    result = client.execute("head -c 10485760 /dev/zero | tr '\\0' y", max_output_bytes=10 * MIB)
    assert result.stdout == "y" * (10 * MIB)
    assert not result.stdout_truncated


def test_each_stream_has_its_own_limit(client):
    result = client.execute("echo 0123456789; echo abcdefghij >&2", max_output_bytes=4)
    assert (result.stdout, result.stderr) == ("0123", "abcd")
    assert (result.stdout_truncated, result.stderr_truncated) == (True, True)


def test_exactly_the_limit_is_not_truncated(client):
    result = client.execute("printf 01234567", max_output_bytes=8)
    assert (result.stdout, result.stdout_truncated) == ("01234567", False)


def test_a_character_cut_at_the_limit_is_exact_in_bytes(client):
    result = client.execute("printf 'é'", max_output_bytes=1)
    assert result.stdout_bytes == b"\xc3"
    assert result.stdout_truncated


def test_output_without_end_ends_at_the_timeout_and_in_the_limit(client):
    with pytest.raises(ExecutionTimeoutError) as caught:
        client.execute("yes & yes >&2", timeout_ms=3_000, max_output_bytes=1000)
    execution = caught.value.execution
    assert execution is not None
    assert (execution.stdout, execution.stderr) == ("y\n" * 500, "y\n" * 500)
    assert (execution.stdout_truncated, execution.stderr_truncated) == (True, True)


def test_a_command_that_closes_its_streams_goes_on(client):
    result = client.execute("exec >&- 2>&-; sleep 0.2; exit 5")
    assert (result.exit_code, result.stdout, result.stderr) == (5, "", "")
