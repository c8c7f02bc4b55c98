"""Commands in a mount and process namespace of their own, which the kernel takes down with us, however we die.

Nothing here is ever mounted in the host's namespace: a killed build leaves no mount and no process. `setpriv` makes the
kernel kill `unshare` when our process dies, `--kill-child` makes it kill the namespace's first process when `unshare`
dies, and with that one die all others and every mount of the namespace.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.run import PATH

Argv = Sequence[str | Path]

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
CHROOT_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


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
        """The command line that runs `command` inside; its exit status is the command's."""
        lines = [shlex.join(one) for one in self.mounts]
        if self.cwd:
            lines.insert(0, shlex.join(["cd", str(self.cwd)]))
        lines.append("exec " + shlex.join(str(word) for word in command))
        return [*NAMESPACE, "sh", "-euc", "\n".join(lines)]

    def chroot(self, root: Path, command: Argv, env: dict[str, str]) -> list[str]:
        """The command line that runs `command` inside `root`, with `env` and nothing else in its environment."""
        base = {"PATH": CHROOT_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}
        words = [f"{key}={value}" for key, value in {**base, **env}.items()]
        return self.argv(["env", "-i", *words, "chroot", root, *command])


NAMESPACE = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
    *("env", f"PATH={PATH}"),
)


def overlay(lowers: Sequence[Path], upper: Path, work: Path, target: Path) -> list[str]:
    """Mount an overlay; `lowers`: the topmost first.

    `volatile` leaves out every fsync (dpkg calls thousands): the caller syncs once before it trusts the upper folder.
    redirect_dir, metacopy and index are off so that an upper folder means the same without the overlay driver.
    """
    options = f"lowerdir={':'.join(str(one) for one in lowers)},upperdir={upper},workdir={work}"
    return [
        "mount",
        "-t",
        "overlay",
        "-o",
        f"{options},volatile,redirect_dir=off,metacopy=off,index=off",
        "ov",
        str(target),
    ]


def view(lowers: Sequence[Path], target: Path) -> list[str]:
    """Mount an overlay that can't be written."""
    return ["mount", "-t", "overlay", "-o", f"lowerdir={':'.join(str(one) for one in lowers)}", "ov", str(target)]


def bind(source: Path, target: Path) -> list[str]:
    """Show the folder or file `source` at `target`."""
    return ["mount", "--bind", str(source), str(target)]


def system_folders(root: Path) -> list[list[str]]:
    """/proc, /sys (read-only), a minimal /dev, empty /run and /tmp for a chroot at `root`: none reaches the layer."""
    dev = root / "dev"
    commands = [
        ["mount", "-t", "proc", "proc", str(root / "proc")],
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


LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
