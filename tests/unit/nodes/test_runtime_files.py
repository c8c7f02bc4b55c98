"""The runtime archive: what a node's initramfs unpacks over its root."""

from __future__ import annotations

import io
import tarfile
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.nodes.files import MTIME, Member, RuntimeFiles, pack
from kestrelpi.nodes.identity import machine_id
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.paths import Paths

MAC = "dc:a6:32:00:00:01"
NODE = Node("rpi1", MAC, "rpi", IPv4Address("10.77.0.11"))
NODES = Registry.of([NODE, Node("rpi2", "dc:a6:32:00:00:02", "rpi", IPv4Address("10.77.0.12"))])
CONFIG = config.parse("cluster: lab\nimages: {default: {modules: []}}\nnetwork: {nameservers: [9.9.9.9]}\n")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    for folder, name in (("ssh", "id_ed25519"), ("hosts/dc-a6-32-00-00-01", "ssh_host_ed25519_key")):
        (paths.secrets / folder).mkdir(parents=True)
        (paths.secrets / folder / name).write_text(f"PRIVATE {name}\n")
        (paths.secrets / folder / f"{name}.pub").write_text(f"ssh-ed25519 {name}\n")
    return paths


def unpack(archive: bytes) -> dict[str, tuple[int, bytes | str]]:
    """Names to mode and content; the target for a symbolic link."""
    found: dict[str, tuple[int, bytes | str]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for one in tar:
            assert (one.uid, one.gid, one.mtime) == (0, 0, MTIME)
            file = tar.extractfile(one) if one.isreg() else None
            found[one.name] = (one.mode, file.read() if file else one.linkname)
    return found


def test_golden_archive(paths: Paths) -> None:
    archive = RuntimeFiles(paths, CONFIG, NODES).archive(NODE)
    assert archive[257:265] == b"ustar\x0000"
    assert unpack(archive) == {
        "etc/hostname": (0o644, b"rpi1\n"),
        "etc/hosts": (
            0o644,
            b"127.0.0.1 localhost\n"
            b"::1 localhost ip6-localhost ip6-loopback\n"
            b"10.77.0.1 frontend.cluster.internal frontend\n"
            b"10.77.0.11 rpi1.cluster.internal rpi1\n"
            b"10.77.0.12 rpi2.cluster.internal rpi2\n",
        ),
        "etc/machine-id": (0o444, f"{machine_id(MAC, 'lab')}\n".encode()),
        "etc/resolv.conf": (0o644, b"search cluster.internal\nnameserver 10.77.0.1\n"),
        "etc/ssh/ssh_host_ed25519_key": (0o600, b"PRIVATE ssh_host_ed25519_key\n"),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, b"ssh-ed25519 ssh_host_ed25519_key\n"),
        "root/.ssh": (0o700, ""),
        "root/.ssh/authorized_keys": (0o600, b"ssh-ed25519 id_ed25519\n"),
    }


def test_same_input_same_bytes(paths: Paths) -> None:
    files = RuntimeFiles(paths, CONFIG, NODES)
    assert files.archive(NODE) == files.archive(NODE)
    assert files.archive(NODE) == RuntimeFiles(paths, CONFIG, NODES).archive(NODE)


def test_without_our_dns_the_nodes_ask_the_configured_ones(paths: Paths) -> None:
    text = "images: {default: {modules: []}}\nnetwork: {nameservers: [9.9.9.9]}\nservices: {dns: {enabled: no}}\n"
    archive = RuntimeFiles(paths, config.parse(text), NODES).archive(NODE)
    assert unpack(archive)["etc/resolv.conf"] == (0o644, b"search cluster.internal\nnameserver 9.9.9.9\n")


def test_the_users_files_replace_add_and_remove(paths: Paths) -> None:
    own = paths.etc / "overlays/runtime"
    (own / "etc/cron.d").mkdir(parents=True)
    (own / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (own / "etc/hosts").write_text("")
    (own / "etc/cron.d/mine.j2").write_text("# {{ node.name }} of {{ cluster.name }} at {{ cluster.server }}\n")
    (own / "etc/start").write_text("#!/bin/sh\n")
    (own / "etc/start").chmod(0o755)
    (own / "etc/link").symlink_to("../run/target")
    one_image = paths.etc / "images/default/overlays/runtime/etc"
    one_image.mkdir(parents=True)
    (one_image / "resolv.conf").write_text("nameserver 192.0.2.2\n")
    found = unpack(RuntimeFiles(paths, CONFIG, NODES).archive(NODE))
    assert found["etc/resolv.conf"] == (0o644, b"nameserver 192.0.2.2\n")
    assert "etc/hosts" not in found
    assert found["etc/cron.d/mine"] == (0o644, b"# rpi1 of lab at 10.77.0.1\n")
    assert found["etc/start"] == (0o755, b"#!/bin/sh\n")
    assert found["etc/link"] == (0o777, "../run/target")


def test_an_undefined_name_is_an_error_with_the_file(paths: Paths) -> None:
    template = paths.etc / "overlays/runtime/etc/motd.j2"
    template.parent.mkdir(parents=True)
    template.write_text("{{ nod.name }}\n")
    with pytest.raises(UserError) as caught:
        RuntimeFiles(paths, CONFIG, NODES).archive(NODE)
    assert caught.value.where == str(template)
    assert "nod" in caught.value.what


def test_a_path_that_ustar_cannot_hold() -> None:
    with pytest.raises(UserError, match="too long"):
        pack({"x" * 300: Member(b"")})


def test_a_node_that_keeps_something_gets_its_key(paths: Paths) -> None:
    module = paths.etc / "modules/herd"
    (module / "overlay/runtime/etc").mkdir(parents=True)
    (module / "module.yaml").write_text("name: herd\nkept: {own: {}}\n")
    (module / "overlay/runtime/etc/herd.j2").write_text("{{ members('herd') | map(attribute='name') | join(' ') }}\n")
    files = RuntimeFiles(paths, config.parse("images: {default: {modules: [herd]}}"), NODES)
    found = unpack(files.archive(NODE))
    assert found["etc/kestrelpi/kept.key"] == (0o400, f"{files.secrets.kept_key(MAC)}\n".encode())
    assert found["etc/herd"] == (0o644, b"rpi1 rpi2\n")
