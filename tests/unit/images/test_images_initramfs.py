"""What goes into an initramfs and into the boot folder, and what is refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images import bootdir, cpio, initramfs
from kestrelpi.images.manifest import BootFileInfo

KERNEL = "6.12.1-arm64"


def elf(machine: int = initramfs.EM_AARCH64, interpreter: bool = False) -> bytes:
    """An ELF header with one program header (a note, or an interpreter)."""
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return header + struct.pack("<I", 3 if interpreter else 4) + bytes(52)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    modules = root / "usr/lib/modules" / KERNEL
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/genet.ko: kernel/phy.ko\nkernel/phy.ko:\nkernel/other.ko:\n")
    (modules / "modules.builtin").write_text("")
    for name in ("genet", "phy", "other"):
        (modules / "kernel" / f"{name}.ko").write_bytes(name.encode())
    (root / "usr/bin").mkdir()
    (root / "usr/bin/busybox").write_bytes(elf())
    (root / "boot").mkdir()
    (root / f"boot/vmlinuz-{KERNEL}").write_bytes(bytes(56) + bootdir.ARM64_MAGIC + bytes(1000))
    return root


@pytest.fixture
def overlay(tmp_path: Path) -> dict[str, Path]:
    init = tmp_path / "init"
    init.write_text("#!/bin/sh\n")
    init.chmod(0o755)
    modules = tmp_path / "hardware"
    modules.write_text("# Pi 4\ngenet none-such # Ethernet\n")
    return {"init": init, "etc/hardware": modules}


def test_contents(root: Path, overlay: dict[str, Path]) -> None:
    entries, paths, missing = initramfs.contents(root, overlay, KERNEL)
    assert entries["init"].mode & 0o777 == 0o755
    assert entries[f"lib/modules/{KERNEL}/kernel/genet.ko"].data == b"genet"
    assert f"lib/modules/{KERNEL}/kernel/other.ko" not in entries
    assert paths == ["kernel/phy.ko", "kernel/genet.ko"]
    assert missing == ["none_such"]
    assert entries["bin/busybox"].data == elf()
    assert entries["dev/console"].device == (5, 1)


def test_without_init(root: Path) -> None:
    with pytest.raises(UserError, match="no init"):
        initramfs.contents(root, {}, KERNEL)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (elf(interpreter=True), "dynamically linked"),
        (elf(machine=62), "no arm64 program"),
        (b"#!/bin/sh", "no arm64 program"),
    ],
)
def test_a_busybox_that_would_not_run(root: Path, overlay: dict[str, Path], program: bytes, message: str) -> None:
    (root / "usr/bin/busybox").write_bytes(program)
    with pytest.raises(UserError, match=message):
        initramfs.contents(root, overlay, KERNEL)


def test_no_busybox(root: Path, overlay: dict[str, Path]) -> None:
    (root / "usr/bin/busybox").unlink()
    with pytest.raises(UserError, match="no busybox"):
        initramfs.contents(root, overlay, KERNEL)


def test_kernel_and_modules_must_agree(root: Path) -> None:
    assert bootdir.only_kernel(root) == KERNEL
    (root / "boot/vmlinuz-6.99").write_bytes(b"")
    with pytest.raises(UserError, match=r"kernels: 6\.12\.1-arm64, 6\.99; modules: 6\.12\.1-arm64"):
        bootdir.only_kernel(root)


def test_the_kernel_is_compressed_once(root: Path, tmp_path: Path) -> None:
    image, cache = root / f"boot/vmlinuz-{KERNEL}", tmp_path / "cache"

    def pack(data: bytes, out: Path) -> None:
        out.write_bytes(gzip.compress(data))

    for name in ("one", "two"):
        bootdir.compressed_kernel(image, cache, tmp_path / name, pack)
        assert gzip.decompress((tmp_path / name).read_bytes()) == image.read_bytes()
    (packed,) = cache.iterdir()
    packed.write_bytes(b"kept")
    bootdir.compressed_kernel(image, cache, tmp_path / "three", pack)
    assert (tmp_path / "three").read_bytes() == b"kept"


def test_an_initramfs_has_two_parts_of_which_an_edited_file_changes_the_small_one(
    root: Path, overlay: dict[str, Path], tmp_path: Path
) -> None:
    out, cache = tmp_path / "initramfs.img", tmp_path / "cache"
    report = initramfs.build(root, overlay, KERNEL, out, cache)
    assert report.size == out.stat().st_size
    members = cpio.unpack(initramfs.unpacked(out))
    wanted, _, _ = initramfs.contents(root, overlay, KERNEL)
    assert {name: members[name] for name in wanted} == wanted
    [packed] = cache.iterdir()
    assert out.read_bytes().endswith(packed.read_bytes())
    assert {"init", "dev/console"} <= set(cpio.unpack(out.read_bytes())), (
        "the kernel needs these before it unpacks more"
    )
    overlay["init"].write_text("#!/bin/sh\nexit 1\n")
    initramfs.build(root, overlay, KERNEL, out, cache)
    assert list(cache.iterdir()) == [packed]
    assert cpio.unpack(initramfs.unpacked(out))["init"].data == b"#!/bin/sh\nexit 1\n"


@pytest.mark.parametrize("data", [b"x", cpio.pack({}), cpio.pack({}) + initramfs.XZ_MAGIC + b"broken"])
def test_what_is_no_initramfs(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "initramfs.img").write_bytes(data)
    with pytest.raises(ValueError, match=r"no member|substring|second part|subsection"):
        initramfs.unpacked(tmp_path / "initramfs.img")


def test_something_else_than_an_arm64_kernel(root: Path, tmp_path: Path) -> None:
    image = root / f"boot/vmlinuz-{KERNEL}"
    image.write_bytes(bytes(2000))
    with pytest.raises(UserError, match="no arm64 kernel"):
        bootdir.compressed_kernel(image, tmp_path / "cache", tmp_path / "out")


@pytest.mark.parametrize("folder", ["usr/lib/linux-image-{0}/broadcom", "usr/lib/modules/{0}/dtb/broadcom"])
def test_device_trees_in_both_layouts(root: Path, folder: str) -> None:
    with pytest.raises(UserError, match="no device trees"):
        bootdir.device_trees(root, KERNEL)
    trees = root / folder.format(KERNEL)
    trees.mkdir(parents=True)
    for name in ("bcm2711-rpi-4-b.dtb", "bcm2837-rpi-3-b.dtb", "bcm4908.dtb"):
        (trees / name).touch()
    assert [path.name for path in bootdir.device_trees(root, KERNEL)] == ["bcm2711-rpi-4-b.dtb", "bcm2837-rpi-3-b.dtb"]


def test_a_file_that_a_pi_would_cut_off() -> None:
    with pytest.raises(UserError, match="67108864 bytes"):
        bootdir.check(Path("/boot"), {"vmlinuz": BootFileInfo(bootdir.LIMIT, "")})
    bootdir.check(Path("/boot"), {"vmlinuz": BootFileInfo(bootdir.LIMIT - 1, "")})
    with pytest.raises(UserError, match="is empty"):
        bootdir.check(Path("/boot"), {"vmlinuz": BootFileInfo(0, "")})
