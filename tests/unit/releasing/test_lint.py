"""Every check of a generation finds what it is there for: each test breaks one part of a whole generation."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.finding import Severity
from kestrelpi.images import bootdir, capabilities
from kestrelpi.images.store import Store
from kestrelpi.releasing import lint
from kestrelpi.releasing.candidates import check_candidate
from kestrelpi.releasing.flaw import Flaw
from tests.unit.releasing.whole import DRIVERS, KERNEL, Whole, kernel_bytes, make, tree_bytes

OTHER = "6.1.0-1-arm64"
PI4 = "{rpi: {models: [4B]}}"


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    return make(tmp_path)


def test_a_whole_generation_has_no_flaw(whole: Whole) -> None:
    assert whole.flaws() == []
    assert len(whole.subject().candidates) == 8


def write_kernel(whole: Whole, version: str) -> None:
    (whole.root / f"usr/lib/modules/{KERNEL}/vmlinuz").write_bytes(kernel_bytes(version))


def two_kernels(whole: Whole) -> None:
    (whole.root / "boot").mkdir()
    (whole.root / f"boot/vmlinuz-{OTHER}").write_bytes(kernel_bytes(OTHER))


def another_kernel(whole: Whole) -> None:
    write_kernel(whole, OTHER)
    whole.put("vmlinuz", gzip.compress(kernel_bytes(OTHER), mtime=0))


def packed_root_without_loop(whole: Whole) -> None:
    whole.put_initramfs([name for name in DRIVERS if name not in ("loop", "squashfs")])
    (whole.generation.folder / "squashfs").mkdir()


BREAKS: dict[str, tuple[Callable[[Whole], object], str, str]] = {
    "a boot file is gone": (lambda one: (one.boot / "start4.elf").unlink(), "files", "start4.elf is in the manifest"),
    "a boot file too many": (lambda one: (one.boot / "x.img").write_text("x"), "files", "x.img is in boot/"),
    "a boot file is empty": (lambda one: (one.boot / "overlays.bin").write_text(""), "files", "not in the manifest"),
    "a boot file is another": (lambda one: (one.boot / "start4.elf").write_text("x"), "files", "not the file that was"),
    "an empty kernel": (lambda one: (one.boot / "vmlinuz").write_text(""), "files", "vmlinuz is empty"),
    "two kernels": (two_kernels, "kernel", "one kernel"),
    "a kernel of another version": (another_kernel, "kernel", f"says that it is {OTHER}"),
    "boot/vmlinuz is another kernel": (
        lambda one: one.put("vmlinuz", gzip.compress(kernel_bytes(OTHER), mtime=0)),
        "kernel",
        "not the root's kernel",
    ),
    "a module of modules.dep is gone": (
        lambda one: (one.root / f"usr/lib/modules/{KERNEL}/genet.ko").unlink(),
        "kernel",
        "1 modules that are not there: genet.ko",
    ),
    "an initramfs that is none": (lambda one: one.put("initramfs.img", b"x"), "initramfs", "can't be unpacked"),
    "modules of another kernel": (
        lambda one: one.put_initramfs(kernel=OTHER),
        "initramfs",
        f"modules of {OTHER}; the kernel is {KERNEL}",
    ),
    "modules made for another kernel": (
        lambda one: one.put_initramfs(vermagic=OTHER),
        "initramfs",
        "made for another kernel",
    ),
    "no overlay in the initramfs": (
        lambda one: one.put_initramfs([name for name in DRIVERS if name != "overlay"]),
        "initramfs",
        "lacks modules: overlay",
    ),
    "a packed root that the initramfs can't mount": (
        packed_root_without_loop,
        "initramfs",
        "lacks modules: loop, squashfs",
    ),
    "a device tree of another kernel": (
        lambda one: one.put("bcm2711-rpi-4-b.dtb", tree_bytes("brcm,bcm2711-genet-v5") + b"x"),
        "device trees",
        "bcm2711-rpi-4-b.dtb is not the one of the kernel",
    ),
    "firmware of another version": (
        lambda one: one.put("start4cd.elf", b"newer"),
        "firmware",
        "start4cd.elf is not the one in the root's",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_parts_that_do_not_belong_together(whole: Whole, name: str) -> None:
    break_it, check, said = BREAKS[name]
    break_it(whole)
    found = [flaw for flaw in whole.flaws() if flaw.check == check]
    assert any(said in flaw.what for flaw in found), whole.flaws()
    assert all(flaw.where and flaw.fix and flaw.severity is Severity.ERROR for flaw in whole.flaws())


def about(flaws: list[Flaw]) -> set[str]:
    return {flaw.about for flaw in flaws}


@pytest.mark.parametrize(
    ("name", "models", "said"),
    [
        ("bcm2712-rpi-5-b.dtb", {"5"}, "no device tree"),
        ("start4cd.elf", {"4B", "400", "CM4"}, "start4cd.elf"),
        ("fixup_cd.dat", {"3B", "3B+"}, "fixup_cd.dat"),
        ("bootcode.bin", {"3B", "3B+"}, "bootcode.bin"),
        ("vmlinuz", {"3B", "3B+", "4B", "400", "CM4", "5", "500", "CM5"}, "vmlinuz"),
    ],
)
def test_models_that_could_not_boot(whole: Whole, name: str, models: set[str], said: str) -> None:
    (whole.boot / name).unlink()
    whole.list_files()
    found = [flaw for flaw in whole.flaws() if flaw.check == "boot"]
    assert about(found) == models
    assert all(said in flaw.what and "groups.rpi.models" in flaw.what for flaw in found)


@pytest.mark.parametrize(
    ("driver", "models"),
    [
        ("genet", {"4B", "400", "CM4"}),
        ("lan78xx", {"3B+"}),
        ("smsc95xx", {"3B"}),
        ("rp1_pci", {"5", "500", "CM5"}),
        ("broadcom", {"4B", "400", "CM4", "5", "500", "CM5"}),
    ],
)
def test_models_without_a_network(whole: Whole, driver: str, models: set[str]) -> None:
    whole.put_initramfs([name for name in DRIVERS if name != driver])
    found = [flaw for flaw in whole.flaws() if flaw.check == "network"]
    assert about(found) == models
    assert all(driver in flaw.what for flaw in found)
    assert whole.checks() == ["network"]


def test_a_driver_in_the_kernel_need_not_be_in_the_initramfs(whole: Whole) -> None:
    whole.put_initramfs([name for name in DRIVERS if name != "genet"])
    (whole.root / f"usr/lib/modules/{KERNEL}/modules.builtin").write_text("kernel/net/genet.ko\n")
    assert whole.flaws() == []


def test_a_device_tree_that_knows_no_ethernet(whole: Whole) -> None:
    """That of Linux 6.12 for the Pi 5: RP1 isn't in it."""
    for folder in (whole.boot, whole.root / f"usr/lib/modules/{KERNEL}/dtb/broadcom"):
        (folder / "bcm2712-rpi-5-b.dtb").write_bytes(tree_bytes(""))
    whole.list_files()
    (found,) = whole.flaws()
    assert (found.check, found.about) == ("network", "5")
    assert "suite: trixie-backports" in found.fix


