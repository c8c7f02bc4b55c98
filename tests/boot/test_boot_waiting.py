"""A Pi that is registered while it waits boots on, with no power cycle. On a Pi 3B's own devices, network on USB.

Its image has k3s, with stand-ins for the programs that write down how they are called.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kestrelpi import config, run
from kestrelpi.images.build import build
from kestrelpi.images.modules import of_image
from kestrelpi.lab import demo
from kestrelpi.lab.state import State
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.module_secrets import of_modules
from kestrelpi.nodes.registry import Node
from tests.boot.conftest import Cluster, switched_on
from tests.integration.images.conftest import warm_root
from tests.integration.test_k3s import CONTENTS as RELEASE
from tests.integration.test_k3s import VERSION
from tests.program import program

AGENT = """\
#!/bin/sh
# A stand-in for k3s on a node.
cp /etc/rancher/k3s/config.yaml /data/config
echo "$*" >/data/argv
ls /data/k3s/agent/images >/data/images
cp /etc/rancher/k3s/agent-token /data/token
cp /etc/rancher/node/password /data/password
touch /data/called
exec sleep infinity
"""
CONTENTS = {**RELEASE, "k3s-arm64": AGENT.encode()}
OPTIONS = {"sha256_amd64": "k3s", "sha256_arm64": "k3s-arm64", "sha256_images": "k3s-airgap-images-arm64.tar.zst"}
CONFIG = """\
cluster: test
network: {{address: 10.96.0.1/24}}
services: {{nfs: {{backend: ganesha}}}}
images: {{default: {{modules: [k3s], options: {{k3s: {{{options}}}}}}}}}
groups: {{rpi: {{image: default}}}}
"""


@pytest.fixture(scope="module")
def cluster(built_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Pi 3B that has just been switched on, below a root of its own."""
    downloads = tmp_path_factory.mktemp("k3s")
    for name, content in CONTENTS.items():
        (downloads / name).write_bytes(content)
    options = {"version": VERSION, **{option: sha256(name) for option, name in OPTIONS.items()}}
    with warm_root(built_root) as paths:
        paths.root.chmod(0o755)  # some of the services are users of their own
        paths.config.write_text(CONFIG.format(options=", ".join(f"{key}: {value}" for key, value in options.items())))
        run.run(program(paths.root, "modules", "fetch", "--from", downloads))
        build(paths, config.load(paths.config), "default")
        with switched_on(paths, "3B", machine="raspi3b") as cluster:
            yield cluster


def sha256(name: str) -> str:
    return hashlib.sha256(CONTENTS[name]).hexdigest()


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Node:
    """Registered once it waits."""
    wait_for_stage(cluster, cluster.lab.states()[0].mac, Stage.WAITING)
    [node] = cluster.register(1)
    wait_for_stage(cluster, node.mac, Stage.ROOT)
    return node


def wait_for_stage(cluster: Cluster, mac: str, stage: Stage) -> None:
    deadline = time.monotonic() + demo.READY_WITHIN
    while not (seen := boots.read(cluster.paths.boots, mac)) or stage not in seen[-1].stages:
        assert time.monotonic() < deadline, cluster.lab.folders()[0].last_line()
        time.sleep(0.5)


def test_registered_while_it_waits(cluster: Cluster, node: Node) -> None:
    state = cluster.lab.states()[0]
    assert (node.mac, node.serial, node.model) == (state.mac, state.serial, "3B")
    assert (state.state, state.boots) == (State.RUNNING, 1)
    assert cluster.lab.folders()[0].read_report() is not None
    cluster.wait_until_ready([node])
    assert cluster.ssh(node, "tr -d '\\0' </proc/device-tree/model") == "Raspberry Pi 3 Model B Rev 1.2"
    assert cluster.ssh(node, "basename $(readlink /sys/class/net/eth0/device/driver)") == "cdc_ether"


def test_its_k3s_agent_has_what_it_joins_with(cluster: Cluster, node: Node) -> None:
    cluster.until(node, "ls /data", lambda said: "called" in said.split())
    assert cluster.ssh(node, "cat /data/argv") == "agent"
    told = yaml.safe_load(cluster.ssh(node, "cat /data/config"))
    assert told["server"] == "https://10.96.0.1:6443"
    assert (told["node-name"], told["node-ip"]) == (node.name, str(node.address))
    assert cluster.ssh(node, "cat /data/images") == "k3s-airgap-images-arm64.tar.zst"
    assert "memory" in cluster.ssh(node, "cat /sys/fs/cgroup/cgroup.controllers").split()


def test_it_knows_the_server_by_its_certificate_and_keeps_its_password(cluster: Cluster, node: Node) -> None:
    server = (cluster.paths.root / "var/lib/rancher/k3s/server/agent-token").read_text().strip()
    assert server.startswith("K10")
    assert cluster.ssh(node, "cat /data/token") == server
    modules = of_image(cluster.paths, cluster.config, "default")
    kept = {name: content.decode() for _, name, _, content in of_modules(cluster.paths, modules, node.name)}
    assert cluster.ssh(node, "cat /data/password") == kept["node-password"]
    assert len(bytes.fromhex(kept["node-password"])) == 16
    modes = cluster.ssh(node, "stat -c '%a %U' /etc/rancher/node/password /etc/rancher/k3s/agent-token")
    assert modes.splitlines() == ["600 root", "400 root"]
