"""The emulator's command line, device tree and events."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.lab.fdt import HEADER, MAGIC, root_properties, with_root_properties
from kestrelpi.lab.identity import PiSpec, pi_spec
from kestrelpi.lab.loader import LoaderReport
from kestrelpi.lab.machine import Board, Ended, Machine, MachineSpec, board_for, command_line, device_tree, qemu_argv
from tests.unit.lab.fakes import PI3, PI4, PI5


def spec(pi: PiSpec, board: Board = Board.VIRT) -> MachineSpec:
    return MachineSpec(pi, board, 768, "tap1", Path("console.log"))


def argv(pi: PiSpec, board: Board = Board.VIRT, initrd: Path | None = None) -> str:
    return " ".join(qemu_argv(spec(pi, board), Path("k"), initrd, Path("d"), "root=x"))


def test_virt() -> None:
    command = argv(PI4, initrd=Path("i"))
    assert "-M virt" in command
    assert "-smp 2 -m 768" in command
    assert "-kernel k -dtb d -append root=x -initrd i" in command
    assert "-device virtio-net-pci,netdev=n0,mac=e4:5f:01:09:02:f7,romfile=" in command
    assert "-action reboot=shutdown,shutdown=pause" in command


def test_processor_of_each_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for pi, cpu in ((PI3, "cortex-a53"), (PI4, "cortex-a72"), (PI5, "cortex-a76")):
        assert f"-cpu {cpu} -accel tcg,thread=multi" in argv(pi)


def test_raspi3b_has_its_console_on_the_second_port_and_a_usb_card() -> None:
    command = argv(PI3, Board.RASPI3B)
    assert "-M raspi3b" in command
    assert "-m 768" not in command
    assert "-serial null -serial chardev:console" in command
    assert "-usb -device usb-net,netdev=n0,mac=b8:27:eb:6c:4c:16" in command


def test_boards() -> None:
    assert board_for("auto", PI3) is Board.VIRT
    assert board_for("raspi3b", PI3) is Board.RASPI3B
    with pytest.raises(UserError, match="raspi3b is a Pi 3B, not a 4"):
        board_for("raspi3b", PI4)


@pytest.mark.parametrize(
    ("board", "downloaded", "started"),
    [
        (Board.VIRT, "console=ttyS1,115200 root=x", "console=ttyS1,115200 root=x console=ttyAMA0"),
        (Board.VIRT, "console=serial0,115200 root=x", "console=ttyAMA0,115200 root=x"),
        (Board.VIRT, "console=ttyAMA0 root=x", "console=ttyAMA0 root=x"),
        (Board.VIRT, "console=ttyAMA0 console=ttyS1", "console=ttyAMA0 console=ttyS1 console=ttyAMA0"),
        (Board.RASPI3B, "console=ttyS1,115200 root=x", "console=ttyS1,115200 root=x"),
        (Board.RASPI3B, "console=serial0,115200", "console=ttyS1,115200"),
    ],
)
def test_command_line(board: Board, downloaded: str, started: str) -> None:
    assert command_line(spec(PI3, board), downloaded) == started


@pytest.mark.parametrize(
    ("lines", "ended"),
    [
        ([b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}'], Ended.RESET),
        ([b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}'], Ended.POWEROFF),
        ([b'{"return": {}}', b'{"event": "RESUME"}'], None),
        ([b"qemu-system-aarch64: something is wrong"], None),
    ],
)
def test_events(lines: list[bytes], ended: Ended | None) -> None:
    said: list[str] = []
    machine = Machine(spec(PI4), LoaderReport("4", PI4.mac, PI4.serial), Path("x"), said.append)
    assert [machine.event(line) for line in lines][-1] is ended
    assert said == [line.decode() for line in lines if not line.startswith(b"{")]


def tree(properties: dict[str, bytes]) -> bytes:
    """A device tree with these properties of the root and one child node."""
    strings, structure = b"", struct.pack(">2I", 1, 0)
    for name, value in properties.items():
        structure += struct.pack(">3I", 3, len(value), len(strings)) + value + bytes(-len(value) % 4)
        strings += name.encode() + b"\0"
    structure += struct.pack(">I", 4) + struct.pack(">I", 1) + b"cpu\0" + struct.pack(">3I", 2, 2, 9)
    reserved = struct.pack(">4Q", 0x1000, 0x2000, 0, 0)
    start = HEADER.size + len(reserved)
    end = start + len(structure)
    header = HEADER.pack(MAGIC, end + len(strings), start, end, HEADER.size, 17, 16, 0, len(strings), len(structure))
    return header + reserved + structure + strings


def test_device_tree_gets_serial_and_model() -> None:
    before = tree({"compatible": b"linux,dummy-virt\0", "model": b"linux,dummy-virt\0", "#size-cells": b"\0\0\0\2"})
    after = with_root_properties(before, {"model": "Raspberry Pi 4", "serial-number": "0000000091cdf03d"})
    assert root_properties(after) == {
        "compatible": b"linux,dummy-virt\0",
        "#size-cells": b"\0\0\0\2",
        "model": b"Raspberry Pi 4\0",
        "serial-number": b"0000000091cdf03d\0",
    }
    fields = HEADER.unpack_from(after)
    assert fields[1] == len(after)
    assert after[fields[4] : fields[4] + 32] == before[HEADER.size : HEADER.size + 32]
    assert b"cpu\0" + struct.pack(">3I", 2, 2, 9) in after
    assert fields[2] % 4 == 0


def test_setting_a_property_twice_changes_nothing_more() -> None:
    once = with_root_properties(tree({"a": b"1\0"}), {"model": "x"})
    assert root_properties(with_root_properties(once, {"model": "y"})) == {"a": b"1\0", "model": b"y\0"}


def test_a_board_is_asked_for_its_device_tree_without_a_network_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU would load the ROM of the card that is there by default: Debian only recommends the package that has it."""

    def dumped(words: list[str]) -> None:
        [option] = [word for word in words if word.startswith("dumpdtb=")]
        Path(option.removeprefix("dumpdtb=")).write_bytes(tree({"model": b"linux,dummy-virt\0"}))
        assert " -nic none" in " ".join(words)

    monkeypatch.setattr(run, "run", dumped)
    made = device_tree(spec(PI4), LoaderReport("4", PI4.mac, PI4.serial), tmp_path)
    assert root_properties(made.read_bytes())["serial-number"] == b"0000000091cdf03d\0"


def test_no_device_tree() -> None:
    with pytest.raises(UserError, match="not a device tree"):
        with_root_properties(b"\x7fELF" + bytes(100), {"model": "x"})


def test_pis_of_one_lab_differ() -> None:
    pis = [pi_spec("lab", index, "4") for index in range(1, 200)]
    assert len({pi.mac for pi in pis}) == len({pi.serial for pi in pis}) == 199
