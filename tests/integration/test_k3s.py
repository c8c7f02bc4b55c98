"""k3s from fetching to joining, with a stand-in for k3s that writes down how it is called and what it finds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images.fetched import own_arch
from kestrelpi.paths import Paths, data_dir
from kestrelpi.services.control import status
from tests.integration.namespaces import Namespace, network
from tests.integration.servers import serve
from tests.integration.test_cluster_services import until
from tests.program import program

VERSION = "v0.0.1+test1"
STAND_IN = """#!/usr/bin/python3
import hashlib, json, os, socket, sys, time
config = open(sys.argv[sys.argv.index("--config") + 1]).read()
told = dict(line.split(": ", 1) for line in config.splitlines() if ": " in line and not line.startswith(("#", " ")))
token = open(told["agent-token-file"]).read()
server = told["data-dir"] + "/server"
os.makedirs(server, exist_ok=True)
with open(server + "/agent-token", "w") as out:
    out.write("K10" + hashlib.sha256(b"certificate").hexdigest() + "::node:" + token + chr(10))
record = {"argv": sys.argv[1:], "config": config, "kubeconfig": os.environ["KUBECONFIG"], "uid": os.getuid()}
record["pid"] = os.getpid()
with open(told["data-dir"] + "/called.json.new", "w") as out:
    json.dump(record, out)
os.rename(told["data-dir"] + "/called.json.new", told["data-dir"] + "/called.json")
listener = socket.create_server((told["bind-address"], int(told["https-listen-port"])))
while True:
    listener.accept()[0].close()
"""
CONTENTS = {
    "k3s": STAND_IN.encode(),
    "k3s-arm64": STAND_IN.encode() + b"# for a Pi\n",
    "k3s-airgap-images-arm64.tar.zst": b"images" * 100_000,
}
CONFIG = """\
cluster: test
network: {{address: 10.77.0.1/24}}
images: {{default: {{modules: [k3s], options: {{k3s: {{{options}}}}}}}}}
services: {{nfs: {{backend: none}}, dhcp: {{backend: none}}}}
"""


NODE = 'nodes:\n  rpi1: {mac: "dc:a6:32:00:00:01", group: rpi, address: 10.77.0.11}\n'


def sha256(name: str) -> str:
    return hashlib.sha256(CONTENTS[name]).hexdigest()


@dataclass
class Releases:
    """A web server with one release, and what was asked of it."""

    contents: dict[str, bytes] = field(default_factory=lambda: dict(CONTENTS))
    breaks_at: int = 0
    """Bytes after which an answer breaks off; 0: it doesn't."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and range."""
    port: int = 0


class Handler(BaseHTTPRequestHandler):
    def __init__(self, releases: Releases, *rest: object) -> None:
        self.releases = releases
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        span = self.headers.get("Range", "")
        self.releases.asked.append((self.path, span))
        folder, _, name = self.path.rpartition("/")
        content = self.releases.contents.get(name)
        if content is None or folder != "/releases/v0.0.1%2Btest1":
            self.send_error(404)
            return
        begins = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(content) - begins))
        if span:
            self.send_header("Content-Range", f"bytes {begins}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[begins : self.releases.breaks_at or None])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def releases() -> Iterator[Releases]:
    found = Releases()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, found))
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def paths(tmp_path: Path, releases: Releases) -> Paths:
    """A frontend whose k3s comes from the test's web server: the user's module.yaml replaces ours."""
    paths = Paths(tmp_path / "root")
    folder = paths.etc / "modules/k3s"
    folder.mkdir(parents=True)
    text = (data_dir() / "modules/k3s/module.yaml").read_text()
    old = "https://github.com/k3s-io/k3s/releases/download/"
    assert text.count(old) == 6
    (folder / "module.yaml").write_text(text.replace(old, f"http://127.0.0.1:{releases.port}/releases/"))
    configure(paths)
    return paths


