"""File capabilities (capabilities(7)) of a root. NFS doesn't carry them, so the initramfs gives them back by a list.

Linux' NFS client knows extended attributes only in the namespace `user` (RFC 8276); `security.capability` is none of
those. Without the list a program such as ping would work for root alone.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

ATTRIBUTE = "security.capability"
LIST = Path("usr/local/lib/kestrelpi/capabilities")
"""In the root: a line a file, as xargs(1) hands them to setcap(8)."""
SETCAP = ("usr/sbin/setcap", "sbin/setcap")
NAMES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner"),
    *("sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice"),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)
"""By their numbers (Linux' include/uapi/linux/capability.h)."""


def text_of(value: bytes) -> str:
    """`security.capability` as setcap(8) takes it: `cap_net_raw=ep`; empty: it grants nothing.

    Versions 2 and 3 (Linux' struct vfs_cap_data): flags, then permitted and inheritable, low words before high ones.
    """
    if len(value) < 20:
        return ""
    flags, permitted, inheritable, more_permitted, more_inheritable = struct.unpack_from("<5I", value)
    permitted |= more_permitted << 32
    inheritable |= more_inheritable << 32
    clauses: dict[str, list[str]] = {}
    for number in range(64):
        flag = "e" if flags & 1 and (permitted | inheritable) >> number & 1 else ""
        flag += "i" if inheritable >> number & 1 else ""
        flag += "p" if permitted >> number & 1 else ""
        if flag:
            clauses.setdefault(flag, []).append(f"cap_{NAMES[number]}" if number < len(NAMES) else str(number))
    return " ".join(f"{','.join(names)}={flag}" for flag, names in clauses.items())


def find(root: Path) -> dict[str, str]:
    """The files of `root` that have capabilities: path below it → text."""
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = f"{parent}/{name}"
            mode = os.lstat(path).st_mode
            if not stat.S_ISREG(mode) or not mode & 0o111:
                continue
            try:
                text = text_of(os.getxattr(path, ATTRIBUTE))
            except OSError:
                continue  # it has none
            if text:
                found[os.path.relpath(path, root)] = text
    return dict(sorted(found.items()))


def write_list(root: Path) -> None:
    """Write the list into a finished root; none when nothing has capabilities."""
    path = root / LIST
    path.unlink(missing_ok=True)  # a layer's file: its content may not change
    found = find(root)
    if found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"'{text}'\t'/{name}'\n" for name, text in found.items()))


def read_list(root: Path) -> Mapping[str, str]:
    """What `write_list` wrote: path below the root → text."""
    path = root / LIST
    if not path.is_file():
        return {}
    pairs = (line.partition("\t")[::2] for line in path.read_text(encoding="utf-8").splitlines())
    return {name.strip("'").lstrip("/"): text.strip("'") for text, name in pairs}
