"""Kernel modules of a root: which files a list of modules needs, by the indexes that depmod made (modules.dep(5))."""

from __future__ import annotations

import gzip
import lzma
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError

PACKED = (".xz", ".zst", ".gz")


@dataclass(frozen=True)
class ModuleIndex:
    """The modules of one kernel."""

    folder: Path
    """`<root>/lib/modules/<version>`."""
    files: Mapping[str, str]
    """Name (with `_`) → path below `folder`."""
    needs: Mapping[str, tuple[str, ...]]
    """Path → paths that must be loaded before."""
    soft: Mapping[str, tuple[str, ...]]
    """Name → names that should be loaded before or after (softdep)."""
    builtin: frozenset[str]

    def closure(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Paths of `names` with all they need, dependencies first; and the names that this kernel doesn't have."""
        order: list[str] = []
        missing: list[str] = []
        seen: set[str] = set()

        def add(name: str) -> None:
            name = normal(name)
            if name in seen or name in self.builtin:
                return
            seen.add(name)
            path = self.files.get(name)
            if path is None:
                missing.append(name)
                return
            for needed in reversed(self.needs.get(path, ())):
                add(module_name(needed))
            for extra in self.soft.get(name, ()):
                if normal(extra) in self.files:
                    add(extra)
            order.append(path)

        for name in names:
            add(name)
        return order, missing


def module_name(path: str) -> str:
    """`kernel/net/usb/smsc95xx.ko.xz` → `smsc95xx`."""
    return normal(path.rpartition("/")[2].partition(".ko")[0])


def normal(name: str) -> str:
    """The kernel takes `-` and `_` in module names for the same."""
    return name.replace("-", "_")


def kernels(root: Path) -> list[str]:
    """Versions of the kernels whose modules are in `root`."""
    folder = root / "usr/lib/modules"
    return sorted(path.name for path in folder.iterdir() if (path / "modules.dep").is_file()) if folder.is_dir() else []


def load(root: Path, kernel: str) -> ModuleIndex:
    """Read the indexes; raises UserError when the root has no modules of that kernel."""
    folder = root / "usr/lib/modules" / kernel
    if not (folder / "modules.dep").is_file():
        raise UserError(
            f"the root has no modules of the kernel {kernel}", where=str(folder), fix="install the kernel's package"
        )
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = tuple(rest.split())
    soft: dict[str, tuple[str, ...]] = {}
    for line in _lines(folder / "modules.softdep"):
        if line.startswith("softdep "):
            name, *words = line.split()[1:]
            soft[normal(name)] = tuple(word for word in words if not word.endswith(":"))
    builtin = frozenset(module_name(line) for line in _lines(folder / "modules.builtin"))
    return ModuleIndex(folder, {module_name(path): path for path in needs}, needs, soft, builtin)


def indexes(index: ModuleIndex, paths: list[str]) -> dict[str, str]:
    """modules.dep, .alias, .softdep and .builtin cut down to `paths`, as plain `.ko`, for busybox modprobe."""
    names = {module_name(path) for path in paths}
    dep = "".join(
        f"{plain(path)}: {' '.join(plain(one) for one in index.needs[path])}".rstrip() + "\n" for path in paths
    )
    alias = [line for line in _lines(index.folder / "modules.alias") if normal(line.rsplit(" ", 1)[-1]) in names]
    softdep = [line for line in _lines(index.folder / "modules.softdep") if normal(line.split()[1:2][0]) in names]
    return {
        "modules.dep": dep,
        "modules.alias": "".join(f"{line}\n" for line in alias),
        "modules.softdep": "".join(f"{line}\n" for line in softdep),
        "modules.builtin": (index.folder / "modules.builtin").read_text(),
    }


def plain(path: str) -> str:
    """The name of a module file without its compression."""
    return next((path.removesuffix(end) for end in PACKED if path.endswith(end)), path)


def read_module(path: Path) -> bytes:
    """A module's bytes, decompressed on the frontend: faster than on a Pi, and no decompressor is needed there."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return unzstd(path)
    return path.read_bytes()


def unzstd(path: Path) -> bytes:
    """The content of a file that zstd packed; raises CommandFailed."""
    with tempfile.NamedTemporaryFile() as out:
        run.run(["zstd", "-dqf", path, "-o", out.name])
        return Path(out.name).read_bytes()


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