@pytest.mark.parametrize(
    ("size", "models"),
    [
        (65535 * 512 - 1, set()),
        (65535 * 512, {"3B", "3B+"}),
        (65535 * 1024, {"3B", "3B+", "4B", "400", "CM4"}),
        (65535 * 1468, {"3B", "3B+", "4B", "400", "CM4", "5", "500", "CM5"}),
    ],
)
def test_what_is_too_long_for_tftp_is_told_for_each_models_block_size(
    whole: Whole, size: int, models: set[str]
) -> None:
    with (whole.boot / "vmlinuz").open("r+b") as file:
        file.truncate(size)
    subject = whole.subject()
    found = [flaw for one in subject.candidates for flaw in check_candidate(subject, one) if flaw.check == "size"]
    assert about(found) == models
    assert all(f"vmlinuz has {size} bytes" in flaw.what for flaw in found)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (f"{{rpi: {{models: [4B], config_txt: [{', '.join(['dtparam=i2c_arm=on'] * 200)}]}}}}", "is not read"),
        ("{rpi: {models: [4B], config_txt: ['# größer']}}", "isn't ASCII"),
        (f"{{rpi: {{models: [4B], config_txt: ['dtparam={'x' * 100}']}}}}", "98 characters"),
        ("{rpi: {models: [4B], cmdline: 'quiet=é'}}", "isn't ASCII"),
        (f"{{rpi: {{models: [4B], cmdline: '{'x' * 1000}'}}}}", "more than 1024"),
        ('{rpi: {models: [4B], cmdline: "a\\nb"}}', "only the first counts"),
    ],
)
def test_texts_that_a_pi_would_not_read_whole(tmp_path: Path, groups: str, said: str) -> None:
    found = [flaw for flaw in make(tmp_path, groups).flaws() if flaw.check in ("config.txt", "cmdline.txt")]
    assert found
    assert said in found[0].what
    assert "groups.rpi" in found[0].where


def test_a_kernel_that_config_txt_names_and_that_is_not_there(tmp_path: Path) -> None:
    whole = make(tmp_path, "{rpi: {models: [4B], config_txt: ['kernel=mine.img']}}")
    assert [flaw.check for flaw in whole.flaws()] == ["boot"]
    assert "mine.img" in whole.flaws()[0].what


def test_config_txt_without_a_template(whole: Whole) -> None:
    path = whole.paths.etc / "overlays/boot/config.txt"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert [flaw.check for flaw in whole.flaws()] == ["config.txt"]


