"""Secrets of modules (a Munge key, a join token): made on first use, kept in the folder of secrets, given to nodes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

from kestrelpi.files import locked, write_whole
from kestrelpi.images.module_file import Secret
from kestrelpi.images.modules import Enabled, Module
from kestrelpi.paths import Paths


def folder(paths: Paths) -> Path:
    return paths.secrets / "modules"


def secret(paths: Paths, module: Module, name: str, node: str = "") -> bytes:
    """The bytes of the secret `name` of a module; `node`: whose, where each node has its own.

    One that the frontend already has at the secret's own path (Debian's munge makes a key when it is installed, and a
    cluster that is older than kestrelpi has one) is taken over, so that what runs goes on running.
    """
    path = folder(paths) / module.name / (f"{name}.d/{node}" if node else name)
    if not path.exists():
        for one in (paths.secrets, folder(paths), folder(paths) / module.name, path.parent):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder(paths) / "lock", "the folder of secrets"):
            if not path.exists():
                write_whole(path, _first(paths, module.manifest.secrets[name]), mode=0o600)
    return path.read_bytes()


def keep(paths: Paths, module: str, name: str, content: bytes) -> None:
    """Put a secret that another program made (a join token) into the folder of secrets."""
    path = folder(paths) / module / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, content, mode=0o600)


def of_modules(paths: Paths, modules: Enabled, node: str = "") -> Iterator[tuple[Module, str, Secret, bytes]]:
    """Every secret of the modules that lies somewhere on the frontend; on the node called so, if one is given."""
    for module in modules:
        for name, declared in module.manifest.secrets.items():
            if declared.path and (node or not declared.per_node):
                yield module, name, declared, _content(paths, module, name, node)


def _content(paths: Paths, module: Module, name: str, node: str) -> bytes:
    declared = module.manifest.secrets[name]
    better = paths.root / declared.published.lstrip("/")
    if node and declared.published and better.is_file() and better.stat().st_size:
        return better.read_bytes()
    return secret(paths, module, name, node if declared.per_node else "")


def _first(paths: Paths, declared: Secret) -> bytes:
    existing = paths.root / declared.path.lstrip("/")
    if declared.frontend and existing.is_file() and existing.stat().st_size:
        return existing.read_bytes()
    if declared.made == "hex":
        return secrets.token_hex(declared.bytes).encode()
    return secrets.token_bytes(declared.bytes)
