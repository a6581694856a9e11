#!/usr/bin/env python3
"""Smoke run against a running gateway: one line for each check, exit code 1 when any fails.

Needs the Python SDK (`sdk/python`, found beside this file or installed) and its one dependency, httpx2.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent / "sdk" / "python"))

try:
    from faas_sdk import ExecutionTimeoutError, ImageUnavailableError, InvalidRequestError, UnsupportedError
    from faas_sdk.client import AsyncFaaSClient, FaaSClient
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run `pip install ./sdk/python` first, in a virtual environment")

Check = Callable[[FaaSClient], None]
E = TypeVar("E", bound=Exception)
CHECKS: list[tuple[str, Check, str | None]] = []


def check(name: str, needs: str | None = None) -> Callable[[Check], Check]:
    """Adds a function to the checks; `needs` names the limit or feature without which it says nothing."""

    def add(function: Check) -> Check:
        CHECKS.append((name, function, needs))
        return function

    return add


def missing(client: FaaSClient, needs: str | None) -> str | None:
    """Why the default runtime does not have what a check needs, if it does not."""
    capabilities = client.capabilities()
    if needs is None or capabilities.default_runtime is None:
        return None
    runtime = capabilities.runtimes[capabilities.default_runtime]
    support = runtime.features.get(needs) or getattr(runtime.limits, needs)
    return None if support.supported else support.detail


def expect(found: object, wanted: object) -> None:
    """Fails the check when the two differ."""
    if found != wanted:
        raise AssertionError(f"{found!r}, not {wanted!r}")


def expect_error(kind: type[E], call: Callable[[], object]) -> E:
    """Fails the check when the call does not raise this error; the error."""
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {result!r}")


@check("health")
def _(client: FaaSClient) -> None:
    health = client.health()
    if health.status not in ("healthy", "degraded"):
        raise AssertionError(f"the gateway is {health.status}: {health.runtimes}")


@check("liveness and readiness")
def _(client: FaaSClient) -> None:
    for path in ("/livez", "/readyz"):
        with urllib.request.urlopen(client.base_url + path, timeout=30) as answer:
            expect(answer.status, 200)


@check("version")
def _(client: FaaSClient) -> None:
    expect(client.version().version, client.health().version)


@check("capabilities: the default runtime is available")
def _(client: FaaSClient) -> None:
    capabilities = client.capabilities()
    if capabilities.default_runtime is None:
        raise AssertionError(f"no runtime is available: {capabilities.runtimes}")
    expect(capabilities.runtimes[capabilities.default_runtime].available, True)


@check("the contract is served at /openapi.json")
def _(client: FaaSClient) -> None:
    with urllib.request.urlopen(client.base_url + "/openapi.json", timeout=30) as answer:
        expect(answer.headers.get_content_type(), "application/json")


@check("a shell command")
def _(client: FaaSClient) -> None:
    result = client.execute("echo 'Hello!'", image="host")
    expect((result.stdout, result.stderr, result.exit_code), ("Hello!\n", "", 0))


@check("an argument list, not given to a shell")
def _(client: FaaSClient) -> None:
    expect(client.execute(["echo", "$HOME", "a  b"]).stdout, "$HOME a  b\n")


@check("exit code and standard error of a failing command")
def _(client: FaaSClient) -> None:
    result = client.execute("echo oops >&2; exit 3")
    expect((result.exit_code, result.stderr, result.error), (3, "oops\n", "process exited with code 3"))


@check("a command that is not found is 127")
def _(client: FaaSClient) -> None:
    expect(client.execute(["no-such-program"]).exit_code, 127)


@check("a signal is named")
def _(client: FaaSClient) -> None:
    result = client.execute("kill -9 $$")
    expect((result.exit_code, result.signal), (137, "SIGKILL"))


@check("environment, working directory and user", needs="users")
def _(client: FaaSClient) -> None:
    result = client.execute('echo "$A $PWD $(id -un)"', env_vars={"A": "1"}, working_dir="/tmp", user="nobody")
    expect(result.stdout, "1 /tmp nobody\n")


@check("standard input and output, byte for byte")
def _(client: FaaSClient) -> None:
    every_byte = bytes(range(256))
    expect(client.execute("cat", stdin=every_byte).stdout_bytes, every_byte)


@check("files and secrets")
def _(client: FaaSClient) -> None:
    result = client.execute(
        "cat in.txt /run/secrets/token", working_dir="/tmp", files={"in.txt": "1 "}, secrets={"token": "2"}
    )
    expect(result.stdout, "1 2")


@check("unicode")
def _(client: FaaSClient) -> None:
    text = "naïve 日本語 \U0001f680"
    expect(client.execute(["printf", "%s", text]).stdout, text)


@check("output is truncated and flagged")
def _(client: FaaSClient) -> None:
    result = client.execute("echo 0123456789", max_output_bytes=4)
    expect((result.stdout, result.stdout_truncated), ("0123", True))


@check("a timeout carries the output so far")
def _(client: FaaSClient) -> None:
    error = expect_error(ExecutionTimeoutError, lambda: client.execute("echo begun; sleep 600", timeout_ms=500))
    expect(error.execution and error.execution.stdout, "begun\n")


@check("too much memory is reported as such", needs="memory")
def _(client: FaaSClient) -> None:
    result = client.execute(["python3", "-c", "x = b'x' * (400 << 20)"], memory_mb=64)
    expect(result.oom_killed, True)


@check("python3, node, awk and git, where this host has them")
def _(client: FaaSClient) -> None:
    result = client.execute(
        "! command -v python3 >/dev/null || test $(python3 -c 'print(2**10)') = 1024 || echo python3; "
        "! command -v node >/dev/null || test $(node -p 2**10) = 1024 || echo node; "
        "! command -v awk >/dev/null || test $(echo 2 3 | awk '{print $1*$2}') = 6 || echo awk; "
        "! command -v git >/dev/null || git init -q /tmp/r || echo git"
    )
    expect((result.stdout, result.exit_code), ("", 0))


@check("nothing private of the host is in sight")
def _(client: FaaSClient) -> None:
    result = client.execute("ls -A /root /home; test ! -e /etc/shadow && echo no shadow; find /run/ -type s")
    expect(result.stdout, "/home:\n\n/root:\nno shadow\n")


@check("no trace of one execution in the next")
def _(client: FaaSClient) -> None:
    client.execute("echo x > /tmp/trace")
    expect(client.execute("ls -A /tmp").stdout, "")


@check("what is not valid is refused, member by member")
def _(client: FaaSClient) -> None:
    error = expect_error(InvalidRequestError, lambda: client.execute("true", memory_mb=0))
    expect([field.pointer for field in error.errors], ["/memory_mb"])
    expect_error(InvalidRequestError, lambda: client.execute(""))


@check("an unknown image is refused")
def _(client: FaaSClient) -> None:
    expect_error(ImageUnavailableError, lambda: client.execute("true", image="no-such-image"))


@check("what this version does not do is refused with the reason")
def _(client: FaaSClient) -> None:
    expect_error(UnsupportedError, lambda: client.execute("true", network="egress"))


@check("errors are problem+json")
def _(client: FaaSClient) -> None:
    request = urllib.request.Request(client.base_url + "/no/such/route")
    error = expect_error(urllib.error.HTTPError, lambda: urllib.request.urlopen(request, timeout=30))
    with error:
        expect((error.code, error.headers.get_content_type()), (404, "application/problem+json"))


@check("thirty-two at once, each with its own output")
def _(client: FaaSClient) -> None:
    async def together() -> list[str]:
        async with AsyncFaaSClient(client.base_url) as other:
            return [result.stdout for result in await asyncio.gather(*(other.execute(f"echo {n}") for n in range(32)))]

    expect(asyncio.run(together()), [f"{n}\n" for n in range(32)])


def main() -> int:
    """Runs all checks; the exit code."""
    parser = argparse.ArgumentParser(description="Smoke run against a running gateway.")
    parser.add_argument("url", nargs="?", help="where the gateway is")
    parser.add_argument("--base-url", help="the same (default: FAAS_BASE_URL, or http://localhost:8080)")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of each failure")
    arguments = parser.parse_args()
    passed = failed = 0
    with FaaSClient(arguments.base_url or arguments.url) as client:
        for name, function, needs in CHECKS:
            began = time.monotonic()
            try:
                if reason := missing(client, needs):
                    print(f"not here  {name}: {reason}")
                    continue
                function(client)
            except Exception as error:
                failed += 1
                print(f"FAIL  {name}: {type(error).__name__}: {error}")
                if arguments.verbose:
                    traceback.print_exc()
            else:
                passed += 1
                print(f"ok    {name} ({(time.monotonic() - began) * 1000:.0f} ms)")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
