"""The initramfs, made natively out of the image's own files: half a second, where emulation takes minutes.

Linux takes several archives after one another, each compressed or not (Linux' Documentation/driver-api/early-userspace/
buffer-format.rst): first the overlay's files as they are, then busybox and modules, which are packed once a kernel.
"""

from __future__ import annotations

import lzma
import stat
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.images import cpio, kmod
from kestrelpi.images.kept import kept

BUSYBOX = ("usr/bin/busybox", "bin/busybox")
MODULE_LISTS = ("etc/modules", "etc/hardware")
"""Of the overlay: modules that go in with all they need, `#` starts a comment. /init loads those in etc/modules."""
LEVEL = 6
"""Of xz: an eighth smaller than the best that zstd can do, for half a second of a Pi's time."""
XZ_MAGIC = b"\xfd7zXZ\0"
EM_AARCH64 = 183
"""ELF's number of the architecture (ELF for the Arm 64-bit Architecture, section 5.1)."""


@dataclass(frozen=True)
class InitramfsReport:
    """What went into an initramfs."""

    kernel: str
    size: int
    """Bytes, compressed."""
    modules: tuple[str, ...]
    missing: tuple[str, ...]
    """Modules that were asked for and this kernel doesn't have."""
    seconds: float


def build(root: Path, overlay: Mapping[str, Path], kernel: str, out: Path, cache: Path) -> InitramfsReport:
    """Write the initramfs for `kernel` to `out`.

    `overlay`: path inside the initramfs → source file, such as `init`; `cache` keeps what was packed once. Raises
    UserError when the root or the overlay lack what it takes.
    """
    started = time.monotonic()
    entries, paths, missing = contents(root, overlay, kernel)
    small = skeleton().keys() | overlay.keys()
    first = cpio.pack({name: entry for name, entry in entries.items() if name in small})
    second = cpio.pack({name: entry for name, entry in entries.items() if name not in small})
    out.write_bytes(first + kept(second, "xz", cache, compress).read_bytes())
    names = tuple(kmod.module_name(path) for path in paths)
    return InitramfsReport(kernel, out.stat().st_size, names, tuple(missing), time.monotonic() - started)


def contents(
    root: Path, overlay: Mapping[str, Path], kernel: str
) -> tuple[dict[str, cpio.Entry], list[str], list[str]]:
    """The members of the initramfs, the paths of its modules, and the modules that this kernel doesn't have."""
    if "init" not in overlay:
        raise UserError("the initramfs has no init", where="overlays/initramfs", fix="restore the file init")
    index = kmod.load(root, kernel)
    paths, missing = index.closure(wanted_modules(overlay))
    entries = skeleton()
    entries["bin/busybox"] = cpio.file(busybox(root), 0o755)
    base = f"lib/modules/{kernel}"
    for path in paths:
        entries[f"{base}/{kmod.plain(path)}"] = cpio.file(kmod.read_module(index.folder / path))
    for name, text in kmod.indexes(index, paths).items():
        entries[f"{base}/{name}"] = cpio.file(text.encode())
    for name, source in overlay.items():
        entries[name] = overlay_entry(source)
    return entries, paths, missing


def wanted_modules(overlay: Mapping[str, Path]) -> list[str]:
    """The modules that the overlay's lists name."""
    found = []
    for name in MODULE_LISTS:
        if name in overlay:
            lines = overlay[name].read_text(encoding="utf-8").splitlines()
            found += [word for line in lines for word in line.partition("#")[0].split()]
    return found


def skeleton() -> dict[str, cpio.Entry]:
    """Folders to mount on, and the two devices that the kernel and init need before devtmpfs is mounted."""
    folders = ("dev", "proc", "sys", "run", "etc", "mnt", "newroot", "lower", "rw", "root", "var", "lib/modules")
    entries = {name: cpio.folder() for name in folders}
    entries["tmp"] = cpio.folder(0o1777)
    entries["bin/sh"] = cpio.link("busybox")
    entries["sbin"] = cpio.link("bin")
    entries["dev/console"] = cpio.character_device(5, 1)
    entries["dev/null"] = cpio.character_device(1, 3, 0o666)
    return entries


def busybox(root: Path) -> bytes:
    """The image's busybox, which must be a static arm64 program: there is no C library beside it."""
    path = next((root / name for name in BUSYBOX if (root / name).is_file()), None)
    if path is None:
        raise UserError("the root has no busybox", where=str(root), fix="put busybox-static on a package list")
    data = path.read_bytes()
    if data[:4] != b"\x7fELF" or struct.unpack_from("<H", data, 18)[0] != EM_AARCH64:
        raise UserError("this is no arm64 program", where=str(path))
    if is_dynamic(data):
        raise UserError(
            "this busybox is dynamically linked", where=str(path), fix="install busybox-static in place of busybox"
        )
    return data


def is_dynamic(elf: bytes) -> bool:
    """Whether a 64-bit little-endian ELF file names an interpreter (program header type 3)."""
    offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
    return any(struct.unpack_from("<I", elf, offset + number * size)[0] == 3 for number in range(count))


def overlay_entry(source: Path) -> cpio.Entry:
    """A file of the overlay with its mode, or a symbolic link."""
    if source.is_symlink():
        return cpio.link(str(source.readlink()))
    return cpio.file(source.read_bytes(), stat.S_IMODE(source.stat().st_mode))


def compress(archive: bytes, out: Path) -> None:
    """Pack an archive so that Debian's arm64 kernels unpack it: they know no other check than CRC32."""
    out.write_bytes(lzma.compress(archive, check=lzma.CHECK_CRC32, preset=LEVEL))


def unpacked(path: Path) -> bytes:
    """All members of an initramfs in one plain archive; raises ValueError when it is none of ours."""
    data = path.read_bytes()
    end = next(at for at, name, _ in cpio.members(data) if name == cpio.TRAILER)
    try:
        return data[:end] + lzma.decompress(data[data.index(XZ_MAGIC, end) :])
    except lzma.LZMAError as error:
        raise ValueError(f"the second part of {path.name} can't be unpacked") from error
