"""How quickly `kestrelpi serve` and dnsmasq give a thousand Pis addresses: registered ones, and unknown ones.

    python benches/discover.py [--rounds 3]

As root: two network namespaces with a cable between them, a server in one, the Pis (behind a relay) in the other. Each
Pi DISCOVERs, and REQUESTs what it is offered. Of unknown Pis ours probes each address by ARP before it is offered;
dnsmasq doesn't here (`no-ping`): it would ping each for 3 s, one after the other. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pis import PIS, Burst, burst, node

from kestrelpi import run
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths

SERVER, RELAY = "10.77.0.1", "10.77.0.2"
POOL = ("10.77.4.0", "10.77.7.254")
CONFIG = f"""\
network: {{address: {SERVER}/21, interface: eth0, pool: {POOL[0]}-{POOL[1]}}}
services: {{nfs: {{backend: none}}}}
"""
DNSMASQ = f"dnsmasq --no-daemon --conf-file=/dev/null --port=0 --user=root --interface=eth0 --no-ping \
--dhcp-authoritative --dhcp-lease-max=3000 --dhcp-range={POOL[0]},{POOL[1]},255.255.248.0,12h"
REGISTERED = 1
ROOMS = {"registered": (REGISTERED, 1.0), "unknown": (0x10, 1.0), "unknown, all at the same moment": (0x20, 0.0)}
"""What is measured: kind of Pis, and seconds within which they begin. The pool of the last two is the same: each has a
server of its own."""


@dataclass(frozen=True)
class Cable:
    """Two namespaces; in each eth0."""

    here: str
    there: str

    def inside(self, *words: str) -> list[str]:
        """A command line for the server's end."""
        return ["ip", "netns", "exec", self.here, *words]


@contextmanager
def cable() -> Iterator[Cable]:
    """Lay it, and take it away."""
    one, two = (f"kpi-bench-{os.getpid()}-{end}" for end in "ab")
    try:
        for name in (one, two):
            run.run(["ip", "netns", "add", name])
        run.run(["ip", "-n", one, *f"link add eth0 type veth peer name eth0 netns {two}".split()])
        for name, address in ((one, SERVER), (two, RELAY)):
            run.run(["ip", "-n", name, *f"address add {address}/21 dev eth0".split()])
            for device in ("lo", "eth0"):
                run.run(["ip", "-n", name, "link", "set", device, "up"])
        yield Cable(one, two)
    finally:
        for name in (one, two):
            run.run(["ip", "netns", "delete", name])


@contextmanager
def serving(server: str, wire: Cable, folder: Path) -> Iterator[None]:
    """`ours` or `dnsmasq` on the cable, without a lease, a thousand Pis registered."""
    folder.mkdir()
    nodes = [node(number) for number in range(PIS)]
    if server == "ours":
        paths = Paths(folder)
        paths.config.parent.mkdir(parents=True)
        paths.config.write_text(CONFIG)
        paths.registry.parent.mkdir(parents=True, exist_ok=True)
        paths.registry.write_text(Registry.of(nodes).emit())
        words = [sys.executable, "-m", "kestrelpi", "--root", str(folder), "serve"]
        ready = "serving on"
    else:
        hosts = folder / "hosts"
        hosts.write_text("".join(f"{one.mac},{one.address},{one.name}\n" for one in nodes))
        words = [*DNSMASQ.split(), f"--dhcp-hostsfile={hosts}", f"--dhcp-leasefile={folder / 'leases'}"]
        ready = "read "
    log = folder / "log"
    with log.open("wb") as out:
        process = run.start(wire.inside(*words), output=out)
        try:
            wait_for(log, ready)
            yield
        finally:
            run.stop(process)


def wait_for(log: Path, text: str) -> None:
    """Until a server says that it is ready."""
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {text!r} in its log:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    time.sleep(1)


def measured(server: str, room: str) -> Burst:
    """One room at one server."""
    kind, spread = ROOMS[room]
    with tempfile.TemporaryDirectory() as name, cable() as wire, serving(server, wire, Path(name) / "root"):
        words = [sys.executable, __file__, "--kind", str(kind), "--spread", str(spread)]
        done = run.run(["ip", "netns", "exec", wire.there, *words])
    return Burst(**json.loads(done.stdout))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--spread", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind is not None:
        print(json.dumps(asdict(burst(RELAY, SERVER, options.kind, options.spread))))
        return
    for room in ROOMS:
        for number in range(options.rounds):
            for server in ("ours", "dnsmasq")[:: -1 if number % 2 else 1]:
                found = measured(server, room)
                print(
                    f"{room}: {server:8} {found.addresses} of {found.pis} have an address, p50 {found.p50:.1f} ms, "
                    f"p99 {found.p99:.1f} ms, the last after {found.last:.1f} s, {found.repeated} repeated",
                    flush=True,
                )


if __name__ == "__main__":
    main()
