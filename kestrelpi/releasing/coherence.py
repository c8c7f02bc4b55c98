"""Whether the parts of a generation belong together: kernel, modules, initramfs, device trees, firmware."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.images import bootdir, capabilities, kmod
from kestrelpi.releasing.flaw import Flaw
from kestrelpi.releasing.subject import Subject

REBUILD = "kestrelpi images build NAME --force-from packages"
ROOT_MODULES, SQUASHFS_MODULES = ("overlay",), ("loop", "squashfs")
DTB_MAGIC = b"\xd0\x0d\xfe\xed"


def check_files(subject: Subject) -> Iterator[Flaw]:
    """boot/ holds the files that the manifest names, byte for byte."""
    listed = subject.generation.manifest.boot
    there = {str(path.relative_to(subject.boot)) for path in subject.boot.rglob("*") if path.is_file()}
    for name in sorted({*listed, *there}):
        where = str(subject.boot / name)
        if name not in there:
            yield Flaw("files", f"{name} is in the manifest and not in boot/", where, REBUILD)
        elif name not in listed:
            yield Flaw("files", f"{name} is in boot/ and not in the manifest", where, f"rm {where}")
        elif not (subject.boot / name).stat().st_size:
            yield Flaw("files", f"{name} is empty", where, REBUILD)
        elif hashlib.sha256((subject.boot / name).read_bytes()).hexdigest() != listed[name].sha256:
            yield Flaw("files", f"{name} is not the file that was built", where, REBUILD)


def check_kernel(subject: Subject) -> Iterator[Flaw]:
    """One kernel in the root; boot/vmlinuz is that one; its modules are those of its version."""
    try:
        image = bootdir.kernel_image(subject.root, bootdir.only_kernel(subject.root))
    except UserError as error:
        yield Flaw("kernel", error.what, error.where, error.fix)
        return
    plain = image.read_bytes()
    version = kernel_version(plain)
    if version != subject.kernel:
        yield Flaw(
            "kernel",
            f"the kernel says that it is {version or 'nothing'}, the manifest says {subject.kernel}",
            str(image),
            REBUILD,
        )
    packed = subject.boot / bootdir.KERNEL
    if packed.is_file() and not is_packed_form(packed, plain):
        yield Flaw("kernel", "boot/vmlinuz is not the root's kernel", str(packed), REBUILD)
    if subject.index is None:
        yield Flaw(
            "kernel", f"the root has no modules of {subject.kernel}", str(subject.root / "usr/lib/modules"), REBUILD
        )
        return
    folder = str(subject.index.folder)
    gone = [path for path in subject.index.needs if not os.path.isfile(f"{folder}/{path}")]  # noqa: PTH113 (thousands)
    if gone:
        yield Flaw(
            "kernel",
            f"modules.dep names {len(gone)} modules that are not there: {', '.join(gone[:3])}",
            str(subject.index.folder),
            REBUILD,
        )


def kernel_version(image: bytes) -> str:
    """What an uncompressed kernel calls itself; empty: it doesn't say."""
    at = image.find(b"Linux version ")
    words = image[at : at + 200].split(b" ", 3) if at >= 0 else []
    return words[2].decode("ascii", "replace") if len(words) > 2 else ""


def is_packed_form(packed: Path, plain: bytes) -> bool:
    """Whether `packed` is `plain`, or what gzip made of it: the end of a gzip file has CRC and length (RFC 1952)."""
    data = packed.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data == plain
    trailer = zlib.crc32(plain).to_bytes(4, "little") + (len(plain) & 0xFFFFFFFF).to_bytes(4, "little")
    return data == plain or data[-8:] == trailer


