"""What every node knows of the users: a folder of small files, exported to the nodes read-only.

Mounted at /var/lib/extrausers, where libnss-extrausers looks; so a user who is added can be used on every running node
at once, and no node keeps a copy that could be old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.files import write_whole
from kestrelpi.nodes.identity import Secrets
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths
from kestrelpi.users.registry import User, load

MOUNT = "/var/lib/extrausers"


def folder(paths: Paths) -> Path:
    return paths.state / "shared"


def publish(paths: Paths, config: Config, nodes: Iterable[Node]) -> list[str]:
    """Bring the folder to the registries' state; returns the names of files that changed."""
    files = {**tables(load(paths), config.users.homes)}
    files["known_hosts"] = Secrets(paths).known_hosts(nodes, config.network.domain)
    base = folder(paths)
    changed = []
    for name, text in files.items():
        path = base / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text, 0o600 if name == "shadow" else 0o644)
            changed.append(name)
    for path in sorted((base / "keys").glob("*")):
        if f"keys/{path.name}" not in files:
            path.unlink()
            changed.append(f"keys/{path.name}")
    return changed


def tables(users: Mapping[str, User], homes: Path) -> dict[str, str]:
    """passwd, group and shadow (no password can be right), and a file of keys for each user (sshd's form)."""
    ordered = sorted(users.values(), key=lambda user: user.uid)
    files = {
        "passwd": "".join(f"{u.name}:x:{u.uid}:{u.uid}:{u.comment}:{homes / u.name}:/bin/bash\n" for u in ordered),
        "group": "".join(f"{u.name}:x:{u.uid}:\n" for u in ordered),
        "shadow": "".join(f"{u.name}:*:19000:0:99999:7:::\n" for u in ordered),
    }
    return files | {f"keys/{user.name}": f"{user.key}\n" for user in ordered if user.key}
