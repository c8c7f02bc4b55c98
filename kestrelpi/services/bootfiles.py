"""Which bytes a Pi gets for a path over TFTP: the node's generation, and config.txt and cmdline.txt made for it.

A Pi asks for `<serial>/FILE`, `<mac-with-dashes>/FILE` or plain `FILE` (EEPROM's TFTP_PREFIX 0, 2; after a prefix that
has no start4.elf it asks without one), and some firmware doubles the slash.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.config import Config, Group, load
from kestrelpi.errors import UserError
from kestrelpi.images.bootdir import KERNEL
from kestrelpi.images.sources import overlay
from kestrelpi.images.store import Generation
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.services.directory import Directory, log
from kestrelpi.services.neighbours import mac_of
from kestrelpi.services.nfs import mount_options
from kestrelpi.services.tftp.source import BootFile, PathRefused, normalise
from kestrelpi.templates import render

SERIAL = re.compile(r"[0-9a-fA-F]{8}")
MAC = re.compile(r"([0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2}")
CONFIG_TXT_LIMIT = 4096
"""Bytes of config.txt that a Pi reads over the network (raspberrypi/firmware issue 1012)."""
CONFIG_TXT = "config.txt"
RENDERED = (CONFIG_TXT, "cmdline.txt")
BEGINS = (CONFIG_TXT, "bootcode.bin", "start.elf", "start4.elf", "start_cd.elf", "start4cd.elf")
"""One of these is the first file of a boot."""
LOADING = 60.0
"""Seconds in which a Pi loads its files, from the first to the kernel."""
REMEMBERED = 4096
"""Pis at most of which it is remembered what they load."""


class BootFiles:
    """Resolves a path for a client's address."""

    def __init__(
        self,
        paths: Paths,
        config_path: Path,
        good: tuple[Config, Registry] | None = None,
        mac_of: Callable[[str], str | None] = mac_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`good`: what the daemon has in force; a worker that starts while a file is being edited begins with that."""
        self.paths = paths
        self.config_path = config_path
        self.mac_of = mac_of
        self.clock = clock
        self._loading: OrderedDict[tuple[str, str], tuple[Generation, float]] = OrderedDict()
        """By address and name of a Pi that loads its files: where from, and since when."""
        self.directory = Directory(paths, *(good or (load(config_path), None)))

    def reload(self) -> None:
        """Take the registry and the configuration anew; the last good ones stay where they are nonsense."""
        try:
            config = load(self.config_path)
        except UserError as error:
            log.error("the configuration is not usable, the last good one stays in force: %s", error)
            config = self.directory.config
        self.directory.reload(config)

    def find(self, path: str, client: str) -> BootFile | None:
        """The file behind `path` for the Pi at `client`, or None; PathRefused for a path that leaves its tree."""
        node, parts = self._whose(normalise(path).split("/"), client)
        if not parts:
            return None
        name = "/".join(parts)
        generation = self._of_this_boot(name, node, client)
        if generation is None:
            return None
        if name in RENDERED:
            return self._rendered_file(name, node, generation)
        return stored_file(generation, parts)

    def _whose(self, parts: list[str], client: str) -> tuple[Node | None, list[str]]:
        """The node that a path is for, and the path without the prefix; no node: a Pi that isn't registered."""
        first = parts[0]
        if SERIAL.fullmatch(first):
            found = self.directory.node_by_serial(first.lower())
            return found or self._asking(client), parts[1:]
        if MAC.fullmatch(first):
            found = self.directory.node_by_mac(first.lower().replace("-", ":"))
            return found or self._asking(client), parts[1:]
        return self._asking(client), parts

    def _asking(self, client: str) -> Node | None:
        """The node that asks; beside another DHCP server its address can be anybody's tomorrow, its MAC can't."""
        if self.directory.config.services.dhcp.proxy:
            mac = self.mac_of(client)
            return self.directory.node_by_mac(mac) if mac else None
        return self.directory.node_by_address(IPv4Address(client))

    def _of_this_boot(self, name: str, node: Node | None, client: str) -> Generation | None:
        """The generation that a Pi gets all files of a boot from, whatever is published while it loads them.

        A boot goes from the first of its files (config.txt is read up to six times) to the kernel, which is the last.
        """
        now, asking = self.clock(), (client, node.name if node else "")
        chosen, since = self._loading.pop(asking, (None, now))
        if chosen is None or now - since > LOADING or not chosen.boot.is_dir():
            chosen, since = self._generation(node), now
            kept = name in BEGINS
        else:
            kept = name != KERNEL
        if chosen and kept:
            self._loading[asking] = chosen, since
            if len(self._loading) > REMEMBERED:
                self._loading.popitem(last=False)
        return chosen

    def _generation(self, node: Node | None) -> Generation | None:
        if node:
            return self.directory.generation_for(node)
        if self.directory.config.services.dhcp.unregistered == "wait":
            return self.directory.waiting_generation()
        return None

    def _rendered_file(self, name: str, node: Node | None, generation: Generation) -> BootFile | None:
        """The template for this node; one that can't be rendered is named in the log and is not there for the Pi."""
        config = self.directory.config
        try:
            template = overlay(self.paths, config, generation.image, "boot")[name]
            text = render(template.path, boot_variables(config, node, self._group(node), generation))
        except KeyError:
            log.error("an empty %s in /etc/kestrelpi takes it away from every Pi", name)
            return None
        except UserError as error:
            log.error("%s can't be made: %s", name, error)
            return None
        if name == CONFIG_TXT and len(text) > CONFIG_TXT_LIMIT:
            log.warning("config.txt has %d bytes: a Pi reads only %d", len(text), CONFIG_TXT_LIMIT)
        return in_memory(text)

    def _group(self, node: Node | None) -> Group:
        """A waiting Pi boots with the options of the first group: its kernel needs the same console."""
        if node:
            return self.directory.group(node)
        return next(iter(self.directory.config.groups.values()), Group())


def boot_variables(config: Config, node: Node | None, group: Group, generation: Generation) -> dict[str, object]:
    """What templates of the boot overlay can use."""
    return {
        "name": node.name if node else "a Pi that is not registered",
        "model": node.model if node else "",
        "group": group,
        "image": generation.image,
        "generation": generation.id,
        "root": str(generation.root),
        "squashfs": str(generation.squashfs or ""),
        "server": str(config.listen),
        "http_port": config.services.http.port,
        "nfs_options": mount_options(config.services.nfs),
    }


def in_memory(text: str) -> BootFile:
    """`text` as a file to serve; what isn't ASCII becomes `?`, because a Pi stops parsing there."""
    content = text.encode("ascii", "replace")
    return BootFile(key=hashlib.sha256(content).hexdigest(), size=len(content), open=content)


def stored_file(generation: Generation, parts: list[str]) -> BootFile | None:
    """A file of the generation's boot folder; symbolic links are not followed out of it."""
    path = generation.boot.joinpath(*parts)
    try:
        resolved = path.resolve(strict=True)
        size = resolved.stat().st_size
    except (OSError, RuntimeError, ValueError):  # not there, a loop of links, a name too long, a NUL byte
        return None
    if not resolved.is_relative_to(generation.boot.resolve()):
        raise PathRefused("/".join(parts))
    if not resolved.is_file():
        return None
    return BootFile(key=f"{generation.image}/{generation.id}/{'/'.join(parts)}", size=size, open=resolved)
