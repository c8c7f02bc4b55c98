"""How quickly a thousand unknown Pis get an address, each address probed by ARP before it is offered.

    python benches/discover.py [--pis 1000] [--spread 1.0] [--rounds 3]

As root: two network namespaces with a cable between them, the server in one, the Pis (behind a relay) in the other.
Each Pi DISCOVERs, and REQUESTs what it is offered. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import socket
import sys
import tempfile
import time
from pathlib import Path

from answers import mac, message

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.dhcp.server import DhcpServer
from kestrelpi.services.turns import Turns, link_speed

CONFIG = parse("network: {address: 10.77.0.1/21, interface: eth0, pool: 10.77.4.0-10.77.7.254}\n")
RELAY = "10.77.0.2"
LONGEST = 30.0


class Nobody:
    """No Pi is registered."""

    registry = Registry.of([])

    def node_by_mac(self, address: str) -> None:
        return None

    def node_by_address(self, address: object) -> None:
        return None


async def serve(leases: Path) -> None:
    """Until it is ended."""
    turns = Turns(lambda: link_speed(CONFIG, "eth0"))  # 10 Gbit/s, which lets all of them in
    server = DhcpServer(CONFIG, Nobody(), leases, lambda *_: None, lambda *_: None, turns=turns)
    await server.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def ask(pis: int, spread: float, kind: int) -> None:
    """Print what `pis` Pis saw that begin within `spread` seconds."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind((RELAY, 67))
    relay = socket.inet_aton(RELAY)
    sent: dict[tuple[int, int], float] = {}
    took: list[float] = []
    given: set[bytes] = set()

    def send(what: int, number: int, more: bytes = b"") -> None:
        packet = message(what, mac(kind, number), more)
        sent[what + (what == 1) + 2 * (what == 3), number] = time.monotonic()
        sock.sendto(packet[:24] + relay + packet[28:], ("10.77.0.1", 67))

    begun, begins = time.monotonic(), 0
    while len(took) < 2 * pis and time.monotonic() - begun < LONGEST:
        while begins < pis and time.monotonic() - begun >= spread * begins / pis:
            send(1, begins)
            begins += 1
        select.select([sock], [], [], 0.001)
        try:
            while True:
                reply = sock.recv(2048)
                number, what = reply[32] << 8 | reply[33], reply[242]
                took.append(time.monotonic() - sent[what, number])
                if what == 2:
                    given.add(reply[16:20])
                    send(3, number, b"\x32\4" + reply[16:20] + b"\x36\4\x0a\x4d\0\1")
        except BlockingIOError:
            continue
    took.sort()
    p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    print(
        f"{pis} Pis within {spread:g} s: {len(took)} answers, {len(given)} addresses, p50 {p50:.1f} ms, "
        f"p99 {p99:.1f} ms, last after {time.monotonic() - begun:.1f} s",
        flush=True,
    )


def main() -> None:
    """Make the cable, run both ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pis", type=int, default=1000)
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--end", choices=("server", "client"))
    parser.add_argument("--kind", type=int, default=0)
    options = parser.parse_args()
    if options.end == "client":
        ask(options.pis, options.spread, options.kind)
    elif options.end == "server":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(serve(Path(folder) / "leases"))
    else:
        both(options.pis, options.spread, options.rounds)


def both(pis: int, spread: float, rounds: int) -> None:
    """Each round has a server of its own, which knows no lease."""
    one, two = (f"kpi-bench-{os.getpid()}-{end}" for end in "ab")
    try:
        for name in (one, two):
            run.run(["ip", "netns", "add", name])
        run.run(["ip", "-n", one, *f"link add eth0 type veth peer name eth0 netns {two}".split()])
        for name, address in ((one, "10.77.0.1"), (two, RELAY)):
            run.run(["ip", "-n", name, *f"address add {address}/21 dev eth0".split()])
            run.run(["ip", "-n", name, "link", "set", "eth0", "up"])
        for number in range(rounds):
            words = [sys.executable, __file__, "--pis", str(pis), "--spread", str(spread), "--kind", str(number)]
            server = run.start(["ip", "netns", "exec", one, *words, "--end", "server"])
            try:
                time.sleep(3)
                print(run.run(["ip", "netns", "exec", two, *words, "--end", "client"]).stdout, end="", flush=True)
            finally:
                run.stop(server)
    finally:
        for name in (one, two):
            run.run(["ip", "netns", "delete", name])


if __name__ == "__main__":
    main()
