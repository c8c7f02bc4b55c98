"""The frontend's registry of container images under `kestrelpi serve`, with curl as the client: no Docker here."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.paths import Paths
from kestrelpi.services.control import status
from tests import waiting
from tests.integration.namespaces import Namespace, network
from tests.integration.servers import serve

CONFIG = """\
cluster: test
network: {address: 10.77.0.1/24}
images: {default: {modules: [docker], options: {docker: {port: 5055}}}}
services: {nfs: {backend: none}, dhcp: {backend: none}}
"""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
URL = "http://10.77.0.1:5055/v2"


until = partial(waiting.until, seconds=60)


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that the registry's user can enter."""
    with tempfile.TemporaryDirectory(prefix="kestrelpi-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class Registry:
    """The daemon in a network of its own, and a client beside it."""

    def __init__(self, root: Path, server: Namespace, client: Namespace) -> None:
        self.paths, self.server, self.client = Paths(root), server, client
        self.process: run.Process | None = None
        self.paths.etc.mkdir(parents=True)
        self.paths.config.write_text(CONFIG)

    def start(self) -> None:
        self.process = serve(self.paths.root, self.server)
        until(self._runs, "the registry's start")

    def _runs(self) -> bool:
        try:
            return list(status(self.paths)["modules"]["running"]) == ["docker-registry"]
        except UserError:
            return False

    def stop(self) -> None:
        if self.process:
            run.stop(self.process, 60)
            self.process = None

    def curl(self, *words: str | Path) -> str:
        return self.client.run("curl", "--silent", "--show-error", "--fail-with-body", *words).stdout

    def push_blob(self, name: str, content: bytes) -> str:
        """The digest (distribution specification, pushing a blob monolithically)."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        where = self.curl("--request", "POST", "--write-out", "%header{location}", f"{URL}/{name}/blobs/uploads/")
        file = self.paths.root / "blob"
        file.write_bytes(content)
        kind = "Content-Type: application/octet-stream"
        both = "&" if "?" in where else "?"
        self.curl("--request", "PUT", "--header", kind, "--data-binary", f"@{file}", f"{where}{both}digest={digest}")
        return digest


@pytest.fixture
def registry(root: Path) -> Iterator[Registry]:
    with network("10.77.0.1/24", {"node": "dc:a6:32:00:00:01"}) as (server, clients):
        clients["node"].ip("address", "add", "10.77.0.11/24", "dev", "eth0")
        found = Registry(root, server, clients["node"])
        try:
            found.start()
            yield found
        finally:
            found.stop()


def test_an_image_is_pushed_and_pulled_also_after_a_restart(registry: Registry) -> None:
    layer, settings = b"a layer" * 1000, b'{"architecture": "arm64", "os": "linux"}'
    parts = [{"digest": registry.push_blob("fibo", one), "size": len(one)} for one in (settings, layer)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **parts[0]},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **parts[1]}],
    }
    words = ["--request", "PUT", "--header", f"Content-Type: {MANIFEST}", "--data", json.dumps(manifest)]
    registry.curl(*words, f"{URL}/fibo/manifests/1")
    registry.stop()
    registry.start()
    assert json.loads(registry.curl(f"{URL}/fibo/tags/list")) == {"name": "fibo", "tags": ["1"]}
    assert json.loads(registry.curl("--header", f"Accept: {MANIFEST}", f"{URL}/fibo/manifests/1")) == manifest
    assert registry.curl(f"{URL}/fibo/blobs/{parts[1]['digest']}").encode() == layer
    kept = registry.paths.root / "var/lib/kestrelpi/registry"
    assert kept.owner() == "docker-registry"
    assert list(kept.rglob("fibo"))


def test_it_listens_on_the_nodes_network_only(registry: Registry) -> None:
    assert registry.curl(f"{URL}/") == "{}"
    with pytest.raises(run.CommandFailed):
        registry.server.run("curl", "--silent", "--fail", "http://127.0.0.1:5055/v2/")
