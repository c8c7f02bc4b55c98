"""k3s as data: what the server and the agents are told, and which secrets which of them gets."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kestrelpi.config import Config, parse
from kestrelpi.errors import UserError
from kestrelpi.images import plan, scripts
from kestrelpi.images.fetched import own_arch
from kestrelpi.images.sources import overlay
from kestrelpi.nodes.files import Member, RuntimeFiles
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.services.cluster import write_secrets
from kestrelpi.services.module_files import Frontend

CONFIG = "cluster: test\nimages: {default: {modules: [%s], options: {k3s: {%s}}}}\ngroups: {rpi: {}}\n"
REGISTRY = """
nodes:
  rpi1: {mac: "dc:a6:32:00:00:01", group: rpi, address: 10.77.0.11}
  rpi2: {mac: "dc:a6:32:00:00:02", group: rpi, address: 10.77.0.12}
"""
SERVER_FLAGS = """data-dir bind-address advertise-address https-listen-port tls-san write-kubeconfig
    write-kubeconfig-mode agent-token-file cluster-cidr service-cidr disable-agent egress-selector-mode disable"""
"""Each is a flag of https://docs.k3s.io/cli/server; disable-agent: https://docs.k3s.io/advanced."""
AGENT_FLAGS = "server token-file node-name node-ip data-dir node-label prefer-bundled-bin"
"""Each is a flag of https://docs.k3s.io/cli/agent."""


def site(tmp_path: Path, options: str = "", modules: str = "k3s") -> tuple[Paths, Config, Registry]:
    paths, text = Paths(tmp_path), CONFIG % (modules, options)
    paths.etc.mkdir(parents=True, exist_ok=True)
    paths.config.write_text(text)
    keys = paths.secrets / "ssh"
    for folder in (keys, paths.secrets / "hosts/dc-a6-32-00-00-01", paths.secrets / "hosts/dc-a6-32-00-00-02"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("id_ed25519", "ssh_host_ed25519_key"):
            (folder / name).write_text("PRIVATE\n")
            (folder / f"{name}.pub").write_text("ssh-ed25519 A\n")
    return paths, parse(text), Registry.parse(REGISTRY)


def frontend(tmp_path: Path, options: str = "") -> Frontend:
    return Frontend.of(*site(tmp_path, options), {}, "/usr/bin/kestrelpi")


def rendered(found: Frontend, name: str) -> str:
    return {str(file.path): file.content for file in found.files()}[str(found.paths.root / name)].decode()


def node_files(tmp_path: Path, name: str) -> dict[str, Member]:
    paths, config, registry = site(tmp_path)
    node = next(node for node in registry if node.name == name)
    files = RuntimeFiles(paths, config, registry)
    return {**files.secrets_of_modules(node), **files.overlay(node)}


def test_the_server_is_told_what_k3s_documents(tmp_path: Path) -> None:
    told = yaml.safe_load(rendered(frontend(tmp_path), "etc/rancher/k3s/config.yaml"))
    assert set(told) == set(SERVER_FLAGS.split())
    assert told["bind-address"] == told["advertise-address"] == "10.77.0.1"
    assert told["data-dir"] == f"{tmp_path}/var/lib/rancher/k3s"
    assert told["agent-token-file"] == f"{tmp_path}/etc/rancher/k3s/agent-token"
    assert (told["disable-agent"], told["egress-selector-mode"]) == (True, "cluster")
    assert told["disable"] == ["traefik", "servicelb", "metrics-server", "local-storage"]


def test_options_reach_the_server(tmp_path: Path) -> None:
    found = frontend(tmp_path, "port: 7443, disable: '', pods: 10.99.0.0/16")
    told = yaml.safe_load(rendered(found, "etc/rancher/k3s/config.yaml"))
    assert (told["https-listen-port"], told["cluster-cidr"]) == (7443, "10.99.0.0/16")
    assert "disable" not in told
    (module, service), *_ = [(m, s) for m, s in found.services() if s.name == "k3s"]
    assert found.child(module, service).tcp == ("10.77.0.1", 7443)


def test_the_agent_is_told_what_k3s_documents(tmp_path: Path) -> None:
    told = yaml.safe_load(node_files(tmp_path, "rpi2")["etc/rancher/k3s/config.yaml"].content)
    assert set(told) == set(AGENT_FLAGS.split())
    assert told["server"] == "https://10.77.0.1:6443"
    assert (told["node-name"], told["node-ip"], told["data-dir"]) == ("rpi2", "10.77.0.12", "/data/k3s")


def test_a_node_password_is_the_nodes_own_and_stays(tmp_path: Path) -> None:
    one, two = node_files(tmp_path, "rpi1"), node_files(tmp_path, "rpi2")
    password = one["etc/rancher/node/password"]
    assert len(bytes.fromhex(password.content.decode())) == 16
    assert password.mode == 0o600
    assert password.content != two["etc/rancher/node/password"].content
    assert node_files(tmp_path, "rpi1")["etc/rancher/node/password"] == password
    kept = tmp_path / "var/lib/kestrelpi/secrets/modules/k3s/node-password.d"
    assert sorted(path.name for path in kept.iterdir()) == ["rpi1", "rpi2"]
    assert kept.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}


