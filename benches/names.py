"""How quickly our DNS answers for the nodes' names beside dnsmasq, on loopback; `benches/boot_services.py` runs it.

40,000 questions for 1,000 nodes' names, 50 under way at a time, asked of both in turn, ROUNDS times; each round's ratio
is of two measurements that follow each other, and the median one counts.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import socket
import struct
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from dnslib import DNSRecord
from pis import PIS, node

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.dns import DnsServer

DNS_PORT, DNSMASQ_PORT = 15353, 15354
CONFIG = parse(f"network: {{address: 10.77.0.1/16}}\nservices: {{listen: 127.0.0.1, dns: {{port: {DNS_PORT}}}}}\n")
QUESTIONS = 40_000
AT_ONCE = 50
ROUNDS = 11
Connection = multiprocessing.connection.Connection


@dataclass(frozen=True)
class Nodes:
    """A directory of a thousand nodes."""

    registry: Registry = Registry.of(map(node, range(PIS)))

    def node_by_mac(self, address: str) -> Node | None:
        return self.registry.by_mac.get(address)

    def node_by_address(self, address: IPv4Address) -> Node | None:
        return self.registry.by_address.get(address)


def serve(told: Connection) -> None:
    """Ours, until the parent says something."""

    async def main() -> None:
        dns = DnsServer(CONFIG, Nodes())
        await dns.start()
        told.send("ready")
        while not told.poll():
            await asyncio.sleep(0.2)
        await dns.stop()

    asyncio.run(main())


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


def compare(servers: Mapping[str, tuple[int, int]]) -> dict[str, list[Measured]]:
    """Measure both servers (name: port, process) in turn, who is first changing too."""
    found: dict[str, list[Measured]] = {name: [] for name in servers}
    for turn in range(ROUNDS + 1):
        for name in sorted(servers, reverse=bool(turn % 2)):
            found[name].append(measured(*servers[name]))
    return {name: rounds[1:] for name, rounds in found.items()}  # the first round only warms up


def compared() -> dict[str, list[Measured]]:
    """Start both servers, and measure them: ROUNDS measurements of each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
        server.start()
        ours.recv()
        hosts = "".join(f"{one.address} {one.name}.cluster.internal\n" for one in Nodes().registry)
        (folder / "hosts").write_text(hosts)
        words = "dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --user=root --bind-interfaces"
        where = f"--port={DNSMASQ_PORT} --listen-address=127.0.0.1 --addn-hosts={folder / 'hosts'}"
        dnsmasq = run.start([*words.split(), *where.split()])
        try:
            return compare({"ours": (DNS_PORT, server.pid or 0), "dnsmasq": (DNSMASQ_PORT, dnsmasq.pid)})
        finally:
            run.stop(dnsmasq)
            ours.send("end")
            server.join()
