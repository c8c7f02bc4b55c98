"""config.txt as each model reads it."""

from __future__ import annotations

import pytest

from kestrelpi.lab import configtxt
from kestrelpi.lab.configtxt import ConfigTxt
from kestrelpi.lab.identity import PiSpec, pi_spec
from tests.unit.lab.fakes import PI3, PI3_PLUS, PI4, PI5


def parse(text: str | bytes, pi: PiSpec = PI4) -> ConfigTxt:
    return configtxt.parse(text.encode() if isinstance(text, str) else text, pi)


def test_settings() -> None:
    found = parse("# comment\nkernel=one\n\n kernel = two \ndtoverlay=a,x=1\ndtoverlay=b\ndtoverlay=a\narm_64bit=1\n")
    assert found.text("kernel") == "two"
    assert found.overlays == ["a", "b"]
    assert found.flag("arm_64bit")
    assert not found.flag("start_x")
    assert found.warnings == []


@pytest.mark.parametrize(
    ("filters", "holders"),
    [
        ("[pi3]", {"3B", "3B+"}),
        ("[pi3+]", {"3B+"}),
        ("[pi4]", {"4", "4-old", "400", "CM4"}),
        ("[pi400]", {"400"}),
        ("[cm4]", {"CM4"}),
        ("[pi5]", {"5", "CM5"}),
        ("[cm5]", {"CM5"}),
        ("[pi0]", set()),
        ("[all]", {"3B", "3B+", "4", "4-old", "400", "CM4", "5", "CM5"}),
        ("[none]", set()),
        ("[none]\n[all]", {"3B", "3B+", "4", "4-old", "400", "CM4", "5", "CM5"}),
        ("[pi3]\n[pi5]", {"5", "CM5"}),  # of one kind: the last
        ("[pi4]\n[tryboot]", set()),  # of two kinds: both
        ("[0x0]\n[pi4]", set()),
    ],
)
def test_sections(filters: str, holders: set[str]) -> None:
    models = ("3B", "3B+", "4", "4-old", "400", "CM4", "5", "CM5")
    text = f"{filters}\nkernel=x\n"
    assert {model for model in models if parse(text, pi_spec("lab", 1, model)).text("kernel")} == holders


def test_section_of_one_serial() -> None:
    text = f"[0x{PI4.serial}]\nkernel=x\n"
    assert parse(text, PI4).text("kernel") == "x"
    assert parse(text, PI5).text("kernel") == ""


def test_only_the_first_4096_bytes_count() -> None:
    found = parse(b"#" * 98 + b"\n" + b"\n" * 4000 + b"kernel=x\n")
    assert found.text("kernel") == ""
    assert found.warnings == ["config.txt has 4108 bytes: what follows byte 4096 is not read"]


def test_nothing_after_a_byte_that_is_not_ascii() -> None:
    found = parse("kernel=x\n# Größe\nstart_x=1\n")
    assert (found.text("kernel"), found.flag("start_x")) == ("x", False)
    assert found.warnings == ["config.txt:2: a byte that isn't ASCII: nothing after it is read"]


def test_long_lines_are_cut() -> None:
    found = parse("cmdline=" + "x" * 100)
    assert found.text("cmdline") == "x" * 90
    assert found.warnings == ["config.txt:1: only 98 characters of the line count"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("initramfs initramfs.img followkernel", ("initramfs.img",)),
        ("initramfs initramfs.img 0x00f00000", ("initramfs.img",)),
        ("initramfs initrd.img-6.12", ("initrd.img-6.12",)),
        ("initramfs a,b followkernel", ("a", "b")),
        ("ramfsfile=c", ("c",)),
        ("auto_initramfs=1", ("initramfs8",)),
        ("", ()),
    ],
)
def test_initramfs(text: str, names: tuple[str, ...]) -> None:
    assert configtxt.initramfs_names(parse(text), "kernel8.img") == names


def test_automatic_initramfs_of_the_5() -> None:
    assert configtxt.initramfs_names(parse("auto_initramfs=1"), "kernel_2712.img") == ("initramfs_2712",)
    assert configtxt.initramfs_names(parse("auto_initramfs=1"), "vmlinuz") == ()


@pytest.mark.parametrize(
    ("text", "three", "four"),
    [
        ("", ("start.elf", "fixup.dat"), ("start4.elf", "fixup4.dat")),
        ("gpu_mem=16", ("start_cd.elf", "fixup_cd.dat"), ("start4cd.elf", "fixup4cd.dat")),
        ("start_x=1", ("start_x.elf", "fixup_x.dat"), ("start4x.elf", "fixup4x.dat")),
        ("start_debug=1", ("start_db.elf", "fixup_db.dat"), ("start4db.elf", "fixup4db.dat")),
        ("start_file=a\nfixup_file=b", ("a", "b"), ("a", "b")),
    ],
)
def test_firmware_files(text: str, three: tuple[str, str], four: tuple[str, str]) -> None:
    assert configtxt.firmware_files(parse(text, PI3), 3) == three
    assert configtxt.firmware_files(parse(text, PI4), 4) == four


def test_kernel_names() -> None:
    assert configtxt.kernel_names(parse(""), PI3_PLUS.profile.kernels) == ("kernel8.img",)
    assert configtxt.kernel_names(parse("", PI5), PI5.profile.kernels) == ("kernel_2712.img", "kernel8.img")
    assert configtxt.kernel_names(parse("kernel=vmlinuz"), PI4.profile.kernels) == ("vmlinuz", "kernel8.img")
