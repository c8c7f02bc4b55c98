"""Which generation each node runs, and that none of them is taken away."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.files import locked
from kestrelpi.images import sbom, tidy
from kestrelpi.images.manifest import Manifest
from kestrelpi.images.store import Generation, Store
from kestrelpi.nodes.boots import BootLog, Stage
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry, edit
from kestrelpi.nodes.running import holding_used, running, used
from kestrelpi.paths import Paths

CONFIG = config.parse("groups: {rpi: {}}\nimages: {default: {}}\n")
ONE, TWO, THREE = (f"2026010{day}-000000-0000000{day}" for day in (1, 2, 3))


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


def publish(paths: Paths, id: str) -> Generation:
    store = Store(paths)
    draft = store.folder("default") / f".new-{id}"
    draft.mkdir(parents=True)
    (draft / "manifest.json").write_text(sbom.text_of(Manifest(id, "default", "bookworm", "", "6.1", {}, {}, ())))
    return store.publish(draft, "default", id)


def test_what_nodes_are_pinned_to_and_run_is_used(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    log = BootLog(paths.boots)
    log.record(node(1).mac, Stage.DISCOVER, 1000.0)
    log.record(node(1).mac, Stage.ROOT, 1001.0, f"default {ONE}")
    registry = Registry.of([node(1), replace(node(2), pin=TWO)])
    assert used(paths, CONFIG, registry) == {("default", ONE), ("default", TWO)}


def test_a_generation_that_is_pinned_while_others_are_removed_stays(tmp_path: Path) -> None:
    """The clean-up begins while somebody pins a node: it decides when that is done, not before."""
    paths = Paths(tmp_path)
    for id in (ONE, TWO, THREE):
        publish(paths, id)
    collect = threading.Thread(target=partial(tidy.collect, paths, 0, partial(holding_used, paths, CONFIG)))
    with edit(paths, CONFIG) as change:
        collect.start()
        while not is_locked(paths.state / "build.lock"):  # it is at work
            time.sleep(0.001)
        assert Store(paths).generation("default", ONE)
        change.registry = Registry.of([replace(node(1), pin=ONE)])
    collect.join()
    assert [one.id for one in Store(paths).generations("default")] == [ONE, THREE]


def is_locked(path: Path) -> bool:
    try:
        with locked(path, "it", wait=0):
            return False
    except UserError:
        return True


def test_nobody_pins_a_node_while_generations_are_chosen(tmp_path: Path) -> None:
    """What is removed is out of the store before the registry is free again: pinning a node to it is refused."""
    paths = Paths(tmp_path)
    for id in (ONE, TWO):
        publish(paths, id)
    lock = paths.registry.with_name("nodes.yaml.lock")
    with holding_used(paths, CONFIG) as found:
        assert found == set()
        assert is_locked(lock)
        Store(paths).withdraw(Store(paths).generation("default", ONE))
    assert not is_locked(lock)
    with pytest.raises(UserError, match="no generation"):
        Store(paths).generation("default", ONE)
