"""What the modules docker and swarm render: for nodes, for the frontend, for one node."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from kestrelpi.config import load, parse
from kestrelpi.errors import ConfigError
from kestrelpi.images.modules import Enabled, of_frontend, of_image
from kestrelpi.images.overrides import resolve
from kestrelpi.images.packages import read_lists
from kestrelpi.images.scripts import Settings, render
from kestrelpi.images.sources import overlay, script_layers
from kestrelpi.nodes.files import RuntimeFiles
from kestrelpi.nodes.kept import KeptThings, NotKept
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.services.module_files import Frontend

NODES = Registry.parse(
    'nodes:\n  rpi2: {mac: "dc:a6:32:00:00:02", group: rpi, address: 10.77.0.12}\n'
    '  rpi3: {mac: "dc:a6:32:00:00:03", group: rpi, address: 10.77.0.13}\n'
    '  apart1: {mac: "dc:a6:32:00:00:01", group: apart, address: 10.77.0.11}\n'
)


def text(options: str = "") -> str:
    return (
        f"images:\n  default: {{modules: [swarm], options: {{{options}}}}}\n  plain: {{modules: []}}\n"
        "groups: {rpi: {}, apart: {image: plain}}\n"
    )


def on_nodes(tmp_path: Path, name: str, options: str = "", suite: str = "bookworm") -> str:
    """A file of the node overlay as it is in the image."""
    paths, config = Paths(tmp_path), parse(text(options))
    settings = Settings("default", suite, config, paths, tmp_path, {}, of_image(paths, config, "default").options or {})
    return render(overlay(paths, config, "default", "node")[name], settings).decode()


def test_dockers_configuration(tmp_path: Path) -> None:
    found = json.loads(on_nodes(tmp_path, "etc/docker/daemon.json"))
    assert found["data-root"] == "/data/docker"
    assert found["storage-driver"] == "overlay2"
    assert found["registry-mirrors"] == ["http://frontend:5000"]
    assert found["insecure-registries"] == ["frontend:5000", "10.77.0.1:5000"]


def test_options_reach_dockers_configuration(tmp_path: Path) -> None:
    options = "docker: {port: 5055, mirror: off}, data: {path: /mnt/ssd}"
    found = json.loads(on_nodes(tmp_path, "etc/docker/daemon.json", options))
    assert found["data-root"] == "/mnt/ssd/docker"
    assert "registry-mirrors" not in found
    assert found["insecure-registries"] == ["frontend:5055", "10.77.0.1:5055"]
    assert "RequiresMountsFor=/mnt/ssd\n" in on_nodes(
        tmp_path, "etc/systemd/system/docker.service.d/kestrelpi.conf", options
    )


def test_containerd_is_dockers_alone_and_may_take_its_time(tmp_path: Path) -> None:
    found = tomllib.loads(on_nodes(tmp_path, "etc/containerd/config.toml"))
    assert found["version"] == 2
    assert "io.containerd.grpc.v1.cri" in found["disabled_plugins"]
    unit = on_nodes(tmp_path, "etc/systemd/system/containerd.service.d/kestrelpi.conf")
    assert "TimeoutStartSec=infinity" in unit.splitlines()


def test_ipvs_is_there_before_docker_looks_for_it(tmp_path: Path) -> None:
    lines = on_nodes(tmp_path, "etc/modules-load.d/kestrelpi-swarm.conf").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["ip_vs"]


def test_dockers_command_is_a_package_of_its_own_since_debian_13(tmp_path: Path) -> None:
    paths, config = Paths(tmp_path), parse(text())
    enabled = of_image(paths, config, "default")
    lists = resolve(script_layers(paths, "node", "packages", enabled, "default"))
    for suite, wanted in {"bookworm": set(), "trixie": {"docker-cli"}}.items():
        settings = Settings("default", suite, config, paths, tmp_path, {}, enabled.options or {})
        names = read_lists([(lists["docker"].path, render(lists["docker"], settings).decode())]).names
        assert set(names) == {"docker.io", "apparmor"} | wanted


def test_the_registry(tmp_path: Path) -> None:
    front = Frontend.of(Paths(tmp_path), parse(text("docker: {port: 5055}")), NODES, {}, "kestrelpi")
    files = {str(file.path): file.content for file in front.files()}
    config = yaml.safe_load(files[f"{tmp_path}/etc/docker/registry/config.yml"])
    assert config["storage"]["filesystem"]["rootdirectory"] == f"{tmp_path}/var/lib/kestrelpi/registry"
    assert config["http"]["addr"] == "10.77.0.1:5055"
    [(module, service)] = front.services()
    child = front.child(module, service)
    assert child.argv == ("docker-registry", "serve", f"{tmp_path}/etc/docker/registry/config.yml")
    assert (child.user, child.tcp) == ("docker-registry", ("10.77.0.1", 5055))
    assert child.folders == (tmp_path / "var/lib/kestrelpi/registry",)


def enabled(tmp_path: Path, options: str) -> Enabled:
    return of_frontend(Paths(tmp_path), parse(text(options)))


def test_the_frontend_has_docker_only_when_it_manages_the_swarm(tmp_path: Path) -> None:
    assert [one for one in enabled(tmp_path, "").frontend_packages() if one.startswith("docker")] == ["docker-registry"]
    found = enabled(tmp_path, "swarm: {manager: frontend}")
    assert {"docker-registry", "docker.io"} <= set(found.frontend_packages())
    swarm = next(module for module in found if module.name == "swarm")
    assert found.ports(swarm, "frontend") == ["2377/tcp"]
    assert enabled(tmp_path, "").ports(swarm, "frontend") == []


@pytest.mark.parametrize(
    ("options", "manager"),
    [("", "rpi2"), ("swarm: {manager: rpi3}", "rpi3"), ("swarm: {manager: frontend}", "frontend")],
)
def test_every_node_knows_who_manages(tmp_path: Path, options: str, manager: str) -> None:
    """By default the first node that has the module, whatever others there are."""
    paths = Paths(tmp_path)
    for folder, name in (("ssh", "id_ed25519"), ("hosts/dc-a6-32-00-00-03", "ssh_host_ed25519_key")):
        (paths.secrets / folder).mkdir(parents=True)
        for file in (name, f"{name}.pub"):
            (paths.secrets / folder / file).write_text("key")
    archive = RuntimeFiles(paths, parse(text(options)), NODES).archive(NODES.by_name["rpi3"])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile("etc/kestrelpi/swarm.env")
        assert member
        assert member.read().decode() == f"SWARM_MANAGER={manager}\nSWARM_DOCKER=/data/docker\n"
        assert tar.getmember("etc/kestrelpi/kept.key").mode == 0o400


def test_no_node_says_how_to_join_a_swarm_that_the_frontend_manages(tmp_path: Path) -> None:
    kept = KeptThings(Paths(tmp_path), parse(text("swarm: {manager: frontend}")), NODES)
    node = NODES.by_name["rpi2"]
    with pytest.raises(NotKept, match="join of the module swarm is for frontend to leave, not for rpi2"):
        kept.write(node, "swarm", "join", b"another swarm")
    # As modules/swarm/frontend/install.d/60-swarm writes it.
    file = Paths(tmp_path).secrets / "modules/swarm/join"
    file.parent.mkdir(parents=True)
    file.write_text("id token 10.77.0.1:2377")
    assert kept.read(node, "swarm", "join") == b"id token 10.77.0.1:2377"


def test_a_module_that_wants_the_registrys_port_is_named(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    own = paths.etc / "modules/flask"
    own.mkdir(parents=True)
    (own / "module.yaml").write_text("name: flask\nports: {frontend: [5000/tcp]}\n")
    paths.config.write_text("images: {default: {modules: [docker, flask]}}\n")
    with pytest.raises(ConfigError, match="modules docker and flask both want port 5000/tcp of the frontend") as caught:
        of_image(paths, load(paths.config), "default")
    assert "another port" in caught.value.fix
    paths.config.write_text("images: {default: {modules: [docker, flask], options: {docker: {port: 5001}}}}\n")
    assert "flask" in of_image(paths, load(paths.config), "default")


def test_two_images_have_one_swarm(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.etc.mkdir(parents=True)
    paths.config.write_text(
        "images:\n  a: {modules: [swarm]}\n  b:\n    modules: [swarm]\n"
        "    options:\n      swarm: {manager: rpi2}\ngroups: {rpi: {image: a}}\n"
    )
    with pytest.raises(ConfigError, match="swarm has other options here than in the image a") as caught:
        of_frontend(paths, load(paths.config))
    assert caught.value.where.endswith(":6")
