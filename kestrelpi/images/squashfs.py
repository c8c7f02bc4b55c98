"""A generation's root as compressed files that nodes mount over one another from NFS: less to read, fewer calls.

`10-base` holds all that comes before the phase configure and is kept, so that neither an edited script nor a new
generation packs the whole root again; `20-changes` holds what configure adds and takes away, in the overlay's own
way of saying it (whiteouts and opaque folders, Linux' Documentation/filesystems/overlayfs.rst). Where packages were
added to an image, `15-more` says in the same way what came with them, over the base of before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kestrelpi import run
from kestrelpi.files import fsync_folder
from kestrelpi.images import added
from kestrelpi.images.difference import difference
from kestrelpi.images.flatten import copy_folder, flatten
from kestrelpi.images.keys import PREVIOUS, digest
from kestrelpi.images.layers import DRAFT, Layers
from kestrelpi.sandbox import Sandbox, view

SUFFIX = ".squashfs"
BASE, MORE, CHANGES = f"10-base{SUFFIX}", f"15-more{SUFFIX}", f"20-changes{SUFFIX}"
"""In the order in which a node stacks them: the lowest first."""
OVER = "-over-"
MOST_MORE = 64 * 1024 * 1024
"""Bytes of added files, not compressed: with more than that the base is packed anew."""
Others = Callable[[], Iterable[Sequence[str]]]
"""Gives stacks of layers."""
OFTEN = "configure"
"""The phase whose scripts are edited and run again and again."""
BLOCK = "128K"
LEVEL = "9"
"""Of zstd: 15 takes five times as long and saves a fourteenth."""
OPTIONS = (
    *("-comp", "zstd", "-Xcompression-level", LEVEL, "-b", BLOCK, "-mkfs-time", "0"),
    *("-no-exports", "-noappend", "-no-recovery", "-exit-on-error", "-no-progress", "-quiet"),
)
"""The same tree gives the same bytes. Without export tables overlayfs doesn't ask the two files for different UUIDs."""


def make(
    layers: Layers,
    keys: Sequence[str],
    root: Path,
    marks: Sequence[str],
    out: Path,
    scratch: Path,
    others: Others | None = None,
) -> None:
    """Fill the new folder `out` with the stack of layers `keys` (the lowest first) as squashfs files.

    `marks`: files of the flattened `root` that are in no layer; `scratch`: an existing folder for this call alone, on
    the layers' file system; `others`: stacks whose base may serve this one too, if packages were added to them; None:
    it is to have a base of its own. Raises CommandFailed.
    """
    infos = {key: layers.info(key) for key in keys}
    often = [key for key, info in infos.items() if info and info.phase == OFTEN]
    out.mkdir()
    for name, kept in kept_base(layers, [key for key in keys if key not in often], scratch, others).items():
        os.link(kept, out / name)
    changes = scratch / "changes"
    flatten([layers.tree(key) for key in reversed(often)], changes, over_others=True)
    for name in marks:
        put_mark(root, name, changes)
    pack(Sandbox(), changes, out / CHANGES)
    fsync_folder(out)


def kept_base(layers: Layers, keys: Sequence[str], scratch: Path, others: Others | None = None) -> dict[str, Path]:
    """The packed form of the layers `keys`, the lowest first: the kept file by its name; made when it isn't kept."""
    folder = folder_of(layers)
    folder.mkdir(exist_ok=True)
    for path in halves(folder):  # the caller holds the build lock
        path.unlink()
    kept = kept_path(layers, keys)
    if kept.is_file():
        return {BASE: kept}
    if others and (over := kept_over(kept) or lay_over(layers, keys, scratch, others())):
        return over
    mounted = scratch / "base"
    mounted.mkdir()
    draft = folder / f"{DRAFT}{kept.name}"
    # The overlay driver merges them (every image has several) and hides its own attributes.
    box = Sandbox(cwd=layers.folder).plus(view([Path(key) / "tree" for key in reversed(keys)], mounted))
    pack(box, mounted, draft)
    draft.rename(kept)
    return {BASE: kept}