def test_capabilities_that_nfs_would_lose(whole: Whole) -> None:
    whole.capable["usr/bin/ping"] = "cap_net_raw=ep"
    (found,) = whole.flaws()
    assert found.check == "capabilities"
    assert "/usr/bin/ping has cap_net_raw=ep" in found.what
    listed = whole.root / capabilities.LIST
    listed.parent.mkdir(parents=True)
    listed.write_text("'cap_net_raw=ep'\t'/usr/bin/ping'\n")
    assert ["setcap" in flaw.what for flaw in whole.flaws()] == [True]
    (whole.root / "usr/sbin/setcap").write_text("")
    assert whole.flaws() == []
    whole.capable["usr/bin/ping"] = "cap_net_raw,cap_net_admin=ep"
    assert whole.checks() == ["capabilities"]


def test_squashfs_carries_capabilities(whole: Whole) -> None:
    whole.capable["usr/bin/ping"] = "cap_net_raw=ep"
    (whole.generation.folder / "squashfs").mkdir()
    (whole.generation.folder / "squashfs/10-base.squashfs").write_text("")
    assert whole.flaws() == []


NODES = """\
nodes:
  rpi1: {mac: "dc:a6:32:00:00:01", model: 4B, group: rpi, address: 10.77.0.11}
  rpi2: {mac: "d8:3a:dd:00:00:01", model: "5", group: rpi, address: 10.77.0.12}
"""


def without_pi5(whole: Whole) -> None:
    for folder in (whole.boot, whole.root / f"usr/lib/modules/{KERNEL}/dtb/broadcom"):
        (folder / "bcm2712-rpi-5-b.dtb").unlink()
    whole.list_files()


def test_a_registered_pi_that_never_booted_only_warns(tmp_path: Path) -> None:
    whole = make(tmp_path, "{rpi: {}}")
    whole.paths.registry.write_text(NODES)
    without_pi5(whole)
    flaws = whole.flaws()
    assert [(flaw.severity, flaw.about) for flaw in flaws] == [(Severity.WARNING, "5")]
    assert "(rpi2)" in flaws[0].what
    lint.refuse(flaws, whole.generation)


def test_a_pinned_node_boots_something_else(tmp_path: Path) -> None:
    whole = make(tmp_path, "{rpi: {}}")
    whole.paths.registry.write_text(NODES.replace("10.77.0.12}", f"10.77.0.12, pin: {whole.generation.id}}}"))
    without_pi5(whole)
    assert whole.flaws() == []


def test_a_registered_pi_may_not_lose_what_it_has(tmp_path: Path) -> None:
    whole = make(tmp_path, "{rpi: {}}")
    Store(whole.paths).switch(whole.generation)
    later = make(tmp_path, "{rpi: {}}", "20261122-000001-00000002")
    whole.paths.registry.write_text(NODES)
    without_pi5(later)
    before, after = whole.subject(), later.subject()
    assert lint.examine(before) == []
    assert [flaw.severity for flaw in lint.against(lint.examine(after), before)] == [Severity.ERROR]
    assert [flaw.severity for flaw in lint.against(lint.examine(after), after)] == [Severity.WARNING]


def test_where_nobody_says_which_pis_there_are_one_that_boots_is_enough(tmp_path: Path) -> None:
    whole = make(tmp_path, "{rpi: {}}")
    without_pi5(whole)
    assert whole.flaws() == []
    for name in ("start4cd.elf", "bootcode.bin", "bcm2712-rpi-500.dtb", "bcm2712-rpi-cm5-cm5io.dtb"):
        (whole.boot / name).unlink()
    whole.list_files()
    assert {flaw.about for flaw in whole.flaws() if flaw.check == "boot"} == {"4B"}


def test_refusing_names_the_first_and_lists_the_others(whole: Whole) -> None:
    (whole.boot / bootdir.KERNEL).unlink()
    with pytest.raises(UserError, match="vmlinuz is in the manifest") as caught:
        lint.refuse(whole.flaws(), whole.generation)
    assert "images build default" in caught.value.fix
    assert "boot: a Pi 4B" in caught.value.detail


def test_an_unknown_model_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"groups\.rpi\.models"):
        make(tmp_path, "{rpi: {models: [6B]}}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0100000200200000000000000000000000000000", "cap_net_raw=ep"),
        ("0000000200200000000000000000000000000000", "cap_net_raw=p"),
        ("0100000200340000000000000000000000000000", "cap_net_bind_service,cap_net_admin,cap_net_raw=ep"),
        ("0100000200000000002000000001000000000000", "cap_net_raw=ei cap_checkpoint_restore=ep"),
        ("0100000200000000000000000000000000000000", ""),
        ("", ""),
    ],
)
def test_capabilities_as_setcap_takes_them(value: str, text: str) -> None:
    assert capabilities.text_of(bytes.fromhex(value)) == text