def test_a_node_password_goes_with_the_name_not_with_the_machine(tmp_path: Path) -> None:
    """k3s keeps it by the name of the node: a Pi that takes the place of a broken one must be let in."""
    before = node_files(tmp_path, "rpi1")["etc/rancher/node/password"]
    paths, config, registry = site(tmp_path)
    spare = replace(next(iter(registry)), mac="dc:a6:32:00:00:99")
    assert RuntimeFiles(paths, config, registry).secrets_of_modules(spare)["etc/rancher/node/password"] == before


def test_the_frontend_has_the_token_but_no_nodes_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kestrelpi.services.cluster.os.chown", lambda *_: None)
    found = frontend(tmp_path)
    write_secrets(found)
    token = (tmp_path / "etc/rancher/k3s/agent-token").read_bytes()
    assert node_files(tmp_path, "rpi1")["etc/rancher/k3s/agent-token"].content == token
    assert not (tmp_path / "etc/rancher/node").exists()


def test_nodes_get_the_token_with_the_servers_hash_as_soon_as_the_server_has_written_it(tmp_path: Path) -> None:
    plain = node_files(tmp_path, "rpi1")["etc/rancher/k3s/agent-token"].content
    published = tmp_path / "var/lib/rancher/k3s/server/agent-token"
    published.parent.mkdir(parents=True)
    published.write_text(f"K10abc::node:{plain.decode()}\n")
    assert node_files(tmp_path, "rpi1")["etc/rancher/k3s/agent-token"].content == published.read_bytes()


def test_the_server_does_not_start_from_a_file_that_is_missing_or_wrong(tmp_path: Path) -> None:
    content = b"#!/bin/sh\n"
    right = hashlib.sha256(content).hexdigest()
    found = frontend(tmp_path, f"version: v9, sha256_{own_arch()}: {right}")
    (module, service), *_ = [(m, s) for m, s in found.services() if s.name == "k3s"]
    with pytest.raises(UserError, match="has not been fetched") as caught:
        found.verify(module, service)
    assert "kestrelpi modules fetch k3s" in caught.value.fix
    file = found.fetched("k3s")[f"k3s-{own_arch()}"].path
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    found.verify(module, service)
    assert str(file) in rendered(found, "usr/local/bin/k3s")
    assert right in rendered(found, "usr/local/bin/k3s")
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="is refused") as caught:
        found.verify(module, service)
    assert right in caught.value.detail


def test_a_version_without_known_hashes_stops_the_plan_before_anything_is_built(tmp_path: Path) -> None:
    paths, config, _ = site(tmp_path, "version: v9.9.9+k3s1")
    apt = tmp_path / "apt"
    apt.mkdir()
    (apt / "sources.list").write_text("deb http://deb.example.org/debian bookworm main\n")
    config = replace(config, images={"default": replace(config.images["default"], suite="bookworm")})
    with pytest.raises(UserError, match=r"SHA-256 of k3s-arm64 v9\.9\.9\+k3s1") as caught:
        plan.plan(paths, config, "default", apt=apt)
    assert "releases/download/v9.9.9%2Bk3s1/sha256sum-arm64.txt" in caught.value.fix


def test_the_frontends_registry_is_known_to_the_agents_where_there_is_one(tmp_path: Path) -> None:
    def registries(modules: str) -> object:
        paths, config, _ = site(tmp_path, modules=modules)
        one = overlay(paths, config, "default", "node")["etc/rancher/k3s/registries.yaml"]
        options = {"docker": {"port": 5000, "mirror": True}} if "docker" in modules else {}
        settings = scripts.Settings("default", "bookworm", config, paths, tmp_path, options=options)
        return yaml.safe_load(scripts.render(one, settings))

    assert registries("k3s") is None
    endpoint = {"endpoint": ["http://frontend:5000"]}
    assert registries("k3s, docker") == {"mirrors": {"frontend:5000": endpoint, "docker.io": endpoint}}
