"""The registry follows addresses that another server gives."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.config import parse
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.nodes import leases
from kestrelpi.nodes.changing import Change, change_node
from kestrelpi.nodes.following import follow, follow_all
from kestrelpi.nodes.leases import Lease
from kestrelpi.nodes.registering import Clock, Registered, Registrar
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.paths import Paths

A, B, C = "dc:a6:32:00:00:01", "dc:a6:32:00:00:02", "dc:a6:32:00:00:03"
PROXY = parse("network: {address: 10.77.0.1/24}\nservices: {dhcp: {backend: proxy}}\n")


def at(number: int) -> IPv4Address:
    return IPv4Address(f"10.77.0.{number}")


def registry() -> Registry:
    return Registry((Node("rpi1", A, "rpi", at(131)), Node("rpi2", B, "rpi", at(132)), Node("rpi3", C, "rpi", at(133))))


@pytest.mark.parametrize(
    ("met", "addresses"),
    [
        ({}, [131, 132, 133]),
        ({A: 140}, [140, 132, 133]),
        ({A: 132, B: 131}, [132, 131, 133]),
        ({A: 132}, [131, 132, 133]),
        ({A: 132, B: 133}, [131, 132, 133]),
        ({A: 132, B: 150}, [132, 150, 133]),
        ({A: 140, B: 140, C: 150}, [131, 132, 150]),
    ],
    ids=["nothing", "one", "swap", "taken", "a chain whose end is taken", "chain", "two at one"],
)
def test_addresses_follow_where_they_can(met: dict[str, int], addresses: list[int]) -> None:
    new = follow(registry(), {mac: at(number) for mac, number in met.items()})
    assert [node.address for node in new] == [at(number) for number in addresses]


def test_the_file_follows_and_may_hold_any_address_of_the_network(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.registry.parent.mkdir(parents=True)
    paths.registry.write_text(registry().emit())
    assert [node.name for node in follow_all(paths, PROXY, {A: at(250)})] == ["rpi1"]
    assert Registry.load(paths.registry, PROXY).by_name["rpi1"].address == at(250)
    with pytest.raises(ConfigError, match=r"outside of network\.nodes"):
        Registry.load(paths.registry, parse("network: {address: 10.77.0.1/24}\n"))
    changed, node = change_node(Registry.load(paths.registry, PROXY), PROXY, "rpi1", Change(name="one"), {})
    assert node.address == at(250) and "one" in changed.by_name


def registrar(folder: Path, mac: str, address: IPv4Address) -> Registrar:
    paths = Paths(folder)
    leases.write(paths.leases, {mac: Lease(2_000_000, mac, address)})
    return Registrar(paths, PROXY, "rpi", clock=Clock(lambda: 1_000_000.0, lambda: 0.0, lambda seconds: None))


def test_a_pi_is_registered_with_the_address_at_which_it_was_met(tmp_path: Path) -> None:
    one = registrar(tmp_path, A, at(201))
    done = [event for event in one.poll() if isinstance(event, Registered)]
    assert [(event.node.name, event.node.address) for event in done] == [("rpi1", at(201))]
    other = registrar(tmp_path, B, at(201))
    with pytest.raises(UserError, match=r"10\.77\.0\.201, which was that of rpi1"):
        other.poll()
