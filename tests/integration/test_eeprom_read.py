"""What is run on a node to ask for its boot loader, run here below a made-up /proc and /sys, and the command itself.

The layout is that of the documentation ("Device Trees, overlays, and parameters") and of nvmem-rmem in the kernel.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from kestrelpi import run
from kestrelpi.cli import cli
from kestrelpi.nodes.eeprom import READ, parse
from kestrelpi.paths import Paths

SETTINGS = b"[all]\nBOOT_UART=1\nPOWER_OFF_ON_HALT=0\nBOOT_ORDER=0xf461\n"


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """A root with what a Pi 4's firmware and kernel show."""
    tree = tmp_path / "sys/firmware/devicetree/base"
    (tree / "chosen/bootloader").mkdir(parents=True)
    (tree / "aliases").mkdir()
    (tree / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    (tree / "chosen/bootloader/version").write_bytes(b"5be4f304b152e06cbcb9c08c26aafc9da755ae47\0")
    (tree / "chosen/bootloader/build-timestamp").write_bytes((1725975630).to_bytes(4, "big"))
    (tree / "chosen/bootloader/update-timestamp").write_bytes((1726252498).to_bytes(4, "big"))
    (tree / "aliases/blconfig").write_bytes(b"/reserved-memory/nvram@0\0")
    for number in (0, 1):
        node = tree / f"reserved-memory/nvram@{number}"
        node.mkdir(parents=True)
        device = tmp_path / f"sys/bus/nvmem/devices/rmem{number}"
        device.mkdir(parents=True)
        (device / "of_node").symlink_to(os.path.relpath(node, device))
        (device / "nvmem").write_bytes((SETTINGS if number == 0 else b"a public key").ljust(512, b"\0"))
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("0c1f6a3e-0000-4000-8000-000000000001\n")
    (tmp_path / "proc/device-tree").symlink_to("../sys/firmware/devicetree/base")
    return tmp_path


def read(root: Path) -> str:
    return run.run(["sh", "-s"], env={"ROOT": str(root)}, stdin=READ).stdout


def test_a_pi_4_is_read(pi: Path) -> None:
    found = parse(read(pi))
    assert (found.model, found.built, found.written) == ("4B", 1725975630, 1726252498)
    assert found.boot == "0c1f6a3e-0000-4000-8000-000000000001"
    assert found.text == SETTINGS.decode().rstrip("\0"), "the first region, not the key in the second"


def test_a_pi_3_and_a_boot_loader_without_settings_are_read(pi: Path) -> None:
    tree = pi / "sys/firmware/devicetree/base"
    (tree / "aliases/blconfig").unlink()
    assert parse(read(pi)).settings == {}
    for file in (tree / "chosen/bootloader").iterdir():
        file.unlink()
    (tree / "model").write_bytes(b"Raspberry Pi 3 Model B Plus Rev 1.3\0")
    found = parse(read(pi))
    assert (found.model, found.built) == ("3B+", 0.0)


def test_the_command_asks_over_ssh_and_names_what_is_off(
    pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ssh` is played by a program that runs what it is given here, for the first node; the other is off."""
    paths = Paths(tmp_path / "root")
    paths.config.parent.mkdir(parents=True)
    paths.config.write_text(
        'network: {address: 10.77.0.1/24}\neeprom: {settings: {BOOT_ORDER: "0xf21", BOOT_UART: "1"}}\n'
    )
    paths.registry.parent.mkdir(parents=True)
    nodes = [f'  rpi{n}: {{mac: "dc:a6:32:00:00:0{n}", group: rpi, address: 10.77.0.1{n}}}\n' for n in (1, 2)]
    paths.registry.write_text("nodes:\n" + "".join(nodes))
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    played = f"#!/bin/sh\ncase $* in *root@10.77.0.11*) ROOT={pi} exec sh -s;; esac\necho no route >&2\nexit 255\n"
    (bin_ / "ssh").write_text(played)
    (bin_ / "ssh").chmod(0o755)
    monkeypatch.setitem(run.BASE_ENVIRONMENT, "PATH", f"{bin_}:{run.BASE_ENVIRONMENT['PATH']}")

    def command(*words: str) -> str:
        done = CliRunner().invoke(cli, ["--root", str(paths.root), *words], catch_exceptions=False)
        return done.stdout

    one, two = json.loads(command("--json", "nodes", "eeprom", "--plan"))
    assert one["differs"] == [{"key": "BOOT_ORDER", "now": "0xf461", "wanted": "0xf21"}]
    assert one["settings"]["BOOT_UART"] == "1" and "its image lacks" in one["problem"]
    assert two["problem"] == "can't be asked: no route"
    table = command("nodes", "eeprom")
    assert "2024-09-10" in table and "0xf461" in table and "no route" in table
