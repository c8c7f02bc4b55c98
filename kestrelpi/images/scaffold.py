"""A layer of the frontend's own programs that lies over the image while packages are installed, and is in no image.

Emulation is ten times slower than the machine. What maintainer scripts run all day (shell, perl, coreutils, dpkg with
its decompressors) doesn't depend on the architecture: so the frontend's programs take their place. /usr/sbin comes
before /usr/bin in every PATH of Debian's, hence they lie there and hide nothing of the image's, but for dash and perl,
which scripts name by their paths. A package that brings either replaces it in the layer above, as always; while
packages are installed the new one is put aside at once, or all later scripts would be emulated, and put back last.

dpkg differs from one architecture to another only in the name of its own, which is built in: the frontend's can be made
to say arm64, and then unpacks and configures natively.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import run
from kestrelpi.images import scripts
from kestrelpi.images.keys import digest
from kestrelpi.images.layers import remove_tree
from kestrelpi.run import PATH
from kestrelpi.sandbox import bind

POLICY = "#!/bin/sh\nexit 101\n"
"""invoke-rc.d's answer for a service that must not be started (deb-policy: /usr/share/doc/init-system-helpers)."""
NOTHING = "#!/bin/sh\nexit 0\n"
SILENCED = ("systemd-hwdb", "ssh-keygen")
"""Programs that do nothing while packages are installed: hwdb.bin is 12 MB that a node doesn't need and half a minute
of emulation, and SSH host keys have no place in an image."""
DPKG_ANSWER = """#!/bin/sh
case " $* " in
    " --compare-versions "* | " --validate-"*) exec /.host/bin/dpkg "$@" ;;
    *" --unpack "* | *" --install "*) @UNPACK@ "$@" ;;
    *) exec @BIN@/dpkg "$@" ;;
esac
"""
PUT_ASIDE = """status=$?
for program in @REPLACED@; do
    if [ -e "/usr/$program" ] && ! cmp -s "/usr/$program" "/.host/$program"; then
        mkdir -p "/.image/${program%/*}"
        mv -f "/usr/$program" "/.image/$program"
        cp "/.host/$program" "/usr/$program"
        touch --reference="/.image/$program" "/usr/$program"
    fi
done
exit "$status"
"""
"""What dpkg's answer does after unpacking: the frontend's programs go on working in place of those that have come."""
PUT_BACK = """if [ -d "$1/.image" ]; then
    for program in "$1"/.image/*/*; do mv -f "$program" "$1/usr/${program#"$1/.image/"}"; done
    rmdir "$1"/.image/* "$1/.image"
fi
"""
"""A shell script that ends this, for the root in its first argument."""
ANSWERS = {
    "deb-systemd-helper": """#!/bin/sh
exec /.host/bin/perl /usr/bin/deb-systemd-helper "$@"
""",
    "dpkg-query": """#!/bin/sh
case $* in
    "-S /lib64") echo "kestrelpi: /lib64" ;;
    *) exec @BIN@/dpkg-query "$@" ;;
esac
""",
}
"""What has the same answer on every architecture, and is asked hundreds of times by maintainer scripts: which version
is later, which links a unit's [Install] section means (by perl with nothing but its core). And somebody owns /lib64:
usr-is-merged removes it when nobody does, and with it the loader of all programs here. @BIN@: where dpkg lies."""
IMAGES_DPKG, OUR_DPKG = "/usr/bin", "/usr/lib64/kestrelpi"
"""Values of @BIN@."""
DPKG = ("bin/dpkg", "bin/dpkg-query")
"""dpkg's programs that know which architecture is theirs."""
NATIVE_NAME, ARM64_NAME = b"\0amd64\0", b"\0arm64\0"
"""How it is built into them: a constant that fits exactly."""
LOADER, LIBRARIES = Path("/lib64/ld-linux-x86-64.so.2"), Path("/usr/lib/x86_64-linux-gnu")
USR, HOST = Path("/usr"), ".host"
"""Folder of the scaffold where the frontend's /usr shows."""
TOOLS = (
    *("awk", "basename", "cat", "chgrp", "chmod", "chown", "cmp", "comm", "cp", "cut", "date"),
    *(
        "dd",
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
    ),
    *("egrep", "env", "expr", "false", "fgrep", "find", "grep", "gzip", "head", "id", "install"),
    *("join", "ln", "ls", "mawk", "md5sum", "mkdir", "mkfifo", "mknod", "mktemp", "mv", "nl"),
    *("od", "paste", "printf", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "sha256sum"),
    *("sh", "sleep", "sort", "stat", "sync", "tail", "tar", "tee", "touch", "tr", "true"),
    *("tsort", "uniq", "wc", "xargs", "xz", "zstd"),
)
"""Not among them: what answers questions about the architecture (uname, ldconfig)."""
OWN_RELEASES = ("getent", "run-parts", "systemd-sysusers", "systemd-tmpfiles", "update-alternatives")
"""Those that only an image of the frontend's release can use: a kernel of trixie's backports gives run-parts two
folders, and before debianutils 5.21 that takes one (linux-run-hooks says so)."""
DEPMOD = "depmod"
"""Lies in /usr/local/sbin: the image's own kmod is unpacked over /usr/sbin. It reads all of a kernel's compressed
modules, which takes minutes under emulation; a frontend without kmod does without."""
SHELL, PERL = "bin/dash", "bin/perl"
ACCOUNTS = (
    *("bin/chage", "bin/chfn", "bin/gpasswd", "bin/passwd", "sbin/groupadd", "sbin/grpck", "sbin/grpconv"),
    *("sbin/pwck", "sbin/pwconv", "sbin/useradd", "sbin/usermod"),
)
"""Programs of the package passwd, below /usr. adduser has a PATH of its own, so they too take the places of the
image's, but only while packages are installed."""


