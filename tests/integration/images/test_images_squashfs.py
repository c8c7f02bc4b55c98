"""The files of a packed root, unpacked and stacked by the kernel's overlay driver, are the flattened root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from kestrelpi.images import squashfs
from kestrelpi.images.flatten import flatten
from kestrelpi.images.keys import PREVIOUS
from kestrelpi.images.layers import LayerInfo, Layers
from kestrelpi.sandbox import Sandbox, view

KEYS = ("bootstrap", "packages", "post-install", "configure")
"""Of layers, each of the phase of its name."""
MARK = "etc/.updated"
LISTING = r"""
find . -printf '%p %y %m %U %G %l %T@\n' | sed -E 's/[.][0-9]{10}$//' | sort
find . -type f -exec sha256sum {} + -exec getcap {} + | sort
"""
"""What a node sees of each path. Times of folders too (systemd compares that of /usr with the mark); squashfs has whole
seconds."""


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    """Four layers, with all that an upper layer can do to those below."""
    made = Layers(tmp_path / "cache/layers")
    made.folder.mkdir(parents=True)
    for key in KEYS:
        with made.draft(key) as draft:
            FILL[key](draft.tree)
            made.seal(draft, LayerInfo(key, key, key, {}))
    return made


def write(tree: Path, name: str, text: str = "") -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f"{tree.parent.name} {name}")


def fill_bootstrap(tree: Path) -> None:
    for name in ("etc/keep", "etc/gone", "etc/back", "cut/deep/hidden", "turns/inside", "stays/sub/x", "usr/bin/ping"):
        write(tree, name)
    # a version 2 file capability (linux/capability.h): cap_net_raw, permitted and effective
    os.setxattr(
        tree / "usr/bin/ping", "security.capability", bytes.fromhex("01000002002000000000000000000000" + "00" * 4)
    )


def fill_packages(tree: Path) -> None:
    write(tree, "usr/lib/program")
    write(tree, "etc/munge.key", "a key of the package's")
    write(tree, "etc/id", "an id of the package's")
    write(tree, "etc/motd", "shown to nobody")
    write(tree, "etc/keep")
    os.mknod(tree / "etc/gone", 0o20000, 0)
    (tree / "cut").mkdir()
    os.setxattr(tree / "cut", "trusted.overlay.opaque", b"y")
    write(tree, "cut/new")


def fill_post_install(tree: Path) -> None:
    os.mknod(tree / "stays", 0o20000, 0)
    (tree / "etc").mkdir()
    os.mknod(tree / "etc/back", 0o20000, 0)
    os.mknod(tree / "etc/munge.key", 0o20000, 0)
    write(tree, "etc/id", "empty")
    (tree / "cut").mkdir(mode=0o711)
    os.chown(tree / "cut", 7, 8)
    os.setxattr(tree / "cut", "trusted.overlay.opaque", b"y")
    os.setxattr(tree / "cut", "trusted.overlay.origin", b"an inode of this machine")


def fill_configure(tree: Path) -> None:
    write(tree, "turns", "a file now")
    write(tree, "etc/motd", "welcome")
    write(tree, "stays/new")
    write(tree, "etc/back", "again")
    os.link(tree / "etc/back", tree / "etc/back-too")


FILL = {
    "bootstrap": fill_bootstrap,
    "packages": fill_packages,
    "post-install": fill_post_install,
    "configure": fill_configure,
}


class Packed:
    """The flattened root of layers, and the folder of its packed form."""

    def __init__(
        self, layers: Layers, folder: Path, keys: Sequence[str] = KEYS, others: Sequence[Sequence[str]] = ()
    ) -> None:
        self.root, self.files, scratch = folder / "root", folder / "squashfs", folder / "scratch"
        scratch.mkdir(parents=True)
        flatten([layers.tree(key) for key in reversed(keys)], self.root)
        (self.root / MARK).write_text("TIMESTAMP_NSEC=1\n")
        for name in (MARK, "etc"):
            os.utime(self.root / name, (5, 5))
        squashfs.make(layers, keys, self.root, (MARK,), self.files, scratch, (lambda: others) if others else None)

    def unpacked(self, into: Path) -> list[Path]:
        """The files as folders, the topmost first."""
        found = [into / file.stem for file in sorted(self.files.iterdir(), reverse=True)]
        for folder in found:
            file = self.files / f"{folder.name}.squashfs"
            subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", folder, file], check=True)
        return found


def remake(layers: Layers, key: str, more: str) -> None:
    """Lose a layer and make it again, with one file more."""
    layers.remove(key)
    with layers.draft(key) as draft:
        FILL[key](draft.tree)
        write(draft.tree, more)
        layers.seal(draft, LayerInfo(key, key, key, {}))


def add_packages(layers: Layers, step: str = "", size: int = 0) -> tuple[str, ...]:
    """A stack with one step more in the phase packages; `step`: what a later script is called, if not as before."""
    more = ("packages-2", "post-install-2", "configure-2")
    for key in more:
        phase = key.removesuffix("-2")
        with layers.draft(key) as draft:
            if phase == "packages":
                fill_more(draft.tree, size)
            else:
                FILL[phase](draft.tree)
            fields = {PREVIOUS: "another", **({"script": step} if step and phase == "post-install" else {})}
            layers.seal(draft, LayerInfo(key, phase, key, fields if phase != "packages" else {}))
    return ("bootstrap", "packages", *more)


def fill_more(tree: Path, size: int) -> None:
    write(tree, "usr/bin/htop")
    write(tree, "usr/lib/program", "a new one")
    write(tree, "usr/lib/big", "x" * size or "small")
    write(tree, "turns/inside/deep", "where a file was")
    (tree / "cut").mkdir(mode=0o700)
    os.mknod(tree / "cut/new", 0o20000, 0)


def listing(box: Sandbox, folder: Path) -> list[str]:
    argv = box.plus(["cd", folder]).argv(["sh", "-c", LISTING])
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()


def test_stacked_they_are_the_root(layers: Layers, tmp_path: Path) -> None:
    packed = Packed(layers, tmp_path / "one")
    parts = packed.unpacked(tmp_path)
    assert [part.name for part in parts] == ["20-changes", "10-base"]
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    stacked = listing(Sandbox().plus(view(parts, mounted)), mounted)
    assert stacked == listing(Sandbox(), packed.root)
    text = "\n".join(stacked)
    assert "./usr/bin/ping cap_net_raw=ep" in text
    assert "./etc/back-too" in text
    assert "hidden" not in text
    assert not (parts[0] / "usr").exists(), "nothing of the base is packed twice"
    base = {str(path.relative_to(parts[1])) for path in parts[1].rglob("*")}
    assert {"etc/keep", "etc/motd", "usr/lib/program"} <= base
    assert not {"etc/munge.key", "etc/gone", "etc/back", "stays", "cut/new", "cut/deep"} & base


def test_added_packages_lie_in_a_file_of_their_own(layers: Layers, tmp_path: Path) -> None:
    one = Packed(layers, tmp_path / "one")
    keys = add_packages(layers)
    two = Packed(layers, tmp_path / "two", keys, [("gone", "configure"), KEYS])
    assert (two.files / squashfs.BASE).samefile(one.files / squashfs.BASE)
    (tmp_path / "unpacked").mkdir()
    parts = two.unpacked(tmp_path / "unpacked")
    assert [part.name for part in parts] == ["20-changes", "15-more", "10-base"]
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    stacked = listing(Sandbox().plus(view(parts, mounted)), mounted)
    assert stacked == listing(Sandbox(), two.root)
    assert any("usr/bin/htop" in line for line in stacked)
    assert not any("cut/new" in line for line in stacked)
    files = {str(path.relative_to(parts[1])) for path in parts[1].rglob("*") if path.is_file()}
    remade = "etc/id"  # at another time
    assert files == {"usr/bin/htop", "usr/lib/program", "usr/lib/big", "turns/inside/deep", remade}
    again = Packed(layers, tmp_path / "again", keys, [KEYS])
    assert (again.files / squashfs.MORE).samefile(two.files / squashfs.MORE)
    alone = Packed(layers, tmp_path / "alone", keys, [keys])  # those that packages were added to are gone
    for name in (squashfs.BASE, squashfs.MORE):
        assert (alone.files / name).samefile(two.files / name)
    assert squashfs.unused(layers) == []
    locked = Packed(layers, tmp_path / "locked", keys)
    assert not (locked.files / squashfs.MORE).exists()


@pytest.mark.parametrize(("step", "size"), [("an edited one", 0), ("", squashfs.MOST_MORE)])
def test_what_was_edited_or_is_much_is_packed_with_the_base(
    layers: Layers, tmp_path: Path, step: str, size: int
) -> None:
    Packed(layers, tmp_path / "one")
    two = Packed(layers, tmp_path / "two", add_packages(layers, step, size), [KEYS])
    assert sorted(file.name for file in two.files.iterdir()) == [squashfs.BASE, squashfs.CHANGES]


def test_the_base_is_packed_once_and_kept_while_a_generation_has_it(layers: Layers, tmp_path: Path) -> None:
    one, two = Packed(layers, tmp_path / "one"), Packed(layers, tmp_path / "two")
    remake(layers, "configure", "etc/shells")
    three = Packed(layers, tmp_path / "three")
    bases = [packed.files / squashfs.BASE for packed in (one, two, three)]
    assert all(base.samefile(bases[0]) for base in bases)
    assert squashfs.unused(layers) == []
    for base in bases:
        base.unlink()
    assert len(squashfs.unused(layers)) == 1


def test_a_base_made_again_is_packed_again(layers: Layers, tmp_path: Path) -> None:
    old = (Packed(layers, tmp_path / "one").files / squashfs.BASE).read_bytes()
    remake(layers, "packages", "usr/lib/newer")
    assert (Packed(layers, tmp_path / "two").files / squashfs.BASE).read_bytes() != old


def test_the_same_layers_give_the_same_bytes(layers: Layers, tmp_path: Path) -> None:
    one = Packed(layers, tmp_path / "one")
    before = [file.read_bytes() for file in sorted(one.files.iterdir())]
    for file in squashfs.folder_of(layers).iterdir():
        file.unlink()
    # a copy has other inode numbers, and is read in another order
    copied = Layers(tmp_path / "copy/layers")
    copied.folder.parent.mkdir()
    subprocess.run(["cp", "-a", layers.folder, copied.folder], check=True)
    two = Packed(copied, tmp_path / "copy/two")
    assert [file.read_bytes() for file in sorted(two.files.iterdir())] == before
