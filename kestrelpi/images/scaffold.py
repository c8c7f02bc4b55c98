"""A layer of the frontend's own programs that lies over the image while packages are installed, and is in no image.

Emulation is ten times slower than the machine. What maintainer scripts run all day (shell, perl, coreutils, dpkg-deb
with its decompressors) doesn't depend on the architecture: so the frontend's programs take their place. /usr/sbin comes
before /usr/bin in every PATH of Debian's, hence they lie there and hide nothing of the image's, but for dash and perl,
which scripts name by their paths. A package that brings either replaces it in the layer above, as always.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.images.keys import digest
from kestrelpi.images.layers import remove_tree
from kestrelpi.sandbox import bind

POLICY = "#!/bin/sh\nexit 101\n"
"""invoke-rc.d's answer for a service that must not be started (deb-policy: /usr/share/doc/init-system-helpers)."""
NOTHING = "#!/bin/sh\nexit 0\n"
SILENCED = ("systemd-hwdb", "ssh-keygen")
"""Programs that do nothing while packages are installed: hwdb.bin is 12 MB that a node doesn't need and half a minute
of emulation, and SSH host keys have no place in an image."""
ANSWERS = {
    "dpkg": """#!/bin/sh
case ${1-} in
    --compare-versions | --validate-*) exec /.host/bin/dpkg "$@" ;;
    *) exec /usr/bin/dpkg "$@" ;;
esac
""",
    "dpkg-query": """#!/bin/sh
case $* in
    "-S /lib64") echo "kestrelpi: /lib64" ;;
    *) exec /usr/bin/dpkg-query "$@" ;;
esac
""",
}
"""What dpkg answers here. Whether one version is later than another doesn't depend on the architecture, and maintainer
scripts ask hundreds of times. The package usr-is-merged removes /lib64 when nobody owns it, and with it the loader of
all programs here."""
LOADER, LIBRARIES = Path("/lib64/ld-linux-x86-64.so.2"), Path("/usr/lib/x86_64-linux-gnu")
HOST = ".host"
"""Folder of the scaffold where the frontend's /usr shows."""
TOOLS = (
    *("awk", "basename", "cat", "chgrp", "chmod", "chown", "cmp", "comm", "cp", "cut", "date", "dd"),
    *(
        "df",
        "diff",
        "dirname",
        "dpkg-deb",
        "dpkg-divert",
        "dpkg-split",
        "dpkg-statoverride",
        "dpkg-trigger",
        "du",
        "echo",
        "egrep",
        "env",
    ),
    *("expr", "false", "fgrep", "find", "grep", "gzip", "head", "id", "install", "join", "ln", "ls"),
    *("mawk", "md5sum", "mkdir", "mkfifo", "mknod", "mktemp", "mv", "nl", "od", "paste", "printf", "readlink"),
    *("realpath", "rm", "rmdir", "run-parts", "sed", "seq", "sha256sum", "sleep", "sort", "stat", "sync", "tail"),
    *(
        "tar",
        "tee",
        "touch",
        "tr",
        "true",
        "tsort",
        "uniq",
        "wc",
        "xargs",
        "xz",
        "zstd",
        "depmod",
        "perl",
        "sh",
        "dash",
    ),
)
"""perl by its name in PATH stays native when its package is unpacked anew: debootstrap reads 50 MB of indexes with it.
Not among them: what answers questions about the architecture (dpkg, dpkg-query, uname, ldconfig)."""
REPLACED = ("dash", "perl")


@dataclass(frozen=True)
class Scaffold:
    """The layer, and what is to be mounted over it."""

    tree: Path
    quiet: Path
    """A second layer for the packages phase only, with programs that do nothing."""
    native: bool
    """Whether it has the frontend's programs."""

    def mounts(self, root: Path) -> Iterator[list[str]]:
        """Commands for a sandbox in which `root` is an overlay with this layer on top."""
        if self.native:
            yield bind(Path("/usr"), root / HOST)
            yield bind(LIBRARIES, root / str(LIBRARIES).lstrip("/"))


def can_be_native(machine: str = "") -> bool:
    """Only x86-64 is prepared; elsewhere everything is emulated, or (arm64) nothing is."""
    return (machine or os.uname().machine) == "x86_64" and LOADER.exists() and LIBRARIES.is_dir()


def make(folder: Path, native: bool) -> Scaffold:
    """The scaffold below `folder`, made when the frontend's programs changed since."""
    programs = [Path(f"/usr/bin/{name}") for name in REPLACED] if native else []
    stats = {
        str(path): f"{path.stat().st_mtime_ns} {path.stat().st_size}" for path in [*programs, LOADER][: 3 * native]
    }
    key = digest({"tools": " ".join((*TOOLS, *SILENCED, *ANSWERS.values())), "native": str(native), **stats})
    tree = folder / key
    if not tree.is_dir():
        remove_tree(folder)
        draft = folder / f".new-{key}"
        remove_tree(draft)
        _fill(draft / "tree", native)
        (draft / "quiet/usr/sbin").mkdir(parents=True)
        for name in SILENCED:
            _script(draft / "quiet/usr/sbin" / name, NOTHING)
        draft.rename(tree)
    return Scaffold(tree / "tree", tree / "quiet", native)


def _fill(tree: Path, native: bool) -> None:
    sbin, bin_ = tree / "usr/sbin", tree / "usr/bin"
    sbin.mkdir(parents=True)
    bin_.mkdir()
    _script(sbin / "policy-rc.d", POLICY)
    if not native:
        return
    (tree / HOST).mkdir()
    for name, text in ANSWERS.items():
        _script(sbin / name, text)
    (tree / str(LIBRARIES).lstrip("/")).mkdir(parents=True)
    # a link as in a merged /usr: a folder /lib64 makes Debian's check for that fail
    (tree / "lib64").symlink_to("usr/lib64")
    (tree / "usr/lib64").mkdir()
    shutil.copyfile(LOADER, tree / "usr/lib64" / LOADER.name)
    (tree / "usr/lib64" / LOADER.name).chmod(0o755)
    for name in REPLACED:
        shutil.copy(f"/usr/bin/{name}", bin_ / name)
    for name in TOOLS:
        found = shutil.which(name)
        if found:
            (sbin / name).symlink_to(f"/{HOST}/{Path(found).resolve().relative_to('/usr')}")


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
