"""Whether this machine can run arm64 programs: found out before a build, and said how to mend."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.errors import UserError

FOLDER = Path("/proc/sys/fs/binfmt_misc")
ENTRY = "qemu-aarch64"
NATIVE = ("aarch64", "arm64")
INSTALL = "apt-get install qemu-user-static binfmt-support"
ENABLE = "update-binfmts --enable qemu-aarch64"


@dataclass(frozen=True)
class Registration:
    """One file of binfmt_misc (Linux' Documentation/admin-guide/binfmt-misc.rst)."""

    enabled: bool
    interpreter: str
    flags: str


def parse(text: str) -> Registration:
    """Read the kernel's description of an entry."""
    fields = dict(line.partition(" ")[::2] for line in text.splitlines())
    return Registration("enabled" in text.split(), fields.get("interpreter", ""), fields.get("flags:", ""))


def is_native(machine: str = "") -> bool:
    """Whether arm64 programs run without emulation."""
    return (machine or os.uname().machine) in NATIVE


def check(folder: Path = FOLDER, machine: str = "") -> None:
    """Raise UserError with the commands that mend it when arm64 programs can't run in a chroot here.

    The flag F makes the kernel open the interpreter at registration, so that a chroot doesn't need to have it.
    """
    if is_native(machine):
        return
    if not (folder / "register").exists():
        raise UserError(
            "arm64 programs can't run here: binfmt_misc is not mounted",
            where=str(folder),
            fix=f"{INSTALL}; mount -t binfmt_misc binfmt_misc {FOLDER}; {ENABLE}",
        )
    entry = folder / ENTRY
    if not entry.exists():
        raise UserError(
            "arm64 programs can't run here: qemu-aarch64 is not registered with binfmt_misc",
            where=str(entry),
            fix=f"{INSTALL}; {ENABLE}",
        )
    found = parse(entry.read_text(encoding="ascii", errors="replace"))
    _check_entry(found, entry)


def _check_entry(found: Registration, entry: Path) -> None:
    renew = f"update-binfmts --disable qemu-aarch64; {ENABLE}"
    if not found.enabled:
        raise UserError(
            "qemu-aarch64 is registered with binfmt_misc but switched off", where=str(entry), fix=f"echo 1 > {entry}"
        )
    if "F" not in found.flags:
        raise UserError(
            f"qemu-aarch64 is registered without the flag F (flags: {found.flags or 'none'}), so no chroot can use it",
            where=str(entry),
            fix=f"{INSTALL}; {renew}",
        )
    if not Path(found.interpreter).exists():
        raise UserError(
            f"the interpreter {found.interpreter} of qemu-aarch64 is gone",
            where=str(entry),
            fix=f"apt-get install --reinstall qemu-user-static; {renew}",
        )
