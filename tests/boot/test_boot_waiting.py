"""A Pi that is registered while it waits boots on, with no power cycle. On a Pi 3B's own devices, network on USB."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.images.build import build
from kestrelpi.lab import demo
from kestrelpi.lab.state import State
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import Stage
from tests.boot.conftest import Cluster, switched_on
from tests.integration.images.conftest import warm_root


@pytest.fixture
def cluster(built_root: Path) -> Iterator[Cluster]:
    """A Pi 3B that has just been switched on, below a root of its own."""
    with warm_root(built_root) as paths:
        paths.root.chmod(0o755)  # munge and slurm are users of their own
        build(paths, config.load(paths.config), "default")
        with switched_on(paths, "3B", machine="raspi3b") as cluster:
            yield cluster


def wait_for_stage(cluster: Cluster, mac: str, stage: Stage) -> None:
    deadline = time.monotonic() + demo.READY_WITHIN
    while not (seen := boots.read(cluster.paths.boots, mac)) or stage not in seen[-1].stages:
        assert time.monotonic() < deadline, cluster.lab.folders()[0].last_line()
        time.sleep(0.5)


def test_registered_while_it_waits(cluster: Cluster) -> None:
    state = cluster.lab.states()[0]
    wait_for_stage(cluster, state.mac, Stage.WAITING)
    [node] = cluster.register(1)
    assert (node.mac, node.serial, node.model) == (state.mac, state.serial, "3B")
    wait_for_stage(cluster, node.mac, Stage.ROOT)
    now = cluster.lab.states()[0]
    assert (now.state, now.boots) == (State.RUNNING, 1)
    assert cluster.lab.folders()[0].read_report() is not None
    cluster.wait_until_ready([node])
    assert cluster.ssh(node, "tr -d '\\0' </proc/device-tree/model") == "Raspberry Pi 3 Model B Rev 1.2"
    assert cluster.ssh(node, "basename $(readlink /sys/class/net/eth0/device/driver)") == "cdc_ether"
