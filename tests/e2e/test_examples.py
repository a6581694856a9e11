"""The examples that users copy first, as they stand; those in the documents are run by scripts/doc-examples.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import needs
from gateway import REPOSITORY

SDK = REPOSITORY / "sdk"
PYTHONPATH = os.pathsep.join([str(SDK / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
SPECIFIED_PYTHON = """\
from faas_sdk.client import FaaSClient

client = FaaSClient(base_url="http://localhost:8080")
result = client.execute("echo 'Hello!'", image="host")
print(result.stdout)
"""

SPECIFIED_TYPESCRIPT = """\
import { FaaSClient } from './sdk/typescript/src/client';

const client = new FaaSClient({ baseUrl: 'http://localhost:8080' });
const result = await client.execute('echo "Hello!"', 'host');
console.log(result.stdout);
"""


def run(command: list[str], gateway, folder: Path) -> str:
    environment = os.environ | {"FAAS_BASE_URL": gateway.url, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(source: str, gateway, folder: Path) -> str:
    source = source.replace("http://localhost:8080", gateway.url)
    return run([sys.executable, "-W", "ignore::ResourceWarning", "-c", source], gateway, folder)


def typescript(source: str, gateway, folder: Path) -> str:
    tsx = SDK / "typescript/node_modules/.bin/tsx"
    if not tsx.exists():
        needs.skip("npm-ci", f"{tsx} is not there: run npm ci in sdk/typescript", "typescript examples")
    (folder / "sdk").symlink_to(SDK)
    (folder / "example.mts").write_text(source.replace("http://localhost:8080", gateway.url))
    return run([str(tsx), "example.mts"], gateway, folder)


def test_the_specifications_python_example(gateway, tmp_path):
    assert python(SPECIFIED_PYTHON, gateway, tmp_path) == "Hello!\n\n"


def test_the_specifications_typescript_example(gateway, tmp_path):
    assert typescript(SPECIFIED_TYPESCRIPT, gateway, tmp_path) == "Hello!\n\n"


def test_the_first_command_over_curl(gateway, tmp_path):
    command = r"""curl -s localhost:8080/api/v1/execute -H 'content-type: application/json' """ + (
        r"""-d '{"command":"echo hello from $(uname -n); python3 -c \"print(2**100)\""}'"""
    )
    answer = json.loads(run(["bash", "-c", command.replace("localhost:8080", gateway.url)], gateway, tmp_path))
    greeting, number = answer["stdout"].splitlines()
    assert greeting.startswith("hello from ")
    assert greeting != f"hello from {os.uname().nodename}"
    assert number == str(2**100)


def test_the_smoke_run_passes(gateway, tmp_path):
    output = run([sys.executable, str(REPOSITORY / "test-gateway.py"), "--base-url", gateway.url], gateway, tmp_path)
    assert re.search(r"^\d+ passed, 0 failed$", output, re.MULTILINE), output


def test_the_smoke_run_fails_without_a_gateway(tmp_path):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "test-gateway.py"), "--base-url", "http://127.0.0.1:1"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert re.search(r"^\d+ passed, [1-9]\d* failed$", done.stdout, re.MULTILINE), done.stdout
