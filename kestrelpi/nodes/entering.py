"""SSH into a node with the cluster's key, and with a known_hosts of the host keys that we gave the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.files import write_whole
from kestrelpi.nodes.identity import Secrets
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths


def ssh_command(paths: Paths, config: Config, node: Node, words: Sequence[str] = ()) -> list[str]:
    """The argv that enters `node` as root; makes the keys and the known_hosts file if they aren't there.

    The node's host key is ours: there is nothing to trust on first use, and a wrong key is an error.
    """
    secrets = Secrets(paths)
    options = {
        "UserKnownHostsFile": known_hosts(secrets, config, node),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "ConnectTimeout": "30",
    }
    argv = ["ssh", "-i", str(secrets.cluster_key().private)]
    for key, value in options.items():
        argv += ["-o", f"{key}={value}"]
    return [*argv, f"root@{node.address}", *words]


def known_hosts(secrets: Secrets, config: Config, node: Node) -> Path:
    """A known_hosts file with this node's key, under its names and its address."""
    path = secrets.host_key(node.mac).private.with_name("known_hosts")
    text = secrets.known_hosts([node], config.network.domain)
    if not path.exists() or path.read_text(encoding="ascii") != text:
        write_whole(path, text, mode=0o600)
    return path
