"""The whole path on emulated Pis: boot, register, compute. What `make demo` shows after the image is built."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.lab.lab import Lab
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import Boot, Stage
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.identity import Secrets
from kestrelpi.nodes.registering import Learned, Registered, Registrar, watch
from kestrelpi.nodes.registry import Node, Registry, edit
from kestrelpi.paths import Paths

CONFIGURATION = """\
# The demo's cluster. `services.nfs.backend: ganesha` because the lab is a network of its own, where the kernel's NFS
# server does not listen; leave it out on a real frontend.
cluster: demo
network:
  address: 10.77.0.1/24
services:
  nfs: {backend: ganesha}
images:
  default:
    modules: [openmp, openmpi, slurm, swarm]
groups:
  rpi: {image: default}
"""
FIBO = 40
FIBO_IS = 102334155
REGISTER_WITHIN = 180.0
READY_WITHIN = 600.0
"""Seconds; an emulated Pi on a busy machine is slow."""
POLL = 0.5
STAGES = (Stage.OFFER, Stage.FIRMWARE, Stage.KERNEL, Stage.INITRAMFS, Stage.ROOT, Stage.SERVICES, Stage.READY)
"""The stages that the table shows; each as seconds since the first DISCOVER."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Computed:
    """What one node did."""

    node: Node
    boot: Boot
    result: int
    seconds: float
    """fibo's own time."""


def configure(paths: Paths) -> Path:
    """The demo's configuration, written unless there is one."""
    if not paths.config.exists():
        write_whole(paths.config, CONFIGURATION)
    return paths.config


def forget_nodes(paths: Paths, config: Config) -> None:
    """Empty the registry and the leases, so that each demo meets Pis that nobody has seen."""
    with edit(paths, config) as change:
        change.registry = Registry.of([])
    for file in (paths.leases, paths.sightings, *paths.boots.glob("*.jsonl")):
        file.unlink(missing_ok=True)


def register(paths: Paths, config: Config, group: str, count: int, say: Say) -> list[Node]:
    """Register the next `count` Pis; raises UserError when fewer appear in time."""
    macs = []
    for event in watch(Registrar(paths, config, group), count, REGISTER_WITHIN):
        if isinstance(event, Registered):
            Secrets(paths).host_key(event.node.mac)
            macs.append(event.node.mac)
            say(f"  {event.node.mac} is now {event.node.name}, {event.node.address}")
        elif isinstance(event, Learned):
            say(f"  {event.node.name}: serial {event.node.serial}, Pi {event.node.model}")
    if len(macs) < count:
        raise UserError(
            f"{len(macs)} of {count} Pis asked for an address within {REGISTER_WITHIN:.0f} s",
            where=str(paths.log / "serve.log"),
            fix="see what they do: kestrelpi lab status, kestrelpi lab console 1",
        )
    registry = Registry.load(paths.registry, config)
    return [registry.by_mac[mac] for mac in macs]


def wait_until_ready(
    paths: Paths, lab: Lab, nodes: Sequence[Node], say: Say, *, patient: bool = True
) -> dict[str, Boot]:
    """Each node's boot once it is ready, telling every new stage; raises UserError when one takes too long.

    `patient`: wait for another try of a node whose boot failed; else that is an error at once. One whose emulator ended
    has no other.
    """
    deadline = time.monotonic() + READY_WITHIN
    told: dict[str, Stage] = {}
    ready: dict[str, Boot] = {}
    while len(ready) < len(nodes):
        for node in nodes:
            found = boots.read(paths.boots, node.mac)
            if not found or node.name in ready:
                continue
            boot = found[-1]
            if told.get(node.name) is not boot.current:
                told[node.name] = boot.current
                detail = boot.details.get(boot.current, "")
                say(f"  {node.name}: {boot.current} after {boot.stages[boot.current]:.1f} s {detail}".rstrip())
            if boot.current is Stage.READY:
                ready[node.name] = boot
            if boot.current is Stage.FAILED and not patient:
                raise UserError(
                    f"{node.name} failed to boot: {boot.details.get(Stage.FAILED, 'it said no more')}",
                    detail="\n".join(folder.last_words() for folder in lab.folders()),
                )
        lab.must_not_have_failed(patient=patient)
        if time.monotonic() > deadline:
            late = [f"{one.name} ({told.get(one.name, 'no packet')})" for one in nodes if one.name not in ready]
            raise UserError(
                f"not ready after {READY_WITHIN:.0f} s: {', '.join(late)}",
                detail="\n".join(folder.last_words() for folder in lab.folders()),
                fix="see the consoles: kestrelpi lab console 1",
            )
        time.sleep(POLL)
    return ready


def compute(connections: Connections, node: Node, boot: Boot) -> Computed:
    """Run fibo on a node over SSH and check its result."""
    said = connections.run(node, f"fibo {FIBO}", timeout=300)
    match = re.search(r"fibo\((\d+)\) = (\d+)\s+time: ([\d.]+) s", said)
    if not match or int(match[2]) != FIBO_IS:
        raise UserError(f"fibo {FIBO} on {node.name} did not give {FIBO_IS}", detail=said)
    return Computed(node, boot, int(match[2]), float(match[3]))


def table(results: Sequence[Computed]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of the demo's table: seconds since the first DISCOVER for each stage."""
    headings = ("NAME", "MAC", "SERIAL", "MODEL", "ADDRESS", *(str(stage).upper() for stage in STAGES))
    rows = [
        (
            one.node.name,
            one.node.mac,
            one.node.serial,
            one.node.model,
            str(one.node.address),
            *(f"{one.boot.stages[stage]:.1f}" if stage in one.boot.stages else "" for stage in STAGES),
            str(one.result),
            f"{one.seconds:.2f} s",
        )
        for one in results
    ]
    return (*headings, f"FIBO {FIBO}", "TIME"), rows
