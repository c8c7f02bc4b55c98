"""module.yaml: what a module says of itself, as typed data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from kestrelpi.config.schema import Document, read

MANIFEST = "module.yaml"
SHA256 = re.compile(r"[0-9a-f]{64}")

Kind = Literal["str", "path", "int", "bool", "size", "duration", "sha256", "choice"]
Making = Literal["random", "hex"]


@dataclass(frozen=True)
class Option:
    """Something that can be set for a module in kestrelpi.yaml: `images.<image>.options.<module>.<option>`."""

    help: str
    type: Kind = "str"
    default: str = ""
    choices: tuple[str, ...] = ()
    """Of the type `choice`."""


@dataclass(frozen=True)
class Ports:
    """Ports that the module's services listen on, such as `6817/tcp`; `{{ options.port }}/tcp` is rendered; an empty
    one is none."""

    node: tuple[str, ...] = ()
    frontend: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """What is known of one version of a file."""

    sha256: str
    """64 hexadecimal digits."""
    size: int = 0
    """Bytes; 0: unknown."""


@dataclass(frozen=True)
class Fetch:
    """A file that Debian doesn't have. `kestrelpi modules fetch` brings it; it is used only with the right SHA-256.

    `version`, `url`, `file`, `sha256` and `sums` are templates and know `options`, `arch` (the frontend's, as Debian
    calls it) and, but for `version` itself, `version`.
    """

    url: str
    """http:// or https://."""
    version: str = ""
    file: str = ""
    """Its name in the cache and in the folder of `--from`; default: the end of the URL."""
    releases: Mapping[str, Release] = field(default_factory=dict)
    """By version."""
    sha256: str = ""
    """What the user says the SHA-256 is; where it isn't empty it goes before `releases`."""
    sha256_option: str = ""
    """The option that `sha256` comes from, for messages."""
    sums: str = ""
    """Where the publisher says what the SHA-256 is, for messages."""
    mode: str = "0644"
    arch: str = ""
    """Only needed where the frontend has this architecture (amd64, arm64)."""
    package: bool = False
    """A Debian package: installed in the image with all others."""


@dataclass(frozen=True)
class Secret:
    """A secret of the cluster: made on first use, kept on the frontend, handed to each node at its boot."""

    path: str = ""
    """Where it lies on a node, and on the frontend if `frontend`; empty: it only lies in the folder of secrets."""
    mode: str = "0400"
    owner: str = "root"
    made: Making = "random"
    """random: that many bytes; hex: that many bytes as hexadecimal digits."""
    bytes: int = 32
    frontend: bool = False
    """The frontend's own services read it too, at the same path."""
    per_node: bool = False
    """Each node has one of its own, which goes with its name."""
    published: str = ""
    """A file below the root in which a service of the frontend writes a better form of it (a join token with the hash
    of the server's certificate): nodes get that one as soon as there is one."""


@dataclass(frozen=True)
class Kept:
    """What a program on a node makes and the frontend keeps over the node's reboots (nodes.kept)."""

    writer: str = ""
    """Template of the name of the one node that leaves it, for all nodes of the module to read; it knows `options` and
    `members`, these nodes. Empty: each node leaves its own, and only it gets it back."""


@dataclass(frozen=True)
class Ready:
    """How to tell that a service answers; templates as in Service.argv."""

    socket: str = ""
    """A unix socket that can be connected to."""
    tcp: str = ""
    """ADDRESS:PORT that can be connected to."""


@dataclass(frozen=True)
class Service:
    """A daemon that the module runs on the frontend.

    Where systemd is process 1 it is the unit; elsewhere `kestrelpi serve` runs `argv`. Words are templates; they know
    `root` (the folder that every path hangs below, empty for /), `config`, `options`, `paths`, `lab` (root isn't /),
    `arch` (the frontend's architecture) and `fetched` (name under `fetch` → `path`, `sha256`, `version`).
    """

    name: str
    argv: tuple[str, ...]
    unit: str = ""
    user: str = "root"
    capabilities: tuple[str, ...] = ()
    """Kept although `user` isn't root, such as `net_bind_service`."""
    folders: tuple[str, ...] = ()
    """Made before the start, owned by `user`, mode 0755."""
    fetched: tuple[str, ...] = ()
    """Names under `fetch` (templates): it starts only if these are there and right."""
    needs_nodes: bool = False
    """It doesn't run before a node of the module is registered."""
    ready: Ready = field(default_factory=Ready)
    reload: tuple[str, ...] = ()
    """Run when a file of overlay/frontend changed; empty: the service is started again."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Frontend:
    """The module's side on the frontend."""

    packages: tuple[str, ...] = ()
    """Debian packages that the frontend must have; templates that know `options` and `release`, the name
    of the frontend's Debian. An empty one is none."""
    services: tuple[Service, ...] = ()


@dataclass(frozen=True)
class VersionCheck:
    """A package of the image that must not be newer than one of the frontend."""

    node: str
    frontend: str
    why: str


@dataclass(frozen=True)
class Manifest:
    """module.yaml."""

    name: str
    help: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Modules that come with it."""
    conflicts: tuple[str, ...] = ()
    """Modules that can't be in the same image."""
    ports: Ports = field(default_factory=Ports)
    users: Mapping[str, int] = field(default_factory=dict)
    """System users that have the same uid and gid on all machines: the frontend's where it has the user, else this."""
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    """By the name of the file in the folder of secrets."""
    fetch: Mapping[str, Fetch] = field(default_factory=dict)
    """By the name that scripts and services know the file by."""
    kept: Mapping[str, Kept] = field(default_factory=dict)
    """By the name that the nodes' programs ask for it with."""
    frontend: Frontend = field(default_factory=Frontend)
    version_check: VersionCheck | None = None


def read_manifest(path: Path) -> tuple[Manifest, Document]:
    """The file `path`; raises ConfigError with file:line."""
    return _parsed(path.read_text(encoding="utf-8"), str(path))


@lru_cache(maxsize=256)
def _parsed(text: str, where: str) -> tuple[Manifest, Document]:
    """Kept, because a command asks for its images' modules again and again."""
    manifest, document = read(text, where, Manifest)
    for name, option in manifest.options.items():
        if option.type == "choice" and option.default not in option.choices:
            document.fail(("options", name), f"the default {option.default!r} is none of the choices")
    for name, fetch in manifest.fetch.items():
        for version, release in fetch.releases.items():
            if not SHA256.fullmatch(release.sha256):
                document.fail(("fetch", name, "releases", version), f"{release.sha256!r} is no SHA-256")
    return manifest, document
