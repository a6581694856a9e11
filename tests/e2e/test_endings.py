"""How a command can end, and that nothing of it goes on afterwards."""

from __future__ import annotations

import pytest
from faas_sdk import ExecutionTimeoutError

import leftovers


@pytest.mark.parametrize("code", [0, 1, 2, 3, 42, 125, 255])
def test_exit_codes_are_the_commands(client, code):
    result = client.execute(f"exit {code}")
    assert result.exit_code == code
    assert result.ok is (code == 0)
    assert result.signal is None
    assert result.error == (None if code == 0 else f"process exited with code {code}")


@pytest.mark.parametrize(
    ("name", "number"), [("SIGKILL", 9), ("SIGTERM", 15), ("SIGSEGV", 11), ("SIGINT", 2), ("SIGABRT", 6), ("SIGHUP", 1)]
)
def test_a_signal_is_named_and_128_is_added(client, name, number):
    result = client.execute(f"kill -{number} $$")
    assert (result.exit_code, result.signal) == (128 + number, name)


@pytest.mark.parametrize("command", [["no-such-program"], ["/no/such/program"], "no-such-program"])
def test_a_program_that_is_not_found_is_127(client, command):
    result = client.execute(command)
    assert (result.exit_code, result.signal) == (127, None)
    assert "no" in result.stderr
    assert result.error == "process exited with code 127"


@pytest.mark.parametrize("command", [["/etc/passwd"], ["/tmp"], "/etc/passwd"])
def test_a_program_that_cannot_be_executed_is_126(client, command):
    result = client.execute(command)
    assert (result.exit_code, result.signal) == (126, None)
    assert result.stderr != ""


def test_a_script_without_its_interpreter_is_127_or_126_as_in_a_shell(client):
    result = client.execute(["/tmp/s"], files=[script("#!/no/such/interpreter\n")])
    assert result.exit_code in (126, 127)


def script(text):
    from faas_sdk import File

    return File(path="/tmp/s", content=text, mode=0o755)


def test_a_timeout_gives_the_output_until_then(client, mark):
    with pytest.raises(ExecutionTimeoutError) as caught:
        client.execute(f"echo out; echo err >&2; sleep {mark}", timeout_ms=2_000, request_id="e2e-timeout")
    error = caught.value
    assert (error.status, error.code, error.request_id) == (504, "execution_timeout", "e2e-timeout")
    assert "2000" in error.detail
    execution = error.execution
    assert execution is not None
    assert (execution.stdout, execution.stderr) == ("out\n", "err\n")
    assert (execution.exit_code, execution.signal) == (137, "SIGKILL")
    assert execution.request_id == "e2e-timeout"
    assert execution.duration_ms >= 2_000
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_a_timeout_ends_what_ignores_signals_and_what_left_the_session(client, mark):
    with pytest.raises(ExecutionTimeoutError):
        client.execute(
            f"trap '' TERM INT HUP; setsid sleep {mark} & setsid sh -c 'trap \"\" TERM; sleep {mark}; :' & "
            f"(sleep {mark} &) ; sleep {mark}",
            timeout_ms=2_000,
        )
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


@pytest.mark.parametrize(
    "command",
    ["sleep {} & echo begun", "setsid sleep {} & echo begun", "nohup sleep {} >/dev/null 2>&1 & echo begun"],
    ids=["holds stdout", "own session", "lets go of stdout"],
)
def test_a_background_process_neither_delays_the_answer_nor_outlives_it(client, mark, command):
    result = client.execute(command.format(mark), timeout_ms=60_000)
    assert (result.stdout, result.exit_code) == ("begun\n", 0)
    assert leftovers.eventually(lambda: leftovers.processes_with(mark)) == []


def test_zombies_are_reaped(client):
    result = client.execute(
        "for i in $(seq 50); do (sleep 0 &) ; done; for i in $(seq 100); do sleep 0.1; "
        "n=$(cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z'); [ $n = 0 ] && break; done; echo $n"
    )
    assert result.stdout.strip() == "0"