def configure(paths: Paths, **options: str) -> None:
    wanted = {
        "version": VERSION,
        "sha256_amd64": sha256("k3s"),
        "sha256_arm64": sha256("k3s-arm64"),
        "sha256_images": sha256("k3s-airgap-images-arm64.tar.zst"),
        **options,
    }
    paths.config.write_text(CONFIG.format(options=", ".join(f"{name}: {value}" for name, value in wanted.items())))


def kestrelpi(paths: Paths, *words: str | Path) -> str:
    argv = program(paths.root, "--json", *words)
    return run.run(argv, cwd=data_dir(), timeout=120).stdout


def cached(paths: Paths) -> dict[str, bytes]:
    found = (paths.cache / "fetched").rglob("*")
    return {path.name: path.read_bytes() for path in found if path.is_file() and path.name != "lock"}


def wanted_files() -> dict[str, bytes]:
    names = ["k3s-arm64", "k3s-airgap-images-arm64.tar.zst", *(["k3s"] if own_arch() == "amd64" else [])]
    return {name: CONTENTS[name] for name in names}


def test_all_files_are_fetched_once(paths: Paths, releases: Releases) -> None:
    states = {one["name"]: one["state"] for one in json.loads(kestrelpi(paths, "modules", "fetch", "--plan"))}
    assert set(states.values()) == {"wanted"}
    assert releases.asked == []
    done = json.loads(kestrelpi(paths, "modules", "fetch"))
    assert [one["new"] for one in done] == [True] * len(wanted_files())
    assert cached(paths) == wanted_files()
    asked = list(releases.asked)
    assert {one["new"] for one in json.loads(kestrelpi(paths, "modules", "fetch"))} == {False}
    assert releases.asked == asked


def test_an_interrupted_fetch_goes_on(paths: Paths, releases: Releases) -> None:
    releases.breaks_at = 500
    with pytest.raises(run.CommandFailed, match="ended with status 1") as caught:
        kestrelpi(paths, "modules", "fetch")
    assert "goes on from there" in caught.value.detail
    releases.breaks_at = 0
    kestrelpi(paths, "modules", "fetch")
    assert cached(paths) == wanted_files()
    assert any(span == "bytes=500-" for _, span in releases.asked)


def test_a_file_with_another_hash_is_refused(paths: Paths, releases: Releases) -> None:
    releases.contents["k3s-arm64"] = b"#!/bin/sh\nmalice\n"
    with pytest.raises(run.CommandFailed) as caught:
        kestrelpi(paths, "modules", "fetch")
    assert sha256("k3s-arm64") in caught.value.detail
    assert hashlib.sha256(releases.contents["k3s-arm64"]).hexdigest() in caught.value.detail
    assert "k3s-arm64" not in cached(paths)


def test_a_version_that_the_publisher_does_not_have(paths: Paths) -> None:
    configure(paths, version="v0.0.2+test1")
    with pytest.raises(run.CommandFailed) as caught:
        kestrelpi(paths, "modules", "fetch")
    assert "the server says 404" in caught.value.detail
    assert "--from" in caught.value.detail


