"""`kestrelpi serve` as a program: unprivileged on loopback, with curl and dig as clients."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrelpi.paths import Paths
from kestrelpi.pdeathsig import dies_with_us
from tests.program import program
from tests.waiting import until

NOBODY = 65534
GENERATION = "20261122-000000-12345678"
KERNEL = os.urandom(4_000_000)
CONFIG = """\
network: {{address: 10.77.0.1/24}}
images: {{default: {{modules: []}}}}
services:
  listen: 127.0.0.1
  dhcp: {{port: {dhcp}}}
  tftp: {{port: {tftp}}}
  dns: {{port: {dns}}}
  http: {{port: {http}}}
  nfs: {{backend: none}}
"""
NODE = '  rpi{n}: {{mac: "dc:a6:32:00:00:0{n}", serial: 0000000{n}, group: rpi, address: 10.77.0.1{n}}}\n'


def free_ports() -> dict[str, int]:
    """A port of loopback for each service that nobody has now."""
    with socket.socket() as a, socket.socket() as b, socket.socket() as c, socket.socket() as d:
        sockets = {"dhcp": a, "tftp": b, "dns": c, "http": d}
        for one in sockets.values():
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in sockets.items()}


class Serve:
    """A root with one node and a generation of made-up boot files, served by an ordinary user."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.ports = free_ports()
        boot = self.paths.images / "default/generations" / GENERATION / "boot"
        boot.mkdir(parents=True)
        (boot / "vmlinuz").write_bytes(KERNEL)
        (self.paths.images / "default/current").symlink_to(f"generations/{GENERATION}")
        self.paths.etc.mkdir(parents=True)
        self.paths.config.write_text(CONFIG.format(**self.ports))
        self.register(1)
        for path in (root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        self.log = root / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None

    def register(self, *numbers: int) -> None:
        self.paths.registry.write_text("nodes:\n" + "".join(NODE.format(n=n) for n in numbers))

    def start(self) -> subprocess.Popen[bytes]:
        argv = program(self.paths.root, "serve")
        ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(dies_with_us(argv, "TERM", ids), stdout=out, stderr=out)
        return self.process

    def ready(self) -> None:
        """Wait until it answers; the log says why it doesn't."""
        assert self.process is not None
        process, url = self.process, f"http://127.0.0.1:{self.ports['http']}/v1/time"
        until(lambda: self.curl(url) or process.poll() is not None, self.log.read_text, 60)
        assert process.poll() is None, self.log.read_text()

    def curl(self, url: str, *more: str) -> bytes:
        """The body; empty when curl fails."""
        return subprocess.run(["curl", "-sf", "--max-time", "60", *more, url], capture_output=True, check=False).stdout

    def tftp(self, path: str, *more: str) -> bytes:
        return self.curl(f"tftp://127.0.0.1:{self.ports['tftp']}/{path}", *more)

    def dig(self, name: str) -> str:
        argv = ["dig", "+short", "+time=2", "+tries=2", "@127.0.0.1", "-p", str(self.ports["dns"]), name]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()

    def says(self, text: str) -> None:
        """Wait until the log has `text`."""
        until(lambda: text in self.log.read_text(), self.log.read_text, 20)


@pytest.fixture
def serve() -> Iterator[Serve]:
    root = Path(tempfile.mkdtemp(prefix="kestrelpi-serve-", dir="/var/tmp"))
    root.chmod(0o755)
    made = Serve(root)
    try:
        yield made
    finally:
        if made.process and made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        shutil.rmtree(root)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has reaped yet doesn't."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_ordinary_user_serves_and_stops_cleanly(serve: Serve) -> None:
    process = serve.start()
    serve.ready()
    assert serve.tftp("00000001/vmlinuz") == KERNEL
    assert serve.tftp("00000001//vmlinuz", "--tftp-blksize", "1468") == KERNEL
    assert b"kestrelpi.generation=" in serve.tftp("00000001/cmdline.txt")
    assert serve.tftp("00000001/none") == b""
    assert serve.dig("rpi1.cluster.internal") == "10.77.0.11"
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, serve.log.read_text()
    until(lambda: not any(alive(pid) for pid in workers), "the workers' end", 10)
    assert not (serve.paths.run / "serve.sock").exists()
    assert "Traceback" not in serve.log.read_text()


def test_a_changed_registry_is_served_at_once_and_drops_no_transfer(serve: Serve) -> None:
    process = serve.start()
    serve.ready()
    url = f"tftp://127.0.0.1:{serve.ports['tftp']}/00000001/vmlinuz"
    slow = subprocess.Popen(["curl", "-sf", "--limit-rate", "1M", url], stdout=subprocess.PIPE)
    assert serve.dig("rpi2.cluster.internal") == ""
    serve.register(1, 2)
    serve.says("reloaded: 2 nodes")
    assert serve.dig("rpi2.cluster.internal") == "10.77.0.12"
    process.send_signal(signal.SIGHUP)
    body, _ = slow.communicate(timeout=60)
    assert body == KERNEL
    assert process.poll() is None


def test_nonsense_in_the_registry_leaves_the_last_good_one(serve: Serve) -> None:
    serve.start()
    serve.ready()
    serve.paths.registry.write_text("nodes:\n  rpi1: {mac: what, group: rpi, address: 10.77.0.11}\n")
    serve.says("the last good one stays in force")
    assert "nodes.yaml:2" in serve.log.read_text()
    assert serve.dig("rpi1.cluster.internal") == "10.77.0.11"
    assert serve.tftp("00000001/config.txt")


@pytest.mark.parametrize("service", ["dhcp", "tftp", "dns", "http"])
def test_a_port_that_is_taken_is_named(serve: Serve, service: str) -> None:
    kind = socket.SOCK_STREAM if service == "http" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", serve.ports[service]))
        if service == "http":
            taken.listen()
        process = serve.start()
        assert process.wait(30) == 1
    said = serve.log.read_text()
    assert str(serve.ports[service]) in said and "ss -" in said
    assert "Traceback" not in said


def test_an_interface_that_is_not_there_is_named(serve: Serve) -> None:
    text = CONFIG.format(**serve.ports).replace("10.77.0.1/24", "10.77.0.1/24, interface: absent0")
    serve.paths.config.write_text(text.replace("  listen: 127.0.0.1\n", ""))
    assert serve.start().wait(30) == 1
    assert "there is no interface absent0" in serve.log.read_text()


def test_an_address_of_another_machine_is_named(serve: Serve) -> None:
    serve.paths.config.write_text(CONFIG.format(**serve.ports).replace("127.0.0.1", "192.0.2.7"))
    assert serve.start().wait(30) == 1
    assert "192.0.2.7 is not an address of this machine" in serve.log.read_text()


def test_a_second_serve_is_refused(serve: Serve) -> None:
    serve.start()
    serve.ready()
    first = serve.process
    assert serve.start().wait(30) == 1
    assert "kestrelpi serve is locked by process" in serve.log.read_text()
    serve.process = first
