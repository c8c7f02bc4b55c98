"""`kestrelpi nodes` as a user runs it; keys by ssh-keygen; the runtime archive unpacked by busybox."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.nodes.boots import BootLog
from kestrelpi.nodes.files import RuntimeFiles
from kestrelpi.nodes.identity import Secrets
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.paths import Paths, data_dir
from kestrelpi.run import CommandFailed, Finished, run, start
from tests.waiting import until

CONFIG = "images: {default: {modules: []}}\ngroups: {rpi: {}, big: {prefix: fat}}\n"
MAC = "dc:a6:32:00:00:01"
NODE = Node("rpi1", MAC, "rpi", IPv4Address("10.77.0.11"))
PROGRAM = (sys.executable, "-m", "kestrelpi")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.etc.mkdir(parents=True)
    paths.config.write_text(CONFIG)
    paths.state.mkdir(parents=True)
    return paths


def lease(paths: Paths, *macs: str) -> None:
    """Leases as dnsmasq writes them."""
    lines = [f"{int(time.time()) + 3600} {mac} 10.77.0.{130 + n} * *\n" for n, mac in enumerate(macs)]
    paths.leases.write_text("".join(lines))


def kestrelpi(paths: Paths, *words: str, env: dict[str, str] | None = None) -> Finished:
    return run([*PROGRAM, "--root", paths.root, *words], cwd=data_dir(), env=env)


def fails(paths: Paths, *words: str) -> tuple[int, str]:
    """Status and messages of a command that fails."""
    with pytest.raises(CommandFailed) as caught:
        kestrelpi(paths, *words)
    assert "Traceback" not in caught.value.detail
    return caught.value.returncode, caught.value.detail


def test_a_node_from_lease_to_removal(paths: Paths) -> None:
    lease(paths, MAC, "b8:27:eb:00:00:02", "00:11:22:33:44:55")
    out = kestrelpi(paths, "nodes", "register", "rpi", "--count", "2", "--timeout", "20").stdout
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["rpi1", MAC], ["rpi2", "b8:27:eb:00:00:02"]]
    BootLog(paths.boots).record(MAC, "kernel", time.time())
    listed = json.loads(kestrelpi(paths, "--json", "nodes", "list").stdout)
    assert [(one["name"], one["address"], one["stage"]) for one in listed] == [
        ("rpi1", "10.77.0.11", "kernel"),
        ("rpi2", "10.77.0.12", ""),
    ]
    assert "kernel" in kestrelpi(paths, "nodes", "show", MAC).stdout
    kestrelpi(paths, "nodes", "set", "rpi2", "--group", "big", "--name", "fat1", "--address", "10.77.0.99")
    shown = json.loads(kestrelpi(paths, "--json", "nodes", "show", "fat1").stdout)
    assert (shown["group"], shown["address"], shown["boots"]) == ("big", "10.77.0.99", [])
    kestrelpi(paths, "nodes", "remove", "rpi1", "fat1")
    assert len(Registry.load(paths.registry)) == 0
    assert json.loads(kestrelpi(paths, "--json", "nodes", "list").stdout) == []


def test_what_fails_says_so_and_changes_nothing(paths: Paths) -> None:
    paths.registry.write_text(Registry.of([NODE]).emit())
    before = paths.registry.read_bytes()
    lease(paths, MAC)
    status, said = fails(paths, "nodes", "register", "rpi", "--count", "1", "--timeout", "0.1")
    assert status == 1
    assert "0 of 1 new Pis appeared" in said
    assert fails(paths, "nodes", "show", "rpi")[0] == 1
    assert fails(paths, "nodes", "remove", "rpi1", "rpi9")[0] == 1
    assert fails(paths, "nodes", "set", "rpi1")[0] == 2
    assert fails(paths, "nodes", "set", "rpi1", "--address", "10.77.0")[0] == 2
    assert fails(paths, "nodes", "set", "rpi1", "--pin", "20261122")[0] == 1
    assert paths.registry.read_bytes() == before
    paths.registry.write_text("nodes:\n  rpi1: {mac: dc:a6:32}\n")
    status, said = fails(paths, "nodes", "list")
    assert status == 3
    assert f"{paths.registry}:2: nodes.rpi1 lacks group" in said


def test_ctrl_c_ends_registering_well(paths: Paths) -> None:
    lease(paths, MAC)
    out = paths.root / "out"
    with out.open("wb") as file:
        process = start([*PROGRAM, "--root", paths.root, "nodes", "register", "rpi"], cwd=data_dir(), output=file)
        until(lambda: len(Registry.load(paths.registry)), "the node", 20)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    text = out.read_text()
    assert "Traceback" not in text
    assert text.splitlines()[-1].split()[:2] == ["rpi1", MAC]


def test_two_commands_register_one_pi_once(paths: Paths) -> None:
    macs = [f"dc:a6:32:00:01:{number:02x}" for number in range(30)]
    lease(paths, *macs)

    both = [
        start([*PROGRAM, "--root", paths.root, "nodes", "register", group, "--timeout", "1"], cwd=data_dir())
        for group in ("rpi", "big")
    ]
    statuses = [process.wait(30) for process in both]
    assert 0 in statuses, "one of them came first"
    registry = Registry.load(paths.registry, config.load(paths.config))
    assert sorted(node.mac for node in registry) == macs


def test_keys_are_made_once_and_are_real(paths: Paths) -> None:
    with ThreadPoolExecutor(8) as pool:
        pairs = list(pool.map(lambda _: Secrets(paths).host_key(MAC), range(8)))
    private = pairs[0].private
    assert {pair.private for pair in pairs} == {private}
    public = run(["ssh-keygen", "-y", "-f", private]).stdout.split()[:2]
    assert pairs[0].public_text.split()[:2] == public
    assert private.stat().st_mode & 0o777 == 0o600
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in (private.parent, paths.secrets))
    assert sorted(path.name for path in private.parent.iterdir()) == [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
    ]
    known = Secrets(paths).known_hosts([NODE], "cluster.internal")
    (paths.root / "known").write_text(known)
    found = run(["ssh-keygen", "-F", "10.77.0.11", "-f", paths.root / "known"]).stdout
    assert public[1] in found


def test_busybox_unpacks_the_runtime_archive(paths: Paths) -> None:
    archive = RuntimeFiles(paths, config.load(paths.config), Registry.of([NODE])).archive(NODE)
    (paths.root / "runtime.tar").write_bytes(archive)
    root = paths.root / "newroot"
    (root / "root").mkdir(parents=True, mode=0o700)
    run(["busybox", "tar", "-x", "-f", paths.root / "runtime.tar", "-C", root])
    assert (root / "etc/hostname").read_text() == "rpi1\n"
    key = root / "etc/ssh/ssh_host_ed25519_key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (
        run(["ssh-keygen", "-y", "-f", key]).stdout.split()[1]
        in (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    )
    assert (root / "root/.ssh").stat().st_mode & 0o777 == 0o700
    assert (root / "root").stat().st_mode & 0o777 == 0o700


def test_completion_knows_commands_and_nodes(paths: Paths) -> None:
    paths.registry.write_text(Registry.of([NODE]).emit())
    for line, expected in (
        ("nodes re", {"register", "remove", "reboot"}),
        ("nodes show rp", {"rpi1"}),
        ("reco", {"reconfigure"}),
    ):
        words = f"kestrelpi --root {paths.root} {line}"
        env = {
            "_KESTRELPI_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        out = run(PROGRAM, cwd=data_dir(), env=env).stdout
        assert {one.partition(",")[2] for one in out.splitlines()} == expected
