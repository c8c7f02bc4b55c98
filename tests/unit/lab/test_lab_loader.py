"""Whole boots from memory: which files each model asks for, in which order, and what it makes of them."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.loader import BootLoader, LoaderReport
from kestrelpi.lab.profiles import PROFILES
from tests.unit.lab.fakes import MENU, PI3, PI3_PLUS, PI4, PI5, FakeHost, FakePort, server_with

CONFIG = b"arm_64bit=1\nkernel=vmlinuz\ninitramfs initramfs.img followkernel\n"
FILES = {
    "bootcode.bin": b"bootcode",
    "start.elf": b"3" * 3000,
    "fixup.dat": b"fix 3",
    "start4.elf": b"4" * 3000,
    "fixup4.dat": b"fix 4",
    "config.txt": CONFIG,
    "cmdline.txt": b"console=ttyS1 root=x\n",
    "vmlinuz": b"kernel" * 1000,
    "initramfs.img": b"initramfs" * 1000,
    **{profile.dtb: b"dtb" for profile in PROFILES.values()},
}


def boot(pi: PiSpec, tmp_path: Path, files: dict[str, bytes], prefix: str = "", oack: bool = True) -> LoaderReport:
    served = {prefix + name: content for name, content in files.items()} | {"bootcode.bin": b"bootcode"}
    host = FakeHost(server_with(pi, {43: MENU}), served, oack)
    return BootLoader(pi, host, tmp_path, lambda text: None).run()


def asked(report: LoaderReport) -> list[str]:
    """Each request in order; `?` marks a probe, `-` what wasn't there."""
    mark = {"probed": "?", "missing": "-", "got": ""}
    return [mark[one.result] + one.name for one in report.files]


def with_prefix(pi: PiSpec, names: str) -> list[str]:
    """`S/` in the published lists is the serial."""
    return [name.replace("S/", f"{pi.serial}/") for name in names.split()]


KERNEL8 = {name: content for name, content in FILES.items() if name not in ("vmlinuz", "initramfs.img")} | {
    "config.txt": b"arm_64bit=1\ndtoverlay=vc4-kms-v3d\n",
    "kernel8.img": b"kernel" * 1000,
    "overlays/overlay_map.dtb": b"map",
    "overlays/vc4-kms-v3d.dtbo": b"overlay",
}
"""What the published logs served, as far as it shows."""
SECOND_STAGE = """
    -S/recovery.elf ?S/config.txt S/config.txt -S/dt-blob.bin -S/recovery.elf ?S/config.txt S/config.txt -S/bootcfg.txt
    ?S/{dtb} S/{dtb} ?S/overlays/overlay_map.dtb S/overlays/overlay_map.dtb ?S/config.txt S/config.txt
    ?S/overlays/vc4-kms-v3d.dtbo S/overlays/vc4-kms-v3d.dtbo ?S/cmdline.txt S/cmdline.txt -S/recovery8.img
    ?S/kernel8.img ?S/kernel8.img -S/{stub} S/kernel8.img
"""


@pytest.mark.parametrize(("pi", "dtb"), [(PI3, "bcm2710-rpi-3-b.dtb"), (PI3_PLUS, "bcm2710-rpi-3-b-plus.dtb")])
def test_order_of_a_pi_3(pi: PiSpec, dtb: str, tmp_path: Path) -> None:
    first = """
        bootcode.bin -bootsig.bin ?S/start.elf ?S/start.elf -S/autoboot.txt S/config.txt -S/recovery.elf S/start.elf
        S/fixup.dat
    """
    report = boot(pi, tmp_path, KERNEL8, f"{pi.serial}/")
    assert asked(report) == with_prefix(pi, first + SECOND_STAGE.format(dtb=dtb, stub="armstub8.bin"))
    assert (report.started, report.kernel, report.warnings) == (True, "kernel8.img", [])


