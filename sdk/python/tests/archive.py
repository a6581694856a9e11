"""Archives of images as `docker save` writes them, for the tests that talk to a gateway."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping


def tar(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    """A tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def saved(files: Mapping[str, bytes], *names: str, architecture: str) -> bytes:
    """An image of one layer with these files, all of them executable."""
    layer = tar(files, 0o755)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": list(names), "Layers": ["layer.tar"]}]
    return tar(
        {
            "layer.tar": layer,
            "config.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(manifest).encode(),
        }
    )
