"""The one override rule: same name replaces, a new name adds, an empty file removes.

It holds for scripts, package lists, modules and overlay files alike. From the strongest:
`/etc/kestrelpi/images/<image>/`, `/etc/kestrelpi/`, enabled modules, built-in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = ".j2"
"""A file with this ending is rendered first; it has the same name as the plain file that it becomes."""
DOCUMENTATION = "README.md"
"""Explains a folder to people; never a member of it."""


@dataclass(frozen=True)
class Layer:
    """One folder in which files of a kind may lie."""

    folder: Path
    origin: str
    """Who it belongs to, for people: `built-in`, `module slurm`, `/etc/kestrelpi`, `image default`."""
    module: Path | None = None
    """The folder of the module that it is part of."""


@dataclass(frozen=True)
class Resolved:
    """The file that won a name."""

    name: str
    """Path below the layer's folder, without `.j2`."""
    path: Path
    origin: str
    overrides: tuple[Path, ...] = ()
    """The files of the same name that lost, the strongest first."""
    module: Path | None = None
    """The module that the name belongs to, also where the user's file replaces the module's."""
    removed: bool = False
    """The winner is an empty file: the name is gone."""

    @property
    def is_template(self) -> bool:
        return self.path.name.endswith(TEMPLATE)


def resolve(layers: Sequence[Layer]) -> dict[str, Resolved]:
    """What is in force, by name in sorted order. `layers`: the weakest first; folders that don't exist are skipped."""
    return {name: found for name, found in resolve_all(layers).items() if not found.removed}


def resolve_all(layers: Sequence[Layer]) -> dict[str, Resolved]:
    """Like `resolve`, with the removed names too (for `--plan`)."""
    found: dict[str, Resolved] = {}
    for layer in layers:
        for path in _files(layer.folder):
            name = str(path.relative_to(layer.folder)).removesuffix(TEMPLATE)
            found[name] = _over(found.get(name), layer, name, path)
    return dict(sorted(found.items()))


def resolve_one(layers: Sequence[Layer], name: str) -> Resolved | None:
    """Like `resolve` for a single name, without a look at all others; None: there is none, or it was removed."""
    found: Resolved | None = None
    for layer in layers:
        for path in (layer.folder / name, layer.folder / f"{name}{TEMPLATE}"):
            if path.is_file() or path.is_symlink():
                found = _over(found, layer, name, path)
    return None if found is None or found.removed else found


def _over(weaker: Resolved | None, layer: Layer, name: str, path: Path) -> Resolved:
    """`path` of `layer` in the place of `weaker`."""
    return Resolved(
        name=name,
        path=path,
        origin=layer.origin,
        overrides=(weaker.path, *weaker.overrides) if weaker else (),
        module=layer.module or (weaker.module if weaker else None),
        removed=not path.is_symlink() and path.stat().st_size == 0,
    )


def _files(folder: Path) -> Iterator[Path]:
    """Files and symbolic links below `folder`; a link to a folder counts as a file, editors' backups don't count."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted(files + links):
            if name.endswith("~") or (name == DOCUMENTATION and Path(parent) == folder):
                continue
            yield Path(parent) / name
