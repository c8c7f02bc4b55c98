"""Which generation each node runs."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.nodes.boots import BootLog, Stage
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.running import running

ONE, TWO = "20260101-000000-00000001", "20260102-000000-00000002"


def node(number: int) -> Node:
    return Node(f"rpi{number}", f"dc:a6:32:00:00:0{number}", "rpi", IPv4Address(f"10.77.0.1{number}"))


def test_what_it_mounted_last(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    now = 1000.0
    for number, generations in ((1, (ONE, TWO)), (2, (ONE,)), (3, ())):
        for id in generations:
            now += 100
            log.record(node(number).mac, Stage.DISCOVER, now)
            log.record(node(number).mac, Stage.ROOT, now + 1, f"default {id}")
        now += 100
        log.record(node(number).mac, Stage.DISCOVER, now)
    nodes = [node(number) for number in (1, 2, 3, 4)]
    assert running(tmp_path, nodes) == {"rpi1": ("default", TWO), "rpi2": ("default", ONE)}
