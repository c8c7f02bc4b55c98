"""A connection to a node whose sshd doesn't run. (That connections are shared, and end, is shown by tests/boot.)"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import config, run
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths
from tests.integration.namespaces import network

NODE = Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.0.11"))


def test_what_ssh_says_is_told_and_it_tries_once(tmp_path: Path) -> None:
    with network("10.77.0.1/24", {"node": NODE.mac}) as (frontend, clients):
        clients["node"].ip("address", "add", "10.77.0.11/24", "dev", "eth0")
        asked: list[Sequence[str]] = []

        def enter(argv: Sequence[str]) -> list[str]:
            asked.append(argv)
            return frontend.argv(*argv)

        with (
            Connections(Paths(tmp_path), config.parse(""), enter) as connections,
            pytest.raises(run.CommandFailed, match="Connection refused") as caught,
        ):
            connections.run(NODE, "true")
    assert caught.value.returncode == 255
    assert len(asked) == 1
