"""The files that a Pi loads by TFTP, taken from a finished root: kernel, device trees, firmware, initramfs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images import initramfs, kmod
from kestrelpi.images.kept import kept
from kestrelpi.images.manifest import BootFileInfo
from kestrelpi.sandbox import Sandbox

FIRMWARE = Path("usr/lib/raspi-firmware")
DEVICE_TREES = ("usr/lib/linux-image-{kernel}/broadcom", "usr/lib/modules/{kernel}/dtb/broadcom")
"""Where Debian's kernel packages keep them: up to trixie, and the backports' layout."""
LIMIT = 64 * 1024 * 1024
"""A Pi 4 silently cuts off a TFTP file beyond 64 MiB (rpi-eeprom issue 375)."""
ARM64_MAGIC = b"ARM\x64"
"""At byte 56 of an uncompressed kernel (Linux' Documentation/arch/arm64/booting.rst)."""
KERNEL, INITRAMFS = "vmlinuz", "initramfs.img"
Packer = Callable[[bytes, Path], None]
"""Writes the packed form of some bytes to a path."""


@dataclass(frozen=True)
class BootReport:
    """What a boot folder was made of."""

    kernel: str
    initramfs: initramfs.InitramfsReport
    files: Mapping[str, BootFileInfo]


def build(root: Path, overlay: Mapping[str, Path], out: Path, cache: Path) -> BootReport:
    """Fill the new folder `out`. `overlay`: files of the initramfs; `cache` keeps what was compressed once.

    Files are hard links of the root's and the cache's, so all three are on one file system.
    Raises UserError when the parts don't belong together.
    """
    out.mkdir()
    kernel = only_kernel(root)
    with ThreadPoolExecutor(1) as beside:
        packed = beside.submit(compressed_kernel, kernel_image(root, kernel), cache, out / KERNEL)
        report = initramfs.build(root, overlay, kernel, out / INITRAMFS, cache)
        packed.result()
    trees = device_trees(root, kernel)
    for tree in trees:
        os.link(tree, out / tree.name)
    (out / "overlays").mkdir()
    copy_firmware(root / FIRMWARE, out)
    files = {str(path.relative_to(out)): describe(path) for path in sorted(out.rglob("*")) if path.is_file()}
    check(out, files)
    return BootReport(kernel, report, files)


def only_kernel(root: Path) -> str:
    """The version of the root's kernel; raises UserError when kernel and modules don't match one to one."""
    images = sorted(kernel_images(root))
    modules = kmod.kernels(root)
    if len(images) == 1 and images == modules:
        return images[0]
    raise UserError(
        f"the root must have one kernel and the modules of the same version; kernels: {', '.join(images) or 'none'}; "
        f"modules: {', '.join(modules) or 'none'}",
        where=str(root),
        fix="put one kernel package (linux-image-arm64) on the package lists",
    )


def kernel_images(root: Path) -> dict[str, Path]:
    """Version → kernel. Debian's lie in /boot up to Linux 6.18, beside their modules since."""
    found = {path.parent.name: path for path in (root / "usr/lib/modules").glob("*/vmlinuz")}
    return found | {path.name.removeprefix("vmlinuz-"): path for path in (root / "boot").glob("vmlinuz-*")}


def kernel_image(root: Path, kernel: str) -> Path:
    """The file of the kernel of this version; raises KeyError when there is none."""
    return kernel_images(root)[kernel]


def write_gzip(plain: bytes, packed: Path) -> None:
    """gzip is all that a Pi's firmware knows. libdeflate's is a twentieth smaller than gzip -9, in the same time."""
    image = packed.with_name(f"{packed.name}.image")
    image.write_bytes(plain)
    try:
        run.run(Sandbox().argv(["libdeflate-gzip", "-12", "-f", image]))  # so that it ends with us, however we end
        image.with_name(f"{image.name}.gz").rename(packed)
    finally:
        image.unlink(missing_ok=True)


def compressed_kernel(image: Path, cache: Path, out: Path, pack: Packer = write_gzip) -> None:
    """The kernel, gzip-compressed: Debian's is plain and three times as long. Compressed once per kernel."""
    data = image.read_bytes()
    if data[:2] == b"\x1f\x8b":
        os.link(image, out)
        return
    if data[56:60] != ARM64_MAGIC:
        raise UserError("this is no arm64 kernel", where=str(image))
    os.link(kept(data, "libdeflate.gz", cache, pack), out)


def device_trees(root: Path, kernel: str) -> list[Path]:
    """The Pis' device trees of this kernel."""
    for template in DEVICE_TREES:
        folder = root / template.format(kernel=kernel)
        found = sorted([*folder.glob("bcm27*.dtb"), *folder.glob("bcm28*.dtb")])
        if found:
            return found
    raise UserError(f"the kernel {kernel} brought no device trees of Raspberry Pis", where=str(root))


def copy_firmware(source: Path, out: Path) -> None:
    """bootcode.bin, start*.elf, fixup*.dat and the firmware's own overlays."""
    files = [path for path in sorted(source.glob("*")) if path.suffix in (".bin", ".elf", ".dat")]
    if not files:
        raise UserError("the root has no boot firmware", where=str(source), fix="put it there in a post-install script")
    for path in files:
        os.link(path, out / path.name)
    for path in sorted((source / "overlays").glob("*.dtbo")):
        os.link(path, out / "overlays" / path.name)


def describe(path: Path) -> BootFileInfo:
    data = path.read_bytes()
    return BootFileInfo(len(data), hashlib.sha256(data).hexdigest())


def check(folder: Path, files: Mapping[str, BootFileInfo]) -> None:
    """Raise UserError when a Pi couldn't load a file."""
    for name, info in files.items():
        if info.size >= LIMIT:
            raise UserError(
                f"{name} has {info.size} bytes: a Pi loads less than {LIMIT} by TFTP", where=str(folder / name)
            )
        if info.size == 0:
            raise UserError(f"{name} is empty", where=str(folder / name))
