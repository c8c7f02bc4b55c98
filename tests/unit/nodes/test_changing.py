"""`nodes set`, `nodes remove`, and finding what a user named."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.nodes.changing import Change, change_node, remove_nodes
from kestrelpi.nodes.finding import find_node
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.nodes.sightings import Sighting

CONFIG = config.parse("groups: {rpi: {}, big: {image: other}}\nimages: {default: {}, other: {}}\n")
ONE = Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.0.11"), "91cdf03d", "4B")
TWO = Node("rpi2", "dc:a6:32:00:00:02", "rpi", IPv4Address("10.77.0.12"))
REGISTRY = Registry.of([ONE, TWO])


def changed(change: Change, name: str = "rpi1") -> Node:
    registry, node = change_node(REGISTRY, CONFIG, name, change, {})
    assert registry.by_name[node.name] is node
    assert len(registry) == 2
    return node


def test_each_value() -> None:
    assert changed(Change(name="head")).name == "head"
    assert changed(Change(address=IPv4Address("10.77.0.99"))).address == IPv4Address("10.77.0.99")
    assert changed(Change(image="other")).image == "other"
    assert changed(Change(image="default")).image == "", "that is the group's already"
    assert changed(Change(group="big")).image_of(CONFIG) == "other"
    assert changed(Change(pin="20261122-013000-1a2b3c4d")).pin == "20261122-013000-1a2b3c4d"
    assert changed(Change(pin="")).pin == ""


def test_another_board_has_another_serial() -> None:
    mac = "dc:a6:32:00:00:09"
    assert changed(Change(mac=mac)) == Node("rpi1", mac, "rpi", ONE.address)
    known = {mac: Sighting(mac, "0000000f", "400")}
    _, node = change_node(REGISTRY, CONFIG, "rpi1", Change(mac=mac), known)
    assert (node.serial, node.model) == ("0000000f", "400")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change(name="rpi2"), "there is a node rpi2 already"),
        (Change(name="Rpi_2"), "can't be a host name"),
        (Change(address=TWO.address), "the address 10.77.0.12 is already rpi2's"),
        (Change(address=IPv4Address("10.77.0.200")), "is outside of network.nodes"),
        (Change(mac=TWO.mac), "is already rpi2's"),
        (Change(group="rpo"), "there is no group 'rpo'"),
        (Change(image="gone"), "there is no image 'gone'"),
    ],
)
def test_what_cannot_be(change: Change, said: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(change)
    assert said in caught.value.what


def test_remove() -> None:
    registry, gone = remove_nodes(REGISTRY, ["rpi2", "rpi2"])
    assert (registry.nodes, gone) == ((ONE,), [TWO])
    with pytest.raises(UserError, match="there is no node 'rpi3'"):
        remove_nodes(REGISTRY, ["rpi1", "rpi3"])


def test_a_node_is_found_by_whatever_identifies_it() -> None:
    for name in ("rpi1", "DC:A6:32:00:00:01", "dc-a6-32-00-00-01", "91CDF03D", "10.77.0.11"):
        assert find_node(REGISTRY, name) is ONE, name


def test_an_unknown_name_names_what_is_near() -> None:
    with pytest.raises(UserError) as caught:
        find_node(REGISTRY, "rp1")
    assert caught.value.fix == "did you mean rpi1?"
    with pytest.raises(UserError) as caught:
        find_node(REGISTRY, "x")
    assert caught.value.fix == "nodes: rpi1, rpi2"
    with pytest.raises(UserError) as caught:
        find_node(Registry(), "x")
    assert caught.value.fix == "there is no node yet"