@dataclass(frozen=True)
class Scaffold:
    """The layer, and what is to be mounted over it."""

    tree: Path
    early: Path
    """A second layer for debootstrap only: it reads 50 MB of indexes with whatever perl is first in PATH."""
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


def make(folder: Path, native: bool, own_release: bool) -> Scaffold:
    """The scaffold below `folder`, made when the frontend's programs changed since.

    `own_release`: the image is of the frontend's release, so that perl may run the image's perl modules, and dpkg keep
    the books of the image's.
    """
    replaced: tuple[str, ...] = ()
    if native:
        replaced = (SHELL, PERL, *DPKG, *_accounts()) if own_release else (SHELL,)
    key = _key(native, replaced)
    made = folder / key
    if not made.is_dir():
        remove_tree(folder)  # those of programs that are no longer there, and half ones
        draft = folder / f".new-{key}"
        _fill(draft / "tree", replaced)
        (draft / "early").mkdir()
        if native:
            _link(draft / "early/usr/sbin", Path(PERL).name)
            for name in ("early", "quiet"):
                _dpkg(draft / name, draft / "tree", [one for one in replaced if one not in DPKG])
                for path in set(ACCOUNTS) & set(replaced):
                    _link((draft / name / "usr" / path).parent, Path(path).name)
        for name in SILENCED:
            _script(draft / "quiet/usr/sbin" / name, NOTHING)
        draft.rename(made)
    return Scaffold(made / "tree", made / "early", made / "quiet", native)


def tools(own_release: bool) -> tuple[str, ...]:
    """The programs of the frontend's that take the place of the image's."""
    return (*TOOLS, *OWN_RELEASES) if own_release else TOOLS


def _key(native: bool, replaced: Sequence[str]) -> str:
    programs = [*(USR / name for name in replaced), *([LOADER] if native else [])]
    depmod = shutil.which(DEPMOD, path=PATH) or "none"
    stats = {str(path): f"{path.stat().st_mtime_ns} {path.stat().st_size}" for path in programs}
    return digest(
        {
            "tools": " ".join((*TOOLS, *OWN_RELEASES, DEPMOD, *SILENCED, *ANSWERS.values(), DPKG_ANSWER, PUT_ASIDE)),
            "native": str(native),
            DEPMOD: depmod,
            **stats,
        }
    )


def _accounts() -> tuple[str, ...]:
    """The programs that manage accounts, if the frontend has all of them."""
    return ACCOUNTS if all((USR / one).is_file() for one in ACCOUNTS) else ()


def _fill(tree: Path, replaced: Sequence[str]) -> None:
    """The policy; and if any program is replaced, all that the frontend's programs need."""
    _script(tree / "usr/sbin/policy-rc.d", POLICY)
    if not replaced:
        return
    (tree / HOST).mkdir()
    if set(DPKG) <= set(replaced):
        _arm64_dpkg(tree / OUR_DPKG.lstrip("/"))
    for name, text in ANSWERS.items():
        _script(tree / "usr/sbin" / name, text.replace("@BIN@", _bin(tree)))
    _dpkg(tree, tree, ())
    (tree / str(LIBRARIES).lstrip("/")).mkdir(parents=True)
    # a link as in a merged /usr: a folder /lib64 makes Debian's check for that fail
    (tree / "lib64").symlink_to("usr/lib64")
    (tree / "usr/lib64").mkdir(exist_ok=True)
    (tree / "usr/bin").mkdir()
    shutil.copy(LOADER, tree / "usr/lib64" / LOADER.name)
    for name in (SHELL, PERL):
        if name in replaced:
            shutil.copy(USR / name, tree / "usr" / name)
    for name in tools(own_release=PERL in replaced):
        _link(tree / "usr/sbin", name)
    _link(tree / "usr/local/sbin", DEPMOD)


def _dpkg(layer: Path, tree: Path, replaced: Sequence[str]) -> None:
    """The answer of dpkg in a layer; `tree`: the layer with our own dpkg, if there is one."""
    text = DPKG_ANSWER.replace("@UNPACK@", "@BIN@/dpkg" if replaced else "exec @BIN@/dpkg")
    then = PUT_ASIDE.replace("@REPLACED@", shlex.join(replaced)) if replaced else ""
    _script(layer / "usr/sbin/dpkg", text.replace("@BIN@", _bin(tree)) + then)


def _bin(tree: Path) -> str:
    """Where the dpkg lies that the chroot is to use."""
    return OUR_DPKG if (tree / OUR_DPKG.lstrip("/")).is_dir() else IMAGES_DPKG


def _arm64_dpkg(folder: Path) -> None:
    """Put the frontend's dpkg there, as one of arm64; nothing if that can't be done."""
    programs = {Path(name).name: (USR / name).read_bytes() for name in DPKG}
    if any(program.count(NATIVE_NAME) != 1 for program in programs.values()):
        return
    folder.mkdir(parents=True)
    for name, program in programs.items():
        (folder / name).write_bytes(program.replace(NATIVE_NAME, ARM64_NAME))
        (folder / name).chmod(0o755)
    if run.run([folder / "dpkg", "--print-architecture"]).stdout.strip() != scripts.ARCH:
        remove_tree(folder)


def _link(folder: Path, name: str) -> None:
    """A link to the frontend's program, as the chroot sees it; nothing when the frontend doesn't have it."""
    found = shutil.which(name, path=PATH)
    if found:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(f"/{HOST}/{Path(found).resolve().relative_to('/usr')}")


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