def test_a_frontend_without_internet_takes_them_from_a_folder(paths: Paths, releases: Releases, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    for name, content in CONTENTS.items():
        (stick / name).write_bytes(content)
    kestrelpi(paths, "modules", "fetch", "--from", stick)
    assert releases.asked == []
    assert cached(paths) == wanted_files()


class Server:
    """`kestrelpi serve` in a network of its own."""

    def __init__(self, paths: Paths, network: Namespace) -> None:
        self.paths, self.network = paths, network
        self.process = serve(paths.root, network)

    def modules(self) -> dict[str, object]:
        try:
            return dict(status(self.paths)["modules"])
        except UserError:
            return {}

    def runs(self) -> bool:
        running = self.modules().get("running", [])
        return isinstance(running, list) and "k3s" in running

    def called(self) -> dict[str, object]:
        """How the stand-in was called last."""
        found: dict[str, object] = json.loads((self.paths.root / "var/lib/rancher/k3s/called.json").read_text())
        return found

    def __str__(self) -> str:
        logs = [self.paths.root / "serve.log", *sorted(self.paths.log.glob("*.log"))]
        return "\n".join(log.read_text() for log in logs)


@pytest.fixture
def server(paths: Paths) -> Iterator[Server]:
    with network("10.77.0.1/24", {}) as (namespace, _):
        found = Server(paths, namespace)
        try:
            yield found
        finally:
            run.stop(found.process, 60)


def test_the_server_waits_for_its_file_and_is_called_as_documented(server: Server, paths: Paths) -> None:
    until(lambda: "k3s" in str(server.modules().get("failed")), server)
    assert "kestrelpi modules fetch k3s" in str(server.modules()["failed"])
    kestrelpi(paths, "modules", "fetch")
    paths.registry.write_text(NODE)  # any change is a reason to try again before the half minute is over
    until(server.runs, server)
    called = server.called()
    # docs.k3s.io/installation/configuration: --config names the file; docs.k3s.io/cli/server has its keys.
    assert called["argv"] == ["server", "--config", f"{paths.root}/etc/rancher/k3s/config.yaml"]
    assert (called["uid"], called["kubeconfig"]) == (0, f"{paths.root}/etc/rancher/k3s/k3s.yaml")
    told = yaml.safe_load(str(called["config"]))
    assert told["bind-address"] == "10.77.0.1"
    assert told["disable-agent"] is True
    token = (paths.root / "etc/rancher/k3s/agent-token").read_text()
    assert len(bytes.fromhex(token)) == 32
    assert (paths.root / "etc/rancher/k3s/agent-token").stat().st_mode & 0o777 == 0o400


def test_a_file_that_was_changed_while_it_ran_is_not_started_again(server: Server, paths: Paths) -> None:
    kestrelpi(paths, "modules", "fetch")
    until(server.runs, server)
    name = {"amd64": "k3s"}.get(own_arch(), "k3s-arm64")
    file = next(path for path in (paths.cache / "fetched").rglob(name))
    shutil.copy(file, file.with_name("new"))
    with file.with_name("new").open("ab") as out:
        out.write(b"# changed\n")
    file.with_name("new").rename(file)
    pid = int(str(server.called()["pid"]))
    os.kill(pid, signal.SIGKILL)
    until(lambda: "is refused" in (paths.log / "k3s.log").read_text(), server)
    assert sha256(name) in (paths.log / "k3s.log").read_text()
    assert server.called()["pid"] == pid


def test_the_job_of_fibo_has_no_field_that_kubernetes_does_not_know(tmp_path: Path) -> None:
    job = data_dir() / "modules/openmp/jobs/fibo-job.yaml"
    assert unknown(job) == []
    bad = tmp_path / "bad.yaml"
    bad.write_text(job.read_text().replace("backoffLimit", "backofLimit"))
    assert unknown(bad) == ["spec.backofLimit"]


def unknown(manifest: Path) -> list[str]:
    """What kubectl leaves out when it reads a manifest as the kind that it is; with --local it asks no server."""
    argv: list[str | Path] = [
        "kubectl",
        "set",
        "image",
        "--local",
        "--dry-run=client",
        "-o",
        "json",
        "-f",
        manifest,
        "fibo=fibo:2",
    ]
    read = json.loads(run.run(argv).stdout)
    return list(missing(yaml.safe_load(manifest.read_text()), read, ""))


def missing(wanted: object, found: object, path: str) -> Iterator[str]:
    """The paths of `wanted` that `found` doesn't have."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if key not in found:
                yield f"{path}{key}"
            else:
                yield from missing(value, found[key], f"{path}{key}.")
    elif isinstance(wanted, list) and isinstance(found, list):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from missing(one, other, f"{path}{number}.")
