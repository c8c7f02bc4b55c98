"""How quickly our DHCP answers a thousand Pis, and our DNS beside dnsmasq, on loopback.

    python benches/answers.py

DHCP: 1,000 Pis DISCOVER and REQUEST, spread over a second and all at the same moment; seconds from question to answer.
DNS: 40,000 questions for 1,000 nodes' names, 50 under way at a time, asked of both in turn, ROUNDS times; each round's
ratio is of two measurements that follow each other, and the median one counts. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import select
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from dnslib import DNSRecord

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.dhcp.server import DhcpServer
from kestrelpi.services.dns import DnsServer

PIS = 1000
DHCP_PORT, DNS_PORT, DNSMASQ_PORT = 16767, 15353, 15354
CONFIG = parse(
    f"network: {{address: 10.77.0.1/16}}\nservices: {{listen: 127.0.0.1, dhcp: {{port: {DHCP_PORT}}}, "
    f"dns: {{port: {DNS_PORT}}}}}\n"
)
QUESTIONS = 40_000
AT_ONCE = 50
ROUNDS = 11
Connection = multiprocessing.connection.Connection


def node(number: int) -> Node:
    return Node(f"rpi{number}", mac(1, number), "rpi", IPv4Address("10.77.1.0") + number)


def mac(kind: int, number: int) -> str:
    return f"dc:a6:32:{kind:02x}:{number >> 8:02x}:{number & 255:02x}"


@dataclass(frozen=True)
class Nodes:
    """A directory of a thousand nodes."""

    registry: Registry = Registry.of(map(node, range(1, PIS + 1)))

    def node_by_mac(self, address: str) -> Node | None:
        return self.registry.by_mac.get(address)

    def node_by_address(self, address: IPv4Address) -> Node | None:
        return self.registry.by_address.get(address)


def serve(told: Connection, folder: Path) -> None:
    """Both servers in one event loop, as in the daemon, until the parent says something."""

    async def main() -> None:
        nodes = Nodes()
        dhcp = DhcpServer(CONFIG, nodes, folder / "leases", lambda *_: None, lambda *_: None)
        dns = DnsServer(CONFIG, nodes)
        await dhcp.start()
        await dns.start()
        told.send("ready")
        while not told.poll():
            await asyncio.sleep(0.2)
        await dns.stop()
        await dhcp.stop()

    asyncio.run(main())


def message(kind: int, address: str, more: bytes = b"") -> bytes:
    """A Pi 4's DISCOVER or REQUEST."""
    hardware = bytes.fromhex(address.replace(":", ""))
    options = bytes([53, 1, kind, 55, 6, 1, 3, 43, 60, 66, 67]) + b"\x5d\2\0\0\x5e\3\1\2\1"
    options += b"\x61\x11\0" + b"4iPR\x14\x31\xd0\0" + hardware[2:] + b"\x3d\xf0\xcd\x91"
    options += b"\x3c\x20PXEClient:Arch:00000:UNDI:002001" + more + b"\xff"
    return b"\1\1\6\0" + bytes(24) + hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + options


def storm(kind: int, spread: float) -> list[float]:
    """A thousand Pis that begin within `spread` seconds; the seconds to each answer."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.connect(("127.0.0.1", DHCP_PORT))
    sent: dict[tuple[int, int], float] = {}
    took: list[float] = []
    begun, begins = time.monotonic(), 0
    while len(took) < 2 * PIS and time.monotonic() - begun < 30:
        while begins < PIS and time.monotonic() - begun >= spread * begins / PIS:
            sent[2, begins] = time.monotonic()
            sock.send(message(1, mac(kind, begins)))
            begins += 1
        select.select([sock], [], [], 0.001)
        try:
            while True:
                reply = sock.recv(2048)
                number, what = reply[32] << 8 | reply[33], reply[242]
                took.append(time.monotonic() - sent[what, number])
                if what == 2:
                    sent[5, number] = time.monotonic()
                    sock.send(message(3, mac(kind, number), b"\x32\4" + reply[16:20] + b"\x36\4\x7f\0\0\1"))
        except BlockingIOError:
            continue
    return sorted(took)


def ask(port: int) -> float:
    """Questions a second."""
    questions = [bytes(DNSRecord.question(f"{one.name}.cluster.internal").pack())[2:] for one in Nodes().registry]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(5)
        begun, sent = time.monotonic(), 0
        for got in range(QUESTIONS):
            while sent - got < AT_ONCE and sent < QUESTIONS:
                sock.send(struct.pack("!H", sent & 0xFFFF) + questions[sent % PIS])
                sent += 1
            sock.recv(512)
        return QUESTIONS / (time.monotonic() - begun)


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """One server, once."""

    a_second: float
    cpu: float
    """Microseconds of processor time a question."""


def measured(port: int, pid: int) -> Measured:
    before = cpu_seconds(pid)
    a_second = ask(port)
    return Measured(a_second, (cpu_seconds(pid) - before) / QUESTIONS * 1e6)


def compare(servers: Mapping[str, tuple[int, int]]) -> None:
    """Measure both servers (name: port, process) in turn, who is first changing too, and print medians."""
    found: dict[str, list[Measured]] = {name: [] for name in servers}
    for turn in range(ROUNDS + 1):
        for name in sorted(servers, reverse=bool(turn % 2)):
            found[name].append(measured(*servers[name]))
    rounds = {name: every[1:] for name, every in found.items()}  # the first round only warms up
    for name, every in rounds.items():
        speed, cpu = (statistics.median(values) for values in zip(*map(astuple, every), strict=True))
        print(f"DNS {name:8} {speed:8.0f} questions/s, {cpu:5.1f} µs of CPU each (medians of {ROUNDS})")
    pairs = list(zip(rounds["ours"], rounds["dnsmasq"], strict=True))
    speed = statistics.median(ours.a_second / theirs.a_second for ours, theirs in pairs)
    cpu = statistics.median(ours.cpu / theirs.cpu for ours, theirs in pairs)
    print(f"DNS ours/dnsmasq: speed {speed:.2f}, CPU {cpu:.2f}")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, folder))
        server.start()
        ours.recv()
        (folder / "hosts").write_text(
            "".join(f"{one.address} {one.name}.cluster.internal\n" for one in Nodes().registry)
        )
        words = "dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --user=root --bind-interfaces"
        argv = [
            *words.split(),
            f"--port={DNSMASQ_PORT}",
            "--listen-address=127.0.0.1",
            f"--addn-hosts={folder / 'hosts'}",
        ]
        dnsmasq = run.start(argv)
        try:
            for kind, spread in ((0x10, 1.0), (0x20, 0.0)):
                took = storm(kind, spread)
                p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
                print(f"DHCP {PIS} Pis within {spread:g} s: {len(took)} answers, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
            compare({"ours": (DNS_PORT, server.pid or 0), "dnsmasq": (DNSMASQ_PORT, dnsmasq.pid)})
        finally:
            run.stop(dnsmasq)
            ours.send("end")
            server.join()


if __name__ == "__main__":
    main()
