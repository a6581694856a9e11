#!/usr/bin/env python3
"""Runs the examples of the documents against a server, as they stand.

A fenced block whose info string is `bash test`, `python test` or `ts test` is run from the top of the repository; it
must exit with 0. A block `text output` right after it says what it must print: each of its lines must be there, in
this order; `...` in a line stands for anything. `localhost:8080` becomes the address in FAAS_BASE_URL.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
TOP = Path(__file__).resolve().parent.parent
TIMEOUT_S = 120


def command(language: str, script: Path) -> list[str]:
    """The command that runs a block of `language`, kept in `script`."""
    match language:
        case "bash":
            return ["bash", "-euo", "pipefail", str(script)]
        case "python":
            return [sys.executable, str(script)]
        case "ts":
            return [str(TOP / "sdk/typescript/node_modules/.bin/tsx"), str(script)]
    raise SystemExit(f"no way to run a block of {language!r}")


def run(language: str, body: str, address: str) -> subprocess.CompletedProcess[str]:
    """Runs one block. TypeScript examples import by a path from the top, so that is where the script is put."""
    suffix = {"bash": ".sh", "python": ".py", "ts": ".mts"}[language]
    place = TOP if language == "ts" else None
    with tempfile.NamedTemporaryFile("w", suffix=suffix, prefix=".example-", dir=place) as script:
        script.write(body.replace("localhost:8080", address))
        script.flush()
        return subprocess.run(
            command(language, Path(script.name)),
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


def missing_line(expected: str, printed: str) -> str | None:
    """The first line of `expected` that is not in what was printed after the ones before it."""
    lines = iter(printed.splitlines())
    for wanted in expected.splitlines():
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.strip().split("...")))
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            return wanted
    return None


def main(paths: list[str]) -> int:
    """Runs all marked blocks of the documents and returns the exit code."""
    address = os.environ["FAAS_BASE_URL"].removeprefix("http://").rstrip("/")
    passed = failed = 0
    for path in paths:
        text = Path(path).read_text(encoding="utf-8")
        blocks = list(FENCE.finditer(text))
        for block, after in itertools.zip_longest(blocks, blocks[1:]):
            words = block["info"].split()
            if words[1:] != ["test"]:
                continue
            line = text.count("\n", 0, block.start()) + 1
            result = run(words[0], block["body"], address)
            expected = after["body"] if after is not None and after["info"].split() == ["text", "output"] else ""
            lost = missing_line(expected, result.stdout)
            if result.returncode == 0 and lost is None:
                passed += 1
                print(f"ok      {path}:{line} ({words[0]})")
                continue
            failed += 1
            reason = f"exit code {result.returncode}" if result.returncode else f"no line {lost!r}"
            print(f"FAILED  {path}:{line} ({words[0]}): {reason}\n{result.stdout}")
    print(f"{passed} examples passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
