"""A Pi 3B on its own devices, network on USB: registered while it waits, it boots on with no power cycle.

Its image has what Debian doesn't: stand-ins for k3s, which write down how they are called, and a package that has
Apptainer's name; and Lmod in the place of environment-modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kestrelpi import config, run
from kestrelpi.images.build import build
from kestrelpi.images.modules import of_image
from kestrelpi.images.store import Store
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
from tests.waiting import until

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
APPTAINER = "apptainer_1.4.5_arm64.deb"
CONTROL = """\
Package: apptainer
Version: 1.4.5
Architecture: arm64
Maintainer: nobody <nobody@localhost>
Depends: uidmap
Description: what installs like apptainer's package
"""
POSTINST = "#!/bin/sh\nuname -m >/usr/share/apptainer-was-configured-on\n"
CONFIG = """\
cluster: test
network: {{address: 10.96.0.1/24}}
services: {{nfs: {{backend: ganesha}}}}
images:
  default:
    modules: [k3s, apptainer, openmp, openmpi, lmod]
    options:
      apptainer: {{sha256: {apptainer}}}
      k3s: {{version: {version}, sha256_amd64: {k3s}, sha256_arm64: {agent}, sha256_images: {images}}}
groups: {{rpi: {{image: default}}}}
"""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files to fetch."""
    folder = tmp_path_factory.mktemp("downloads")
    for name, content in {**RELEASE, "k3s-arm64": AGENT.encode()}.items():
        (folder / name).write_bytes(content)
    tree = folder / "tree"
    for name, text, mode in (
        ("DEBIAN/control", CONTROL, 0o644),
        ("DEBIAN/postinst", POSTINST, 0o755),
        ("usr/bin/apptainer", "#!/bin/sh\necho 'a stand-in for apptainer'\n", 0o755),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        (tree / name).chmod(mode)
    run.run(["dpkg-deb", "--root-owner-group", "--build", tree, folder / APPTAINER])
    return folder


@pytest.fixture(scope="module")
def cluster(built_root: Path, downloads: Path) -> Iterator[Cluster]:
    """The Pi has just been switched on, below a root of its own."""
    files = {"apptainer": APPTAINER, "k3s": "k3s", "agent": "k3s-arm64", "images": "k3s-airgap-images-arm64.tar.zst"}
    hashes = {key: hashlib.sha256((downloads / name).read_bytes()).hexdigest() for key, name in files.items()}
    with warm_root(built_root) as paths:
        paths.root.chmod(0o755)  # some of the services are users of their own
        paths.config.write_text(CONFIG.format(version=VERSION, **hashes))
        run.run(program(paths.root, "modules", "fetch", "--from", downloads))
        build(paths, config.load(paths.config), "default")
        with switched_on(paths, "3B", machine="raspi3b") as cluster:
            yield cluster


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Node:
    """Registered once it waits."""
    wait_for_stage(cluster, cluster.lab.states()[0].mac, Stage.WAITING)
    [node] = cluster.register(1)
    wait_for_stage(cluster, node.mac, Stage.ROOT)
    return node


def wait_for_stage(cluster: Cluster, mac: str, stage: Stage) -> None:
    def reached() -> bool:
        seen = boots.read(cluster.paths.boots, mac)
        return bool(seen) and stage in seen[-1].stages

    until(reached, cluster.lab.folders()[0].last_line, demo.READY_WITHIN, pause=0.5)


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


def test_a_fetched_package_is_installed_with_what_it_needs(cluster: Cluster, node: Node) -> None:
    assert cluster.ssh(node, "apptainer") == "a stand-in for apptainer"
    assert cluster.ssh(node, "cat /usr/share/apptainer-was-configured-on") == "aarch64"
    assert (
        cluster.ssh(node, "dpkg --audit; command -v newuidmap squashfuse") == "/usr/bin/newuidmap\n/usr/bin/squashfuse"
    )
    current = Store(cluster.paths).current("default")
    assert current
    assert current.manifest.packages["apptainer"] == "1.4.5"


def test_lmod_finds_the_module_files(cluster: Cluster, node: Node) -> None:
    loaded = "module load fibo openmpi && echo $LMOD_VERSION $FIBO_HOME $SLURM_MPI_TYPE"
    version, *rest = cluster.ssh(node, f"bash -lc '{loaded}'").split()
    assert int(version.split(".")[0]) >= 6
    assert rest == ["/usr/local/share/kestrelpi/fibo", "pmix"]