def test_order_of_a_pi_4(tmp_path: Path) -> None:
    first = """
        ?S/start4.elf S/config.txt -S/pieeprom.sig -S/recover4.elf -S/recovery.elf S/start4.elf S/fixup4.dat
    """
    report = boot(PI4, tmp_path, KERNEL8, f"{PI4.serial}/")
    second = SECOND_STAGE.format(dtb="bcm2711-rpi-4-b.dtb", stub="armstub8-gic.bin")
    assert asked(report) == with_prefix(PI4, first + second)
    assert [one.blksize for one in report.files if one.name.endswith(("start4.elf", "kernel8.img"))] == [
        1468, 1468, 1024, 1024, 1024,
    ]  # fmt: skip


def test_order_of_a_pi_5(tmp_path: Path) -> None:
    order = """
        S/config.txt -S/pieeprom.sig ?S//config.txt S//config.txt -S/kernel_2712.img ?S/kernel8.img
        ?S/bcm2712-rpi-5-b.dtb S/bcm2712-rpi-5-b.dtb ?S/overlays/overlay_map.dtb S/overlays/overlay_map.dtb
        ?S/overlays/vc4-kms-v3d.dtbo S/overlays/vc4-kms-v3d.dtbo -S/overlays/hat_map.dtb
        ?S//cmdline.txt S//cmdline.txt -S/armstub8-2712.bin S/kernel8.img
    """
    report = boot(PI5, tmp_path, KERNEL8, f"{PI5.serial}/")
    assert asked(report) == with_prefix(PI5, order)


@pytest.mark.parametrize("pi", [PI3, PI3_PLUS, PI4, PI5])
def test_what_is_started(pi: PiSpec, tmp_path: Path) -> None:
    report = boot(pi, tmp_path, FILES)
    assert (report.started, report.failure, report.prefix) == (True, "", "")
    assert (report.kernel, report.initramfs, report.cmdline) == ("vmlinuz", ["initramfs.img"], "console=ttyS1 root=x")
    for name in (report.kernel, *report.initramfs, report.dtb):
        assert (tmp_path / name).read_bytes() == FILES[name]
    assert report.stages[0].stage == "discover"
    assert LoaderReport.from_json(report.to_json()) == report


def test_a_pi_4_drops_the_prefix_after_both_start_files(tmp_path: Path) -> None:
    report = boot(PI4, tmp_path, FILES)
    assert asked(report)[:4] == ["-91cdf03d/start4.elf", "-91cdf03d/start.elf", "config.txt", "-pieeprom.sig"]


@pytest.mark.parametrize(
    ("pi", "gone", "stage", "reason"),
    [
        (PI3, "start.elf", "firmware", "start.elf: not found under the serial's folder nor in the root"),
        (PI4, "start4.elf", "kernel", ""),
        (PI4, "vmlinuz", "kernel", "none of vmlinuz, kernel8.img is there"),
        (PI4, "bcm2711-rpi-4-b.dtb", "kernel", "no device tree: none of bcm2711-rpi-4-b.dtb is there"),
        (PI5, "bcm2712-rpi-5-b.dtb", "kernel", "no device tree: none of bcm2712-rpi-5-b.dtb is there"),
    ],
)
def test_what_must_be_there(pi: PiSpec, gone: str, stage: str, reason: str, tmp_path: Path) -> None:
    report = boot(pi, tmp_path, {name: content for name, content in FILES.items() if name != gone})
    if not reason:  # start.elf is taken in its place
        assert report.started
        return
    assert (report.started, report.failed_stage, report.failure) == (False, stage, reason)
    assert bool(report.led) == ("device tree" not in reason)


def test_a_recovery_would_be_started_instead(tmp_path: Path) -> None:
    report = boot(PI4, tmp_path, FILES | {"recovery.elf": b"x"})
    assert report.failure == "recovery.elf was served: a Pi starts it instead of Linux"


@pytest.mark.parametrize(("line", "warned"), [(b"", True), (b"bootloader_update=0\n", False)])
def test_an_eeprom_update_behind_the_owners_back(line: bytes, warned: bool, tmp_path: Path) -> None:
    report = boot(PI4, tmp_path, FILES | {"pieeprom.sig": b"x", "config.txt": CONFIG + line})
    assert any("updates its EEPROM" in warning for warning in report.warnings) == warned


