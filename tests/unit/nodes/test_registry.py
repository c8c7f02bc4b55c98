"""The registry: what people may write, what we write, and what is refused with its line."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from kestrelpi import config
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.nodes import registry_file
from kestrelpi.nodes.registry import Node, Registry, edit, natural
from kestrelpi.paths import Paths

CONFIG = config.parse("groups: {rpi: {}, big: {}}\nimages: {default: {}, other: {}}\n")
GOOD = """\
nodes:
  rpi2: {mac: dc:a6:32:00:00:02, serial: 91cdf03d, model: 4B, group: rpi, address: 10.77.0.12}
  rpi10: {mac: b8:27:eb:00:00:0a, group: rpi, address: 10.77.0.20, image: other, pin: 20261122-013000-1a2b3c4d}
  rpi1: {mac: dc:a6:32:00:00:01, serial: "12345678", model: "400", group: big, address: 10.77.0.11}
"""
BLOCK_STYLE = """\
# by hand
nodes:
  rpi2:
    mac: DC-A6-32-00-00-02
    serial: 1000000091CDF03D
    model: 4B
    group: rpi
    address: 10.77.0.12   # a comment
  rpi10: {mac: b8:27:eb:00:00:0a, group: rpi, address: 10.77.0.20, image: other, pin: 20261122-013000-1a2b3c4d}
  rpi1: {mac: dc:a6:32:00:00:01,
         serial: 12345678, model: 400, group: big, address: 10.77.0.11}
