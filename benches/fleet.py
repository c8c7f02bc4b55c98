"""What 10,000 registered nodes cost: seconds of the commands that read them all, the daemon's reload, its memory.

Below a temporary root; each node has a sighting, a lease and three boots. `benches/boot_services.py` runs it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi import run
from kestrelpi.nodes import leases, sightings
from kestrelpi.nodes.boots import BootLog, Stage
from kestrelpi.nodes.leases import Lease
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.nodes.sightings import Sighting
from kestrelpi.paths import Paths

NODES = 10_000
CONFIG = """\
network: {address: 10.77.0.1/16}
services: {listen: 127.0.0.1, nfs: {backend: none}}
images: {default: {modules: [openmp, munge, slurm, openmpi, users]}}
"""
SERVED = """\
network: {address: 10.77.0.1/16}
services: {listen: 127.0.0.1, nfs: {backend: none}}
"""
"""For the daemon: without modules whose services would run on this machine."""
STAGES = [stage for stage in Stage if stage not in (Stage.WAITING, Stage.FAILED)]


@dataclass(frozen=True)
class Fleet:
    """Files of a cluster that has booted three times."""

    paths: Paths

    def node(self, number: int) -> Node:
        address = IPv4Address("10.77.0.10") + number
        return Node(f"rpi{number}", mac(number), "rpi", address, f"{0x10000000 + number:08x}", "4B")

    def write(self, now: float) -> None:
        nodes = [self.node(number) for number in range(1, NODES + 1)]
        self.paths.registry.parent.mkdir(parents=True)
        self.paths.registry.write_text(Registry.of(nodes).emit())
        seen = {one.mac: Sighting(one.mac, one.serial, "4B", 0xC03111, 4096, 4, now - 999, now) for one in nodes}
        sightings.write(self.paths.sightings, seen)
        leases.write(self.paths.leases, [Lease(int(now) + 9999, one.mac, one.address, one.name) for one in nodes])
        log = BootLog(self.paths.boots)
        for one in nodes:
            for boot in range(3):
                for step, stage in enumerate(STAGES):
                    log.record(one.mac, stage, now - 20000 + boot * 3600 + step * 4)


def mac(number: int) -> str:
    return f"dc:a6:32:00:{number >> 8:02x}:{number & 255:02x}"


def command(paths: Paths, *words: str) -> list[str]:
    return [sys.executable, "-m", "kestrelpi", "--root", str(paths.root), *words]


def seconds(paths: Paths, *words: str) -> float:
    """Run one command three times; the quickest one counts."""
    found = []
    for _ in range(3):
        began = time.monotonic()
        run.run(command(paths, *words))
        found.append(time.monotonic() - began)
    return min(found)


def registering(fleet: Fleet) -> float:
    """A Pi more has a lease and a serial: seconds until it is a node."""
    paths, new = fleet.paths, NODES + 1
    now = time.time()
    seen = sightings.read(paths.sightings)
    seen[mac(new)] = Sighting(mac(new), "2fffffff", "4B", 0xC03111, 4096, 4, now, now)
    sightings.write(paths.sightings, seen)
    with paths.leases.open("a") as file:
        file.write(f"{int(now) + 9999} {mac(new)} 10.77.200.1 * *\n")
    began = time.monotonic()
    run.run(command(paths, "nodes", "register", "rpi", "--count", "1", "--timeout", "60"))
    return time.monotonic() - began


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def daemon(fleet: Fleet) -> dict[str, float]:
    """Start it, change the registry, and look how long it takes to know and how large it is."""
    paths = fleet.paths
    paths.config.write_text(SERVED)
    log = paths.root / "serve.log"
    with log.open("wb") as out:
        process = run.start(command(paths, "serve"), output=out)
        try:
            wait_for(log, "serving on", 1)
            time.sleep(2)
            text = paths.registry.read_text()
            began = time.monotonic()
            paths.registry.with_suffix(".new").write_text(text.replace("model: 4B", "model: 5", 1))
            paths.registry.with_suffix(".new").replace(paths.registry)
            wait_for(log, "reloaded", 1)
            return {
                "a reload, s, half a second of it to see the change": time.monotonic() - began,
                "`status`, s": seconds(paths, "status"),
                "the daemon, MB resident": memory(process.pid) / 1e6,
                "its TFTP worker and helpers, MB": sum(map(memory, children(process.pid))) / 1e6,
            }
        finally:
            run.stop(process)


def wait_for(log: Path, text: str, times: int) -> None:
    deadline = time.monotonic() + 60
    while log.read_text().count(text) < times:
        if time.monotonic() > deadline:
            raise SystemExit(f"no {text!r} in the daemon's log:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def measured() -> dict[str, float]:
    """Seconds of each command, and megabytes of the daemon."""
    with tempfile.TemporaryDirectory() as name:
        paths = Paths(Path(name))
        paths.config.parent.mkdir(parents=True)
        paths.config.write_text(CONFIG)
        fleet = Fleet(paths)
        fleet.write(time.time())
        return {
            "`nodes list`, s": seconds(paths, "nodes", "list"),
            "`nodes list --json`, s": seconds(paths, "--json", "nodes", "list"),
            "`nodes show`, s": seconds(paths, "nodes", "show", "rpi77"),
            "`reconfigure --plan`, s": seconds(paths, "reconfigure", "--plan"),
            "`nodes register --count 1`, s": registering(fleet),
            **daemon(fleet),
        }
