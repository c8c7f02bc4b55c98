"""The runtime overlay of one node: the files that only it has, as a tar archive that goes over its root.

None of them is in the image, which every node can read.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.images.modules import Enabled, module_uids, of_image
from kestrelpi.images.overrides import Resolved, resolve
from kestrelpi.images.sources import overlay_layers
from kestrelpi.nodes.identity import Secrets, machine_id
from kestrelpi.nodes.module_secrets import of_modules
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.templates import render

MTIME = 1577836800
"""The time of every member, 2020-01-01: equal input makes equal bytes, and no unpacker finds it implausible."""


@dataclass(frozen=True)
class Member:
    """A file, a symbolic link, or a folder of the archive."""

    content: bytes = b""
    mode: int = 0o644
    target: str = ""
    """Where a symbolic link points."""
    folder: bool = False
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Cluster:
    """What templates of the runtime overlay call `cluster`."""

    name: str
    domain: str
    server: str
    """The frontend's address."""


@dataclass(frozen=True)
class _Sources:
    """Where the files of one image's nodes come from, as it was at `read` (monotonic seconds)."""

    modules: Enabled
    overlay: Mapping[str, Resolved]
    read: float


FRESH = 2.0
"""Seconds for which the sources are good: a thousand nodes that boot at once don't look them up a thousand times, and
an edited overlay is in force at the next boot."""


class RuntimeFiles:
    """Makes the archives; one instance for one state of configuration and registry."""

    def __init__(self, paths: Paths, config: Config, registry: Registry | None = None) -> None:
        self.paths = paths
        self.config = config
        self.registry = Registry.load(paths.registry, config) if registry is None else registry
        self.secrets = Secrets(paths)
        self._known: dict[str, _Sources] = {}

    def _sources(self, node: Node) -> _Sources:
        image = node.image_of(self.config)
        found = self._known.get(image)
        if found is None or time.monotonic() - found.read > FRESH:
            modules = of_image(self.paths, self.config, image)
            files = resolve(overlay_layers(self.paths, "runtime", modules, image))
            found = self._known[image] = _Sources(modules, files, time.monotonic())
        return found

    def archive(self, node: Node) -> bytes:
        """The files of `node` as ustar: sorted, the same bytes for the same input.

        Raises UserError when a template can't be rendered.
        """
        return pack({**self.identity(node), **self.secrets_of_modules(node), **self.overlay(node)})

    def identity(self, node: Node) -> dict[str, Member]:
        """What makes the node this node. The host key stays the same from boot to boot, and goes with the MAC."""
        host_key = self.secrets.host_key(node.mac)
        return {
            "etc/machine-id": Member(f"{machine_id(node.mac, self.config.cluster)}\n".encode(), 0o444),
            "etc/ssh/ssh_host_ed25519_key": Member(host_key.private.read_bytes(), 0o600),
            "etc/ssh/ssh_host_ed25519_key.pub": Member(host_key.public.read_bytes()),
            "root/.ssh": Member(mode=0o700, folder=True),
            "root/.ssh/authorized_keys": Member(self.secrets.cluster_key().public.read_bytes(), 0o600),
        }

    def secrets_of_modules(self, node: Node) -> dict[str, Member]:
        """What the modules of the node's image share with it, such as the Munge key, or made for it alone."""
        found = self._sources(node).modules
        uids = module_uids(found)
        own = {}
        if any(module.manifest.kept for module in found):
            own["etc/kestrelpi/kept.key"] = Member(f"{self.secrets.kept_key(node.mac)}\n".encode(), 0o400)
        return own | {
            declared.path.lstrip("/"): Member(content, int(declared.mode, 8), uid=uid, gid=uid)
            for _, _, declared, content in of_modules(self.paths, found, node.name)
            for uid in (uids.get(declared.owner, 0),)
        }

    def members(self, module: str) -> list[Node]:
        """The nodes whose image has `module`, in natural order of their names."""
        return [node for node in self.registry if module in self._sources(node).modules]

    def overlay(self, node: Node) -> dict[str, Member]:
        """The files of `overlays/runtime` that are in force for the node's image; one of them replaces an identity file
        of the same name."""
        variables = self.variables(node)
        return {name: _member(one, variables) for name, one in self._sources(node).overlay.items()}

    def variables(self, node: Node) -> dict[str, object]:
        """What the templates can use."""
        config = self.config
        return {
            "options": self._sources(node).modules.options,
            "root": "" if self.paths.root == Path("/") else str(self.paths.root),
            "lab": self.paths.root != Path("/"),
            "node": node,
            "nodes": self.registry.nodes,
            "members": self.members,
            "config": config,
            "cluster": Cluster(config.cluster, config.network.domain, str(config.listen)),
        }


def _member(one: Resolved, variables: Mapping[str, object]) -> Member:
    mode = 0o755 if os.access(one.path, os.X_OK) else 0o644
    if one.is_template:
        return Member(render(one.path, variables).encode(), mode)
    if one.path.is_symlink():
        return Member(target=str(one.path.readlink()))
    return Member(one.path.read_bytes(), mode)


def pack(members: Mapping[str, Member]) -> bytes:
    """An ustar archive of `members`: path without a leading slash to content. Folders that aren't given are left to
    the unpacker. Raises UserError for a path that ustar can't hold."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            member = members[name]
            info = tarfile.TarInfo(name)
            info.mtime, info.mode, info.size = MTIME, member.mode, len(member.content)
            info.uid, info.gid = member.uid, member.gid
            if member.folder:
                info.type = tarfile.DIRTYPE
            elif member.target:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, member.target, 0o777
            try:
                archive.addfile(info, io.BytesIO(member.content))
            except ValueError as error:
                raise UserError(f"runtime overlay: {error}", where=name, fix="use a shorter path") from error
    return out.getvalue()
