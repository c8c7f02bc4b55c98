"""What 10,000 registered nodes cost: seconds of the commands that read them all, the daemon's reload, its memory.

    python benches/fleet.py [--nodes 10000]

Runs in a network namespace of its own, as root, below a temporary root. Each node has a sighting, a lease and three
boots. Wall-clock seconds and, beside them, processor seconds, which a busy machine changes less. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import resource
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
    count: int

    def node(self, number: int) -> Node:
        address = IPv4Address("10.77.0.10") + number
        return Node(f"rpi{number}", mac(number), "rpi", address, f"{0x10000000 + number:08x}", "4B")

    def write(self, now: float) -> None:
        nodes = [self.node(number) for number in range(1, self.count + 1)]
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


def timed(paths: Paths, *words: str) -> None:
    """Run one command three times; the quickest one counts."""
    found = []
    for _ in range(3):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        run.run(command(paths, *words))
        used, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
        found.append((seconds, used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime))
    line(" ".join(words), *min(found))


def line(what: str, seconds: float, cpu: float) -> None:
    print(f"{what:34} {seconds:6.2f} s {cpu:6.2f} s of CPU", flush=True)


def registering(fleet: Fleet) -> None:
    """A Pi more has a lease and a serial: how long does it take until it is a node?"""
    paths, new = fleet.paths, fleet.count + 1
    now = time.time()
    seen = sightings.read(paths.sightings)
    seen[mac(new)] = Sighting(mac(new), "2fffffff", "4B", 0xC03111, 4096, 4, now, now)
    sightings.write(paths.sightings, seen)
    with paths.leases.open("a") as file:
        file.write(f"{int(now) + 9999} {mac(new)} 10.77.200.1 * *\n")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run.run(command(paths, "nodes", "register", "rpi", "--count", "1", "--timeout", "60"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    line("nodes register rpi --count 1", time.monotonic() - began, cpu)


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def daemon(fleet: Fleet) -> None:
    """Start it, change the registry, and look how long it takes to know and how large it is."""
    paths = fleet.paths
    paths.config.write_text(SERVED)
    log = paths.root / "serve.log"
    with log.open("wb") as out:
        process = run.start(command(paths, "serve"), output=out)
        try:
            wait_for(log, "serving on", 1)
            time.sleep(2)
            before = cpu_of(process.pid)
            text = paths.registry.read_text()
            began = time.monotonic()
            paths.registry.with_suffix(".new").write_text(text.replace("model: 4B", "model: 5", 1))
            paths.registry.with_suffix(".new").replace(paths.registry)
            wait_for(log, "reloaded", 1)
            line("a reload, half a second to see it", time.monotonic() - began, cpu_of(process.pid) - before)
            timed(paths, "status")
            print(f"the daemon: {memory(process.pid) / 1e6:.0f} MB resident;", end=" ")
            print(*(f"{memory(pid) / 1e6:.0f} MB" for pid in children(process.pid)), "in its TFTP worker and helpers")
        finally:
            run.stop(process)


def wait_for(log: Path, text: str, times: int) -> None:
    deadline = time.monotonic() + 60
    while log.read_text().count(text) < times:
        if time.monotonic() > deadline:
            raise SystemExit(f"no {text!r} in the daemon's log:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    options = parser.parse_args()
    if os.environ.get("KESTRELPI_BENCH") != "inside":
        here = {"KESTRELPI_BENCH": "inside", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        run.replace(["unshare", "--net", sys.executable, *sys.argv], here)
    run.run(["ip", "link", "set", "lo", "up"])
    with tempfile.TemporaryDirectory() as name:
        paths = Paths(Path(name))
        paths.config.parent.mkdir(parents=True)
        paths.config.write_text(CONFIG)
        fleet = Fleet(paths, options.nodes)
        fleet.write(time.time())
        print(f"{options.nodes} nodes")
        timed(paths, "nodes", "list")
        timed(paths, "--json", "nodes", "list")
        timed(paths, "nodes", "show", "rpi77")
        timed(paths, "reconfigure", "--plan")
        registering(fleet)
        daemon(fleet)


if __name__ == "__main__":
    main()