def lay_over(layers: Layers, keys: Sequence[str], scratch: Path, others: Iterable[Sequence[str]]) -> dict[str, Path]:
    """The kept base of the first of `others` that has all but some packages, and those, packed; empty: none has."""
    for other in others:
        below = [key for key in other if not _is_often(layers, key)]
        if has_more(layers, below, keys) and kept_path(layers, below).is_file():
            more = keep_more(layers, below, keys, scratch)
            if more:
                return {BASE: kept_path(layers, below), MORE: more}
    return {}


def kept_over(whole: Path) -> dict[str, Path]:
    """The two kept files that together are what `whole` would be, by their names; empty: there are none.

    The stack of the lower one need not have a generation any more.
    """
    for more in whole.parent.glob(f"{whole.name.removesuffix(SUFFIX)}{OVER}*"):
        base = more.with_name(more.name.partition(OVER)[2])
        if base.is_file():
            return {BASE: base, MORE: more}
    return {}


def kept_path(layers: Layers, keys: Sequence[str]) -> Path:
    """Where the packed form of these layers is kept."""
    # A layer that was lost and made again, with the packages of another day, has the old key but not the old time.
    made = {key: str((layers.tree(key).parent / "layer.json").stat().st_mtime_ns) for key in keys}
    return folder_of(layers) / f"{digest({**made, 'options': ' '.join(OPTIONS)})}{SUFFIX}"


def has_more(layers: Layers, below: Sequence[str], keys: Sequence[str]) -> bool:
    """Whether the stack `keys` is the stack `below` but for packages that were added to it.

    Then nothing was changed or taken away by somebody who wants to see it gone from what nodes can read.
    """
    infos = [[layers.info(key) for key in stack] for stack in (below, keys)]
    if not all(info for stack in infos for info in stack):
        return False
    chains = [[info for info in stack if info and info.phase == added.PHASE] for stack in infos]
    if len(chains[0]) >= len(chains[1]) or chains[0] != chains[1][: len(chains[0])]:
        return False
    scripts = [
        [{**info.fields, PREVIOUS: ""} for info in stack if info and info.phase != added.PHASE] for stack in infos
    ]
    return scripts[0] == scripts[1]


def keep_more(layers: Layers, below: Sequence[str], keys: Sequence[str], scratch: Path) -> Path | None:
    """Pack what the stack `keys` has over the stack `below`, and keep it. None: it is too much."""
    base, whole = kept_path(layers, below), kept_path(layers, keys)
    kept = base.with_name(f"{whole.name.removesuffix(SUFFIX)}{OVER}{base.name}")
    trees = [scratch / name for name in ("below", "above", "more")]
    for stack, tree in zip((below, keys), trees, strict=False):
        flatten([layers.tree(key) for key in reversed(stack)], tree)
    if difference(*trees) > MOST_MORE:
        return None
    draft = kept.with_name(f"{DRAFT}{kept.name}")
    pack(Sandbox(), trees[-1], draft)
    draft.rename(kept)
    return kept


def _is_often(layers: Layers, key: str) -> bool:
    info = layers.info(key)
    return info is not None and info.phase == OFTEN


def folder_of(layers: Layers) -> Path:
    """Where bases are kept: beside the layers."""
    return layers.folder.parent / "squashfs"


def halves(folder: Path) -> list[Path]:
    """What killed builds left."""
    return list(folder.glob(f"{DRAFT}*"))


def unused(layers: Layers) -> list[Path]:
    """Bases that no generation has (theirs are hard links of the kept ones), and what killed builds left."""
    folder = folder_of(layers)
    whole = [path for path in folder.glob(f"[!.]*{SUFFIX}") if path.stat().st_nlink == 1]
    return [*halves(folder), *whole]


def put_mark(root: Path, name: str, changes: Path) -> None:
    """Link a file that was made in the flattened root into the tree of changes, with its folders as they are there."""
    above = [parent for parent in reversed(Path(name).parents) if parent != Path()]
    for parent in above:
        if not (changes / parent).is_dir():
            (changes / parent).mkdir()
    (changes / name).unlink(missing_ok=True)
    os.link(root / name, changes / name)
    for parent in reversed(above):
        copy_folder(str(root / parent), str(changes / parent))


def pack(box: Sandbox, tree: Path, out: Path) -> None:
    """Make `out` of `tree` inside `box`, and bring it to disk."""
    run.run(box.argv(["mksquashfs", tree, out, *OPTIONS]))
    fd = os.open(out, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
