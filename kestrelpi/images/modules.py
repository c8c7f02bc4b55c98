"""Modules: capabilities (slurm, docker, openmp, …) that bring scripts, package lists and overlay files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config.schema import read
from kestrelpi.errors import ConfigError
from kestrelpi.images.overrides import Layer, resolve
from kestrelpi.paths import Paths, data_dir

MANIFEST = "module.yaml"


@dataclass(frozen=True)
class Manifest:
    """module.yaml."""

    name: str
    help: str = ""
    options: tuple[str, ...] = ()
    """Names of KESTRELPI_* variables that the module's scripts understand, for people."""


@dataclass(frozen=True)
class Module:
    """An enabled or available module; its files may lie in two folders, the user's over the built-in one."""

    name: str
    help: str
    folders: tuple[Path, ...]
    """The weakest first."""

    def layers(self, below: str) -> list[Layer]:
        """Where the module's files of a kind lie; `below` such as `node/configure.d` or `overlay/runtime`."""
        return [Layer(folder / below, f"module {self.name}", self.folders[0]) for folder in self.folders]


def available(paths: Paths, data: Path | None = None) -> dict[str, Module]:
    """Every module by name, built-in and in /etc/kestrelpi/modules; raises ConfigError on a bad module.yaml."""
    found: dict[str, Module] = {}
    bases = ((data or data_dir()) / "modules", paths.etc / "modules")
    names = {folder.name for base in bases if base.is_dir() for folder in base.iterdir() if folder.is_dir()}
    for name in sorted(names):
        folders = tuple(base / name for base in bases if (base / name).is_dir())
        manifest = resolve([Layer(folder, "module") for folder in folders]).get(MANIFEST)
        if manifest is None:
            continue  # an empty module.yaml removes the module, as an empty file removes a script
        said = _manifest(manifest.path)
        if said.name != name:
            raise ConfigError(
                f"the module calls itself {said.name!r} but its folder is {name!r}",
                where=str(manifest.path),
                fix="give both the same name",
            )
        found[name] = Module(name, said.help, folders)
    return found


def enabled(paths: Paths, names: tuple[str, ...], where: str = "", data: Path | None = None) -> tuple[Module, ...]:
    """The modules called `names`, in that order; raises ConfigError for an unknown one. `where`: for the error."""
    known = available(paths, data)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no module {name!r}",
                where=where or str(paths.config),
                fix=f"modules: {', '.join(known) or 'none'}; your own go to {paths.etc / 'modules'}/<name>/",
            )
    return tuple(known[name] for name in names)


def _manifest(path: Path) -> Manifest:
    return read(path.read_text(encoding="utf-8"), str(path), Manifest)[0]
