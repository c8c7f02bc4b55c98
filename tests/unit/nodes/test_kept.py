"""What nodes leave with the frontend: each its own, or one for all; who may do what."""

from __future__ import annotations

import stat
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.config import Config, parse
from kestrelpi.nodes.kept import KeptThings, NotKept
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths

NODES = [Node(f"rpi{n}", f"dc:a6:32:00:00:0{n}", "rpi", IPv4Address(f"10.77.0.1{n}")) for n in (1, 2, 3)]
MODULE = """\
name: herd
options: {head: {help: who leads}}
kept:
  own: {}
  common: {writer: "{{ options.head or members[0].name }}"}
"""
CONFIG = """
images:
  default: {modules: [herd]}
  plain: {modules: []}
groups:
  rpi: {image: default}
"""


def things(tmp_path: Path, text: str = CONFIG, nodes: list[Node] = NODES) -> KeptThings:
    paths = Paths(tmp_path)
    folder = paths.etc / "modules/herd"
    folder.mkdir(parents=True)
    (folder / "module.yaml").write_text(MODULE)
    config: Config = parse(text)
    return KeptThings(paths, config, Registry.of(nodes))


def test_each_node_gets_its_own_back_and_only_that(tmp_path: Path) -> None:
    kept = things(tmp_path)
    first, second, _ = NODES
    assert kept.read(first, "herd", "own") == b""
    kept.write(first, "herd", "own", b"\x00one")
    kept.write(second, "herd", "own", b"two")
    assert kept.read(first, "herd", "own") == b"\x00one"
    # The board, not the name: a renamed node stays itself.
    assert kept.read(replace(first, name="other"), "herd", "own") == b"\x00one"


def test_only_root_on_the_frontend_reads_them(tmp_path: Path) -> None:
    kept = things(tmp_path)
    kept.write(NODES[0], "herd", "own", b"x")
    kept.write(NODES[0], "herd", "common", b"x")
    secrets = kept.paths.secrets
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (secrets, *secrets.rglob("*")) if path.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.rglob("*") if path.is_file()} == {0o600}


def test_what_is_common_is_written_by_one_node(tmp_path: Path) -> None:
    kept = things(tmp_path)
    kept.write(NODES[0], "herd", "common", b"follow me")
    with pytest.raises(NotKept, match="for rpi1 to leave, not for rpi2"):
        kept.write(NODES[1], "herd", "common", b"no, me")
    assert kept.read(NODES[2], "herd", "common") == b"follow me"


def test_an_option_says_who_writes(tmp_path: Path) -> None:
    kept = things(tmp_path, CONFIG.replace("[herd]", "[herd], options: {herd: {head: rpi3}}"))
    kept.write(NODES[2], "herd", "common", b"x")
    with pytest.raises(NotKept, match="for rpi3"):
        kept.write(NODES[0], "herd", "common", b"x")


def test_nodes_without_the_module_neither_read_nor_write_nor_count(tmp_path: Path) -> None:
    stranger = replace(NODES[0], image="plain")
    kept = things(tmp_path, nodes=[stranger, *NODES[1:]])
    for name in ("own", "common", "nonsense"):
        with pytest.raises(NotKept, match=f"no module of rpi1 keeps herd/{name}"):
            kept.read(stranger, "herd", name)
        with pytest.raises(NotKept):
            kept.write(stranger, "herd", name, b"x")
    kept.write(NODES[1], "herd", "common", b"the first that has the module")
    with pytest.raises(NotKept):
        kept.read(NODES[1], "herd", "../../token.key")
