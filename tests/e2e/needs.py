"""What a test needs of the machine, and the visible skip where it is missing; as in `crates/faas-test-support`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def skip(capability: str, reason: str, test: str) -> None:
    """Skips the running test, or fails it where skips are failures."""
    words = f"{capability}: {reason} ({test})"
    if log := os.environ.get("FAAS_SKIP_LOG"):
        with Path(log).open("a") as file:
            file.write(f"SKIP {words}\n")
    allowed = [name.strip() for name in os.environ.get("FAAS_ALLOWED_SKIPS", "").split(",")]
    if os.environ.get("FAAS_FAIL_ON_SKIP") and capability not in allowed:
        pytest.fail(f"this machine must have what the test needs: {words}")
    pytest.skip(words)