def check_initramfs(subject: Subject) -> Iterator[Flaw]:
    """It can be unpacked, has init and busybox, and modules of this kernel only, each with what it needs."""
    where = str(subject.boot / bootdir.INITRAMFS)
    entries = subject.initramfs
    if not entries:
        yield Flaw("initramfs", "the initramfs can't be unpacked", where, REBUILD)
        return
    for name in ("init", "bin/busybox"):
        if name not in entries or not entries[name].mode & 0o111 or not entries[name].data:
            yield Flaw("initramfs", f"it has no {name} that can run", where, "restore overlays/initramfs")
    base = f"lib/modules/{subject.kernel}/"
    foreign = sorted(
        {name.split("/")[2] for name in entries if name.startswith("lib/modules/") and name.count("/") > 2}
    )
    for version in foreign:
        if version != subject.kernel:
            yield Flaw("initramfs", f"it has modules of {version}; the kernel is {subject.kernel}", where, REBUILD)
    mark = f"vermagic={subject.kernel} ".encode()
    strange = [name for name, one in entries.items() if name.startswith(base) and name.endswith(".ko")
               and b"vermagic=" in one.data and mark not in one.data]  # fmt: skip
    if strange:
        yield Flaw("initramfs", f"modules were made for another kernel: {', '.join(strange[:3])}", where, REBUILD)
    names = modules_of(subject)
    lacking = [name for name in _root_modules(subject) if not has(subject, name)]
    for line in entries[f"{base}modules.dep"].data.decode().splitlines() if f"{base}modules.dep" in entries else ():
        path, _, needed = line.partition(":")
        lacking += [one for one in (path, *needed.split()) if f"{base}{one}" not in entries]
    if names and lacking:
        yield Flaw(
            "initramfs", f"it lacks modules: {', '.join(lacking[:5])}", where, "restore overlays/initramfs/etc/modules"
        )
    elif not names:
        yield Flaw("initramfs", f"it has no modules of {subject.kernel}", where, REBUILD)


def _root_modules(subject: Subject) -> tuple[str, ...]:
    nfs = "nfsv3" if subject.config.services.nfs.version == "3" else "nfsv4"
    return (*ROOT_MODULES, nfs, *(SQUASHFS_MODULES if subject.generation.squashfs else ()))


def modules_of(subject: Subject) -> set[str]:
    """The modules in the initramfs."""
    base = f"lib/modules/{subject.kernel}/"
    return {kmod.module_name(name) for name in subject.initramfs if name.startswith(base) and name.endswith(".ko")}


def has(subject: Subject, module: str) -> bool:
    """Whether the initramfs has a module, or the kernel itself does."""
    name = kmod.normal(module)
    return name in modules_of(subject) or (subject.index is not None and name in subject.index.builtin)


def check_device_trees(subject: Subject) -> Iterator[Flaw]:
    """Those in boot/ are the kernel's own."""
    try:
        own = {path.name: path for path in bootdir.device_trees(subject.root, subject.kernel)}
    except UserError as error:
        yield Flaw("device trees", error.what, error.where, REBUILD)
        return
    for path in sorted(subject.boot.glob("*.dtb")):
        data = path.read_bytes()
        if path.name not in own or data != own[path.name].read_bytes():
            what = f"{path.name} is not the one of the kernel {subject.kernel}"
            yield Flaw("device trees", what, str(path), REBUILD)
        elif not data.startswith(DTB_MAGIC):
            yield Flaw("device trees", f"{path.name} is no device tree", str(path), REBUILD)


def check_firmware(subject: Subject) -> Iterator[Flaw]:
    """start*.elf, fixup*.dat and bootcode.bin are all of the package in the root: they only work together."""
    source = subject.root / bootdir.FIRMWARE
    for path in sorted(subject.boot.iterdir()):
        if path.suffix not in (".elf", ".dat", ".bin"):
            continue
        if not (source / path.name).is_file() or (source / path.name).read_bytes() != path.read_bytes():
            what = f"{path.name} is not the one in the root's {bootdir.FIRMWARE}"
            yield Flaw("firmware", what, str(path), "remove files that were put into boot/ by hand, or build again")


def check_capabilities(subject: Subject) -> Iterator[Flaw]:
    """What capabilities a node's file system loses is given back to it at boot."""
    if subject.keeps_attributes:
        return
    restored = capabilities.read_list(subject.root)
    lost = {name: text for name, text in subject.capabilities.items() if restored.get(name) != text}
    for name, text in lost.items():
        yield Flaw(
            "capabilities",
            f"/{name} has {text}, which NFS does not carry, and nothing gives it back",
            str(subject.root / name),
            "kestrelpi images build NAME --force-from configure; or images.NAME.root: squashfs",
        )
    if restored and not any((subject.root / name).is_file() for name in capabilities.SETCAP):
        yield Flaw(
            "capabilities",
            f"{', '.join(restored)}: a node needs setcap to give back what NFS does not carry",
            str(subject.root / capabilities.LIST),
            "put libcap2-bin into images.NAME.packages",
        )


Check = Callable[[Subject], Iterator[Flaw]]
CHECKS: tuple[Check, ...] = (
    check_files,
    check_kernel,
    check_initramfs,
    check_device_trees,
    check_firmware,
    check_capabilities,
)
"""Of the generation itself, the files first; `check_candidate` is for each model besides."""