"""


def test_names_are_in_natural_order() -> None:
    assert [node.name for node in Registry.parse(GOOD)] == ["rpi1", "rpi2", "rpi10"]
    assert sorted(("b1", "a10", "a9", "a"), key=natural) == ["a", "a9", "a10", "b1"]


def test_lookups() -> None:
    registry = Registry.parse(GOOD, config=CONFIG)
    node = registry.by_name["rpi2"]
    assert node == Node("rpi2", "dc:a6:32:00:00:02", "rpi", IPv4Address("10.77.0.12"), "91cdf03d", "4B")
    assert registry.by_mac["dc:a6:32:00:00:02"] is node
    assert registry.by_serial["91cdf03d"] is node
    assert registry.by_address[IPv4Address("10.77.0.12")] is node
    assert "" not in registry.by_serial, "an unknown serial is nobody's"


def test_what_people_write_in_any_style_is_the_same() -> None:
    assert Registry.parse(BLOCK_STYLE, config=CONFIG) == Registry.parse(GOOD, config=CONFIG)


def test_what_is_written_reads_back_quickly_and_by_other_yaml_readers() -> None:
    registry = Registry.parse(GOOD)
    text = registry.emit()
    assert Registry.parse(text) == registry
    assert registry_file._read_quick(text, "x") is not None, "our own lines must not take the slow way"
    plain = yaml.safe_load(text)["nodes"]
    assert list(plain) == ["rpi1", "rpi2", "rpi10"]
    assert plain["rpi1"]["serial"] == "12345678", "not a number"
    assert plain["rpi1"]["model"] == "400"


@pytest.mark.parametrize("value", ["12345678", "91e10000", "00000000", "0x123456", "1_000000", "12:30:45"])
def test_values_that_look_like_numbers_stay_text(value: str) -> None:
    node = Node("a", "10:20:30:40:50:59", "rpi", IPv4Address("10.77.0.12"), model=value)
    text = Registry.of([node]).emit()
    assert yaml.safe_load(text)["nodes"]["a"] == {
        "mac": "10:20:30:40:50:59",
        "model": value,
        "group": "rpi",
        "address": "10.77.0.12",
    }
    assert Registry.parse(text).by_name["a"] == node


def test_empty_files_are_empty_registries(tmp_path: Path) -> None:
    assert len(Registry.load(tmp_path / "none")) == 0
    for text in ("", "\n", "# nothing\n", "nodes:\n", "nodes: {}\n", Registry().emit()):
        assert Registry.parse(text) == Registry(), text


def line(name: str = "rpi3", mac: str = "dc:a6:32:00:00:03", address: str = "10.77.0.13", more: str = "") -> str:
    return f"  {name}: {{mac: {mac}, group: rpi, address: {address}{more}}}\n"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (line(mac="dc:a6:32:00:00:02"), "rpi2 and rpi3 have the same mac: dc:a6:32:00:00:02"),
        (line(mac="DC-A6-32-00-00-02"), "rpi2 and rpi3 have the same mac: dc:a6:32:00:00:02"),
        (line(address="10.77.0.12"), "rpi2 and rpi3 have the same address: 10.77.0.12"),
        (line(more=", serial: 91cdf03d"), "rpi2 and rpi3 have the same serial: 91cdf03d"),
        (line(name="rpi2"), "nodes.rpi2 stands here a second time"),
        (line(mac="dc:a6:32"), "'dc:a6:32' is no MAC address"),
        (line(address="10.77.0.300"), "nodes.rpi3.address is '10.77.0.300'"),
        (line(more=", serial: xyz"), "'xyz' is no serial"),
        (line(more=", colour: red"), "unknown key nodes.rpi3.colour"),
        (line(more=", group: rpo"), "nodes.rpi3.group stands here a second time"),
        (line(name="rpi_3"), "'rpi_3' can't be a host name"),
        (line(name="Rpi3"), "'Rpi3' can't be a host name"),
        (line(more=", pin: ../x"), "'../x' is no generation"),
        ("  rpi3: {mac: dc:a6:32:00:00:03, group: rpi}\n", "nodes.rpi3 lacks address"),
        ("  rpi3: 5\n", "nodes.rpi3 must be a mapping of keys to values"),
        ("  rpi3: {mac: a: b}\n", "this is not YAML"),
        ("  rpi3: {mac: [1]}\n", "nodes.rpi3.mac must be a single value"),
        ("nodes:\n", "nodes stands here a second time"),
        (line(address="10.78.0.13"), "10.78.0.13 is not in the nodes' network 10.77.0.0/24"),
        (line(address="10.77.0.130"), "10.77.0.130 is outside of network.nodes (10.77.0.11-10.77.0.127)"),
        (line(address="10.77.0.1"), "10.77.0.1 is outside of network.nodes (10.77.0.11-10.77.0.127)"),
        (line(more=", image: gone"), "there is no image 'gone'"),
        (line().replace("group: rpi", "group: rpo"), "there is no group 'rpo'"),
    ],
)
def test_nonsense_is_refused_with_its_line(added: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Registry.parse(GOOD + added, "nodes.yaml", CONFIG)
    assert said in str(caught.value)
    assert caught.value.where == "nodes.yaml:5"
    assert caught.value.detail == added.rstrip()


def test_values_are_found_in_the_line_of_a_block() -> None:
    with pytest.raises(ConfigError) as caught:
        Registry.parse(BLOCK_STYLE.replace("10.77.0.12 ", "10.88.0.12 "), "nodes.yaml", CONFIG)
    assert caught.value.where == "nodes.yaml:8"


def test_two_thousand_nodes_take_the_quick_way() -> None:
    nodes = [
        Node(f"n{i}", f"dc:a6:32:{i >> 16:02x}:{i >> 8 & 255:02x}:{i & 255:02x}", "rpi", IPv4Address(0x0A000100 + i))
        for i in range(1, 2001)
    ]
    text = Registry.of(nodes).emit()
    quick = registry_file._read_quick(text, "x")
    assert quick is not None
    assert quick[0] == nodes
    assert Registry.parse(text).by_name["n2000"] == nodes[-1]


def test_with_node_refuses_what_is_anothers() -> None:
    registry = Registry.parse(GOOD)
    new = Node("rpi3", "dc:a6:32:00:00:03", "rpi", IPv4Address("10.77.0.13"))
    assert registry.with_node(new).by_name["rpi3"] == new
    assert len(registry) == 3, "the old one stays as it is"
    for clash in (
        Node("rpi3", "dc:a6:32:00:00:02", "rpi", IPv4Address("10.77.0.13")),
        Node("rpi3", "dc:a6:32:00:00:03", "rpi", IPv4Address("10.77.0.12")),
        Node("rpi3", "dc:a6:32:00:00:03", "rpi", IPv4Address("10.77.0.13"), serial="91cdf03d"),
    ):
        with pytest.raises(UserError, match="already rpi2's"):
            registry.with_node(clash)
    assert "rpi2" not in registry.without("rpi2").by_name


def test_edit_saves_whole_and_only_what_is_good(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    node = Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.0.11"))
    with edit(paths, CONFIG) as change:
        change.registry = change.registry.with_node(node)
    assert Registry.load(paths.registry, CONFIG).nodes == (node,)
    before = paths.registry.read_bytes()
    with pytest.raises(RuntimeError), edit(paths, CONFIG) as change:
        change.registry = Registry()
        raise RuntimeError
    assert paths.registry.read_bytes() == before, "a block that fails changes nothing"
    with pytest.raises(ConfigError, match="outside of network"), edit(paths, CONFIG) as change:
        far = Node("rpi2", "dc:a6:32:00:00:02", "rpi", IPv4Address("10.77.0.200"))
        change.registry = change.registry.with_node(far)
    assert paths.registry.read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["nodes.yaml", "nodes.yaml.lock"]


def test_edit_leaves_an_unchanged_file_alone(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.registry.parent.mkdir(parents=True)
    paths.registry.write_text(BLOCK_STYLE)
    with edit(paths, CONFIG):
        pass
    assert paths.registry.read_text() == BLOCK_STYLE, "comments are lost only when there is something to write"


def test_what_people_wrote_is_kept_beside(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.registry.parent.mkdir(parents=True)
    paths.registry.write_text(BLOCK_STYLE)
    for name in ("rpi2", "rpi10"):
        with edit(paths, CONFIG) as change:
            change.registry = change.registry.without(name)
    assert paths.registry.with_name("nodes.yaml.bak").read_text() == BLOCK_STYLE
    assert "a comment" not in paths.registry.read_text()
    assert [node.name for node in Registry.load(paths.registry)] == ["rpi1"]
