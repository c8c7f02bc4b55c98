"""A generation whose parts belong together: a few bytes for each, made for tests to break."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.config import parse as parse_config
from kestrelpi.images import bootdir, cpio, sbom
from kestrelpi.images.manifest import BootFileInfo, Manifest
from kestrelpi.images.store import Generation
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.releasing.boards import BOARDS, GEM, GENET
from kestrelpi.releasing.coherence import DTB_MAGIC
from kestrelpi.releasing.flaw import Flaw
from kestrelpi.releasing.lint import examine
from kestrelpi.releasing.subject import Subject, subject

KERNEL = "7.3.4-arm64"
ID = "20261122-000000-00000001"
ROOT = {"overlay", "nfsv4", "loop", "squashfs"}
DRIVERS = sorted({driver for board in BOARDS.values() for driver in board.drivers} | ROOT)
FIRMWARE = ("bootcode.bin", "start.elf", "fixup.dat", "start_cd.elf", "fixup_cd.dat", "start4.elf", "start4cd.elf",
            "fixup4cd.dat")  # fmt: skip
TREES = {
    **{board.profile.upstream_dtb: board.ethernet for board in BOARDS.values()},
}
assert {GEM, GENET} <= set(TREES.values())


@dataclass
class Whole:
    """A generation below `paths`, and what is to be said of it."""

    paths: Paths
    config: Config
    generation: Generation
    capable: dict[str, str]
    """Files of the root with capabilities."""

    @property
    def root(self) -> Path:
        return self.generation.root

    @property
    def boot(self) -> Path:
        return self.generation.boot

    def subject(self) -> Subject:
        return subject(
            self.paths,
            self.config,
            self.generation,
            Registry.load(self.paths.registry, self.config),
            unpack=Path.read_bytes,
            find_capabilities=lambda root: self.capable,
        )

    def flaws(self) -> list[Flaw]:
        return examine(self.subject())

    def checks(self) -> list[str]:
        """The names of the checks that found something."""
        return sorted({flaw.check for flaw in self.flaws()})

    def put(self, name: str, data: bytes) -> None:
        """Write a file of boot/ and list it in the manifest."""
        (self.boot / name).write_bytes(data)
        self.list_files()

    def list_files(self) -> None:
        files = {}
        for path in sorted(self.boot.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                files[str(path.relative_to(self.boot))] = BootFileInfo(len(data), hashlib.sha256(data).hexdigest())
        manifest = Manifest(self.generation.id, "default", "trixie", "", KERNEL, {}, files, ())
        (self.generation.folder / "manifest.json").write_text(sbom.text_of(manifest))
        self.generation = Generation("default", self.generation.id, self.generation.folder)

    def put_initramfs(self, modules: Iterable[str] = DRIVERS, kernel: str = KERNEL, vermagic: str = KERNEL) -> None:
        """The archive isn't packed: `subject` reads it as it is."""
        base = f"lib/modules/{kernel}/"
        entries = {"init": cpio.file(b"#!", 0o755), "bin/busybox": cpio.file(b"\x7fELF", 0o755)}
        for name in modules:
            entries[f"{base}{name}.ko"] = cpio.file(f"\0vermagic={vermagic} SMP\0".encode())
        entries[f"{base}modules.dep"] = cpio.file("".join(f"{name}.ko:\n" for name in modules).encode())
        self.put(bootdir.INITRAMFS, cpio.pack(entries))


def kernel_bytes(version: str = KERNEL) -> bytes:
    return bytes(56) + bootdir.ARM64_MAGIC + f"\0Linux version {version} (x) #1\0".encode() + bytes(1000)


def tree_bytes(ethernet: str) -> bytes:
    return DTB_MAGIC + bytes(40) + ethernet.encode() + bytes(9)


def make(
    folder: Path, groups: str = "{rpi: {models: [3B, 3B+, 4B, 400, CM4, '5', '500', CM5]}}", id: str = ID
) -> Whole:
    """The generation and its configuration."""
    paths = Paths(folder)
    config = parse_config(
        f"network: {{address: 10.77.0.1/24}}\ngroups: {groups}\nimages: {{default: {{modules: []}}}}\n"
    )
    whole = Whole(paths, config, Generation("default", id, paths.images / "default/generations" / id), {})
    modules = whole.root / "usr/lib/modules" / KERNEL
    trees = modules / "dtb/broadcom"
    firmware = whole.root / bootdir.FIRMWARE
    for path in (trees, firmware, whole.boot, whole.root / "usr/sbin"):
        path.mkdir(parents=True)
    (modules / "vmlinuz").write_bytes(kernel_bytes())
    (modules / "modules.dep").write_text("".join(f"{name}.ko:\n" for name in DRIVERS))
    (modules / "modules.builtin").write_text("")
    for name in DRIVERS:
        (modules / f"{name}.ko").write_bytes(b"module")
    for name, ethernet in TREES.items():
        (trees / name).write_bytes(tree_bytes(ethernet))
        (whole.boot / name).write_bytes(tree_bytes(ethernet))
    for name in FIRMWARE:
        (firmware / name).write_text(name)
        (whole.boot / name).write_text(name)
    (whole.boot / bootdir.KERNEL).write_bytes(gzip.compress(kernel_bytes(), mtime=0))
    whole.put_initramfs()
    return whole
