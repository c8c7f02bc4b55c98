"""A generation's root as compressed files that nodes mount over one another from NFS: less to read, fewer calls.

Two files: `10-base` holds the layers up to the last big one and is kept, so that neither an edited script nor a new
generation packs the whole root again; `20-changes` holds the small layers above it and what they take away, in the
overlay's own way of saying it (whiteouts and opaque folders, Linux' Documentation/filesystems/overlayfs.rst).

Who can mount the files can read all of the base. So it doesn't hold what a script takes away or replaces that runs once
after the packages (a key that a package made, say); what the quick scripts of the phase configure hide is in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from kestrelpi import run
from kestrelpi.images.flatten import copy_folder, flatten, is_opaque
from kestrelpi.images.keys import digest
from kestrelpi.images.layers import DRAFT, Layers
from kestrelpi.sandbox import Sandbox, view

SUFFIX = ".squashfs"
BASE, CHANGES = f"10-base{SUFFIX}", f"20-changes{SUFFIX}"
"""In the order in which a node stacks them: the lowest first."""
BIG = 8 * 1024 * 1024
"""Bytes of a layer that shouldn't be packed again for what changes above it: half a second's work."""
RUN_OFTEN = "configure"
"""The phase whose scripts are edited and run again and again: none of them makes the base be packed anew."""
BLOCK = "128K"
LEVEL = "9"
"""Of zstd: 15 takes five times as long and saves a fourteenth."""
OPTIONS = (
    *("-comp", "zstd", "-Xcompression-level", LEVEL, "-b", BLOCK, "-mkfs-time", "0"),
    *("-no-exports", "-noappend", "-no-recovery", "-exit-on-error", "-no-progress", "-quiet"),
)
"""The same tree gives the same bytes. Without export tables overlayfs doesn't ask the two files for different UUIDs."""


def make(layers: Layers, keys: Sequence[str], root: Path, marks: Sequence[str], out: Path, scratch: Path) -> None:
    """Fill the new folder `out` with the stack of layers `keys` (the lowest first) as squashfs files.

    `marks`: files of the flattened `root` that are in no layer; `scratch`: an existing folder for this call alone, on
    the layers' file system. Raises CommandFailed.
    """
    below = base_of(layers, keys)
    once = [key for key in keys[below:] if (info := layers.info(key)) and info.phase != RUN_OFTEN]
    out.mkdir()
    os.link(kept_base(layers, keys[:below], once, scratch), out / BASE)
    changes = scratch / "changes"
    flatten([layers.tree(key) for key in reversed(keys[below:])], changes, over_others=True)
    for name in marks:
        put_mark(root, name, changes)
    pack(Sandbox(), changes, out / CHANGES)


def base_of(layers: Layers, keys: Sequence[str]) -> int:
    """How many layers, counted from the lowest, belong to the base: up to the last big one."""
    return max((number for number, key in enumerate(keys, 1) if is_big(layers.tree(key))), default=1)


def is_big(tree: Path) -> bool:
    """Whether the files of a layer have BIG bytes."""
    size = 0
    for parent, _, names in os.walk(tree):
        size += sum(os.lstat(f"{parent}/{name}").st_size for name in names)
        if size >= BIG:
            return True
    return False


def kept_base(layers: Layers, keys: Sequence[str], once: Sequence[str], scratch: Path) -> Path:
    """The base of the layers `keys` without what the layers `once` above it hide; packed when none of these is kept."""
    trees = [layers.tree(key) for key in reversed(keys)]
    cover = scratch / "cover"
    hidden: list[str] = []
    if once:
        flatten([layers.tree(key) for key in reversed(once)], scratch / "once", over_others=True)
        make_cover(str(scratch / "once"), [str(tree) for tree in trees], str(cover), hidden)
    else:
        cover.mkdir()
    # A layer that was lost and made again, with the packages of another day, has the old key but not the old time.
    made = {key: str((layers.tree(key).parent / "layer.json").stat().st_mtime_ns) for key in keys}
    folder = folder_of(layers)
    kept = folder / f"{digest({**made, 'options': ' '.join(OPTIONS), 'hidden': ' '.join(hidden)})}{SUFFIX}"
    if not kept.is_file():
        folder.mkdir(exist_ok=True)
        for path in folder.glob(f"{DRAFT}*"):  # what a killed build left; the caller holds the build lock
            path.unlink()
        mounted = scratch / "base"
        mounted.mkdir()
        draft = folder / f"{DRAFT}{kept.name}"
        # The overlay driver merges them and hides its own attributes.
        lowers = [cover, *(tree.relative_to(layers.folder) for tree in trees)]
        pack(Sandbox(cwd=layers.folder).plus(view(lowers, mounted)), mounted, draft)
        draft.rename(kept)
    return kept


def make_cover(upper: str, lowers: Sequence[str], out: str, hidden: list[str], path: str = "") -> None:
    """Make the folder `out` a layer that takes out of the folders `lowers` all that `upper` hides.

    `lowers`: one folder of several layers, the topmost first; what is taken out is added to `hidden` by its `path`.
    """
    os.mkdir(out)  # noqa: PTH102
    with os.scandir(upper) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        below = [one for one in (f"{lower}/{entry.name}" for lower in lowers) if os.path.lexists(one)]
        folders = [one for one in below if os.path.isdir(one) and not os.path.islink(one)]  # noqa: PTH112, PTH114
        name = f"{path}/{entry.name}"
        if below and below == folders and entry.is_dir(follow_symlinks=False) and not is_opaque(entry.path):
            make_cover(entry.path, folders, f"{out}/{entry.name}", hidden, name)
        elif below:
            os.mknod(f"{out}/{entry.name}", stat.S_IFCHR, os.makedev(0, 0))
            hidden.append(name)
    copy_folder(lowers[0], out)


def folder_of(layers: Layers) -> Path:
    """Where bases are kept: beside the layers."""
    return layers.folder.parent / "squashfs"


def unused(layers: Layers) -> list[Path]:
    """Bases that no generation has: theirs are hard links of the kept ones."""
    folder = folder_of(layers)
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stat().st_nlink == 1)


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
