"""A registry on loopback (Debian's docker-registry), and how images come to it.

The requests are those of the OCI distribution specification 1.1.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import leftovers
import needs
import oci
import raw
from gateway import Gateway

USER, PASSWORD = "someone", "pass:word"


class Registry:
    """A running registry."""

    def __init__(self, directory: Path, *, with_login: bool) -> None:
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.name = f"localhost:{free.getsockname()[1]}"
        self.headers = {}
        auth = ""
        if with_login:
            line = subprocess.run(["htpasswd", "-nbB", USER, PASSWORD], check=True, capture_output=True).stdout
            (directory / "htpasswd").write_bytes(line)
            auth = f"auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n"
            self.headers = {"authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        (directory / "config.yml").write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: {self.name}, secret: of-the-tests}}\n" + auth
        )
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(directory / "config.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        assert leftovers.eventually(self._is_silent) == [], self._log.read_text()

    def _is_silent(self) -> list[str]:
        try:
            raw.request(self.url, "GET", "/v2/", headers={})
        except OSError as error:
            assert self.process.poll() is None, self._log.read_text()
            return [str(error)]
        return []

    @property
    def url(self) -> str:
        return f"http://{self.name}"

    def push(self, image: oci.Image, repository: str, tag: str = "latest") -> str:
        """Brings an image there; its name."""
        for digest, blob in image.blobs.items():
            if digest == image.manifest["digest"]:
                continue
            begun = raw.request(self.url, "POST", f"/v2/{repository}/blobs/uploads/", headers=self.headers)
            assert begun.status == 202, begun
            place = urlsplit(begun.headers["location"])
            path = f"{place.path}?{place.query}&digest={digest}"
            headers = {"content-type": "application/octet-stream", **self.headers}
            done = raw.request(self.url, "PUT", path, blob, headers)
            assert done.status == 201, done
        headers = {"content-type": oci.MANIFEST, **self.headers}
        manifest = image.blobs[image.manifest["digest"]]
        done = raw.request(self.url, "PUT", f"/v2/{repository}/manifests/{tag}", manifest, headers)
        assert done.status == 201, done
        return f"{self.name}/{repository}:{tag}"

    def file_of(self, digest: str) -> Path:
        """Where the registry keeps a blob."""
        digits = digest.removeprefix("sha256:")
        return self.directory / "data/docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"

    def times_fetched(self, digest: str) -> int:
        """How often a blob has been asked for."""
        asked = re.compile(rf'"GET /v2/\S+/blobs/{digest} HTTP')
        return len(asked.findall(self._log.read_text(errors="replace")))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def serve(*, with_login: bool = False) -> Iterator[Registry]:
    """Starts a registry, and ends it afterwards."""
    for program in ("docker-registry", "htpasswd"):
        if shutil.which(program) is None:
            needs.skip("docker-registry", f"{program} is not installed", "tests/e2e")
    directory = Path(tempfile.mkdtemp(prefix="faas-e2e-registry-"))
    try:
        registry = Registry(directory, with_login=with_login)
        # It is no gateway's leftover.
        Gateway.running.add(registry.process.pid)
        try:
            yield registry
        finally:
            registry.stop()
            Gateway.running.discard(registry.process.pid)
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def proxy(registry: Registry) -> Iterator[tuple[str, list[str]]]:
    """A proxy that asks this registry whatever host it is asked for: its address, and the URLs that it was asked."""
    asked: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            parts = urlsplit(self.path)
            headers = {name: value for name, value in self.headers.items() if name.lower() in ("accept", "range")}
            answer = raw.request(registry.url, "GET", f"{parts.path}?{parts.query}", headers=headers)
            self.send_response(answer.status)
            for name in ("content-type", "docker-content-digest"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *arguments: object) -> None:
            """It says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            serving.join()
