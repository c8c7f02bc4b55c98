"""The last step into a sandbox, a program of its own: `enclosure.py ROOT CAPABILITY,… WRITABLE… -- COMMAND…`.

By then everything is mounted, in namespaces that end with us. What remains is to make ROOT the only root there is (no
`..` leads out of it, unlike out of a chroot), to make all of it read-only but for some mounts, and to give up what root
could still undo that with. Standard library only, and only a little of it: this runs before every script.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

SYS_MOUNT_SETATTR = 442  # the same number on every architecture
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
MNT_DETACH = 2
PR_CAPBSET_DROP = 24
CAPABILITIES = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "fsetid": 4,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_bind_service": 10,
    "sys_chroot": 18,
    "mknod": 27,
    "audit_write": 29,
    "setfcap": 31,
}
"""Those that may be kept (linux/capability.h). Never: what mounts, loads modules, opens files by handles, reboots, sets
the clock, traces, or reaches devices and networks."""

_libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def set_read_only(path: Path, *, recursive: bool) -> None:
    """Make the mount at `path`, and with `recursive` all below it, read-only."""
    _set_attributes(path, MountAttributes(MOUNT_ATTR_RDONLY, 0, 0, 0), AT_RECURSIVE if recursive else 0)


def set_writable(path: Path) -> None:
    """Make one mount, the one at `path`, writable."""
    _set_attributes(path, MountAttributes(0, MOUNT_ATTR_RDONLY, 0, 0), 0)


def _set_attributes(path: Path, attributes: MountAttributes, flags: int) -> None:
    words = (ctypes.c_long(SYS_MOUNT_SETATTR), ctypes.c_int(AT_FDCWD), ctypes.c_char_p(os.fsencode(path)))
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _check(_libc.syscall(*words, ctypes.c_uint(flags), ctypes.byref(attributes), size), f"mount_setattr {path}")


def become_root(root: Path) -> None:
    """Make `root` the root of this mount namespace and forget the old one (pivot_root(2), "pivot_root(".", ".")").

    The old root can't be unmounted otherwise, as this very program lies there; nothing of the host's namespace is.
    """
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), f"pivot_root {root}")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def keep_capabilities(names: Iterable[str]) -> None:
    """Take all capabilities but these from whatever is run from here on (capabilities(7), the bounding set)."""
    kept = {CAPABILITIES[name] for name in names}
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    for number in range(last + 1):
        if number not in kept:
            _check(_libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), f"prctl: capability {number}")


def main(arguments: list[str]) -> None:
    split = arguments.index("--")
    root, capabilities, *writable = arguments[:split]
    command = arguments[split + 1 :]
    keep_capabilities(capabilities.split(","))
    set_read_only(Path(root), recursive=True)
    for path in writable:
        set_writable(Path(path))
    become_root(Path(root))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
