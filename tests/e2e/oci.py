"""Images as archives: OCI layouts and what `docker save` writes, made from archives of their layers.

The forms are those of the OCI image specification 1.1 ("Image Layout") and of moby's image specification 1.2.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: Mapping[str, bytes], mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> bytes:
    """A tar with these files. A name that ends with `/` is a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode = 0o755 if name.endswith("/") else mode
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(data)
            entry.uid, entry.gid = owner
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class Image:
    """An image: its layers, the lowest first, and what it says of its programs (`Env`, `WorkingDir`, `User`)."""

    def __init__(
        self, layers: Iterable[bytes], config: Mapping[str, Any] | None = None, architecture: str = "amd64"
    ) -> None:
        self.layers = list(layers)
        self.config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": config or {},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in self.layers]},
            }
        ).encode()
        self.blobs = {}
        self.described = [self._add(gzip.compress(layer, 1, mtime=0), LAYER_GZIP) for layer in self.layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._add(self.config, CONFIG),
            "layers": self.described,
        }
        self.manifest = self._add(json.dumps(manifest).encode(), MANIFEST)

    @property
    def id(self) -> str:
        return digest(self.config)

    def _add(self, data: bytes, kind: str) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def layout(self, name: str | None = None) -> bytes:
        """An OCI layout as a tar."""
        annotations = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [self.manifest | annotations]}
        files = {f"blobs/sha256/{key.removeprefix('sha256:')}": blob for key, blob in self.blobs.items()}
        files |= {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        return tar(files)

    def saved(self, *names: str) -> bytes:
        """What `docker save` writes."""
        layers = {f"{number}/layer.tar": layer for number, layer in enumerate(self.layers)}
        manifest = [{"Config": "config.json", "RepoTags": list(names), "Layers": list(layers)}]
        return tar(layers | {"config.json": self.config, "manifest.json": json.dumps(manifest).encode()})