def test_a_pi_4_ignores_config_txt_without_option_acknowledgement(tmp_path: Path) -> None:
    files = FILES | {"config.txt": CONFIG, "kernel8.img": b"k"} | {name: b"x" for name in FILES if "dtb" in name}
    small = {name: content[:500] for name, content in files.items()}
    four = boot(PI4, tmp_path, small, oack=False)
    assert four.kernel == "kernel8.img"
    assert "config.txt came without an option acknowledgement: a Pi 4 ignores it" in four.warnings
    assert boot(PI5, tmp_path, small, oack=False).kernel == "vmlinuz"


def test_a_pi_3_needs_to_be_told_of_64_bits(tmp_path: Path) -> None:
    files = FILES | {"config.txt": b"kernel=vmlinuz\n"}
    assert boot(PI3, tmp_path, files).failure == "vmlinuz is started in 32-bit mode: config.txt lacks arm_64bit=1"
    assert boot(PI4, tmp_path, files).started


def test_upstream_kernel_prefers_upstream_names(tmp_path: Path) -> None:
    files = FILES | {"config.txt": CONFIG + b"upstream_kernel=1\n", "bcm2837-rpi-3-b.dtb": b"upstream"}
    report = boot(PI3, tmp_path, files)
    assert report.dtb == "bcm2837-rpi-3-b.dtb"
    assert "-upstream/vmlinuz" in asked(report)


def test_upstream_kernel_without_its_tree_takes_the_overlay(tmp_path: Path) -> None:
    files = FILES | {"config.txt": CONFIG + b"upstream_kernel=1\n", "overlays/upstream.dtbo": b"o"}
    report = boot(PI3, tmp_path, files)
    assert (report.dtb, report.overlays) == ("bcm2710-rpi-3-b.dtb", ["overlays/upstream.dtbo"])


def test_os_prefix(tmp_path: Path) -> None:
    names = ("vmlinuz", "initramfs.img", "cmdline.txt", "bcm2711-rpi-4-b.dtb")
    moved = {f"new/{name}": FILES[name] for name in names}
    config = {"config.txt": CONFIG + b"os_prefix=new/\n"}
    report = boot(PI4, tmp_path, {name: FILES[name] for name in FILES if name not in names} | moved | config)
    assert (report.kernel, report.initramfs, report.dtb) == (
        "new/vmlinuz", ["new/initramfs.img"], "new/bcm2711-rpi-4-b.dtb",
    )  # fmt: skip
    assert report.cmdline == "console=ttyS1 root=x"


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "boot"
    report = boot(PI4, folder, FILES | {"config.txt": b"kernel=../x\n", "../x": b"x"})
    assert "the lab stores no file outside its folder" in report.failure
    assert not (tmp_path / "x").exists()


def test_no_answer(tmp_path: Path) -> None:
    report = BootLoader(PI4, FakeHost(), tmp_path, lambda text: None).run()
    assert (report.started, report.failed_stage, report.discovers, report.seconds) == (False, "discover", 12, 45)


def test_a_real_one_waits_for_card_and_link_first(tmp_path: Path) -> None:
    report = BootLoader(PI3, FakeHost(), tmp_path, lambda text: None, waits=True).run()
    assert (report.stages[0].at, report.seconds) == (5, 30)


@pytest.mark.parametrize(("pi", "warned"), [(PI4, True), (PI5, False)])
def test_blocks_that_come_twice_hang_start4(pi: PiSpec, warned: bool, tmp_path: Path) -> None:
    class Twice(FakePort):
        def send(self, data: bytes, port: int) -> None:
            super().send(data, port)
            self.packets += self.packets[-1:] if data[:4] == b"\0\4\0\1" else []

    class Host(FakeHost):
        def port(self, number: int, server: IPv4Address) -> FakePort:
            return Twice(self)

    host = Host(server_with(pi, {43: MENU}), FILES)
    report = BootLoader(pi, host, tmp_path, lambda text: None).run()
    assert report.started
    assert any("came twice" in warning for warning in report.warnings) == warned
