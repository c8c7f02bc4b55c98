"""Commands in a mount and process namespace of their own, which the kernel takes down with us, however we die.

Nothing here is ever mounted in the host's namespace: a killed build leaves no mount and no process. `setpriv` makes the
kernel kill `unshare` when our process dies, `--kill-child` makes it kill the namespace's first process when `unshare`
dies, and with that one die all others and every mount of the namespace.

What runs inside can't change the host either: `enclosure.py` leaves it one root, in which only some mounts can be
written, and takes away the capabilities with which root could undo that.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import enclosure
from kestrelpi.pdeathsig import dies_with_us
from kestrelpi.run import PATH

Argv = Sequence[str | Path]

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
CHROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Sandbox:
    """What is mounted, in this order, before the command runs."""

    mounts: tuple[tuple[str, ...], ...] = ()
    """Commands that prepare the namespace: mount, mkdir, ln."""
    cwd: Path | None = None
    """Relative paths in overlay options count from here: the kernel takes at most 4095 bytes of options."""

    def plus(self, *commands: Argv) -> Sandbox:
        """This sandbox with more commands at the end."""
        return Sandbox((*self.mounts, *(tuple(str(word) for word in command) for command in commands)), self.cwd)

    def argv(self, command: Argv) -> list[str]:
        """The command line that runs `command` in the namespace, with all of root's power; its status is the command's.

        Nobody else's program should be run so: see `chroot` and `beside`.
        """
        if not self.mounts and not self.cwd:
            return dies_with_us([*NAMESPACE, *command])  # no shell: one word may have no more than 128 KiB
        lines = [shlex.join(one) for one in self.mounts]
        if self.cwd:
            lines.insert(0, shlex.join(["cd", str(self.cwd)]))
        lines.append("exec " + shlex.join(str(word) for word in command))
        return dies_with_us([*NAMESPACE, "sh", "-euc", "\n".join(lines)])

    def chroot(self, root: Path, command: Argv, env: dict[str, str], *, devices: bool = False) -> list[str]:
        """The command line that runs `command` inside `root`, with `env` and nothing else in its environment.

        `root` has had its `system_folders`. It becomes the only root there is: nothing of the host can be reached.
        `devices`: it may make device files, which debootstrap tries before it does anything else.
        """
        base = {"PATH": CHROOT_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}
        words = [f"{key}={value}" for key, value in {**base, **env}.items()]
        writable = [root, *writable_system_folders(root)]
        return self.argv(["env", "-i", *words, *_enclosed(root, writable, command, devices=devices)])

    def beside(
        self,
        stage: Path,
        command: Argv,
        writable: Sequence[Path],
        readable: Iterable[Path] = (),
        *,
        devices: bool = False,
    ) -> list[str]:
        """The command line that runs `command` among the host's programs, of which it can change nothing.

        `stage`: a folder of its own, where the host's files are shown again, read-only; /dev, /run and /tmp are new and
        empty. `writable`: mounts and folders that it may change; `readable`: what it needs even if it lies in /run or
        /tmp. `devices`: it may make device files, as whoever makes a root system must.
        """
        tops = [one for one in writable if not any(other in one.parents for other in writable)]
        hidden = [one for one in (*readable, *_resolver()) if _is_hidden(one)]
        box = self.plus(["mkdir", "-p", stage], ["mount", "--rbind", "/", stage], *system_folders(stage))
        for path in (*hidden, *tops):
            box = box.plus(*_show(path, stage))
        places = [*writable_system_folders(stage), *(_inside(stage, one) for one in writable)]
        return box.argv(_enclosed(stage, places, command, devices=devices))


NAMESPACE = (
    *("unshare", "--mount", "--propagation", "private", "--ipc", "--uts"),
    *("--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
    *("env", f"PATH={PATH}"),
)
CAPABILITIES = tuple(name for name in enclosure.CAPABILITIES if name != "mknod")
HIDDEN = (Path("/tmp"), Path("/run"), Path("/dev"))
"""Of the host's folders these hold sockets of its services, and its disks."""


def _enclosed(root: Path, writable: Iterable[Path], command: Argv, *, devices: bool = False) -> list[str]:
    program = [sys.executable, "-I", "-S", enclosure.__file__]
    kept = [*CAPABILITIES, "mknod"] if devices else CAPABILITIES
    return [*program, str(root), ",".join(kept), *map(str, writable), "--", *map(str, command)]


def _inside(stage: Path, path: Path) -> Path:
    return stage / str(path).lstrip("/")


def _is_hidden(path: Path) -> bool:
    return any(folder == path or folder in path.parents for folder in HIDDEN)


def _resolver() -> list[Path]:
    """The file that says how names are resolved: often a link into /run."""
    path = Path(os.path.realpath("/etc/resolv.conf"))
    return [path] if path.is_file() else []


def _show(path: Path, stage: Path) -> Iterator[list[str]]:
    """Commands that show a file or folder of the host at the same place below `stage`."""
    target = _inside(stage, path)
    if _is_hidden(path):
        folder = target.parent if path.is_file() else target
        yield ["mkdir", "-p", str(folder)]
        if path.is_file():
            yield ["touch", str(target)]
    yield ["mount", "--rbind", str(path), str(target)]


def overlay(lowers: Sequence[Path], upper: Path, work: Path, target: Path, *, devices: bool = False) -> list[str]:
    """Mount an overlay; `lowers`: the topmost first.

    `volatile` leaves out every fsync (dpkg calls thousands): the caller syncs once before it trusts the upper folder.
    redirect_dir, metacopy and index are off so that an upper folder means the same without the overlay driver.
    Without `devices` a device file that is there opens nothing; /dev has mounts of its own.
    """
    options = f"lowerdir={':'.join(str(one) for one in lowers)},upperdir={upper},workdir={work}"
    options += f",volatile,redirect_dir=off,metacopy=off,index=off,{'dev' if devices else 'nodev'}"
    return ["mount", "-t", "overlay", "-o", options, "ov", str(target)]


def view(lowers: Sequence[Path], target: Path) -> list[str]:
    """Mount an overlay that can't be written."""
    return ["mount", "-t", "overlay", "-o", f"lowerdir={':'.join(str(one) for one in lowers)}", "ov", str(target)]


def bind(source: Path, target: Path) -> list[str]:
    """Show the folder or file `source` at `target`."""
    return ["mount", "--bind", str(source), str(target)]


def system_folders(root: Path) -> list[list[str]]:
    """/proc and /sys (read-only), a minimal /dev, empty /run and /tmp for a root at `root`: none reaches the layer."""
    dev = root / "dev"
    commands = [
        ["mount", "-t", "proc", "-o", "ro", "proc", str(root / "proc")],
        ["mount", "--bind", "-o", "ro", "/sys", str(root / "sys")],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "run")],
        ["mkdir", "-m", "1777", str(root / "run/lock")],
        ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp")],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(dev)],
        ["mkdir", "-m", "1777", str(dev / "shm")],
        ["mkdir", str(dev / "pts")],
        ["touch", *(str(dev / name) for name in DEVICES)],
    ]
    commands += [["mount", "--bind", f"/dev/{name}", str(dev / name)] for name in DEVICES]
    commands += [["ln", "-s", f"/proc/self/fd{part}", str(dev / name)] for name, part in LINKS]
    return commands


def writable_system_folders(root: Path) -> list[Path]:
    """Those of `system_folders` that a script may write to."""
    return [root / name for name in ("dev", "run", "tmp")]


LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
