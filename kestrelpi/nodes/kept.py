"""What the nodes' own programs leave with the frontend, because a node forgets everything at its reboot.

Declared by modules (`kept` in module.yaml): a thing of each node, given back to that node alone (its identity in a
Docker swarm), or one that a single node writes and all nodes of the module read (how to join that swarm). Both are
secrets.
"""

from __future__ import annotations

from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.files import write_whole
from kestrelpi.images.modules import Enabled, of_image
from kestrelpi.nodes import module_secrets
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.templates import render_text


class NotKept(ValueError):
    """The node may not have or leave this; the text says why."""


class KeptThings:
    """For one state of configuration, registry and modules: short-lived, so that an edited module is in force soon."""

    def __init__(self, paths: Paths, config: Config, registry: Registry) -> None:
        self.paths = paths
        self.config = config
        self.registry = registry
        self._modules: dict[str, Enabled] = {}

    def read(self, node: Node, module: str, name: str) -> bytes:
        """What `node` may read; empty: nothing has been left yet. Raises NotKept."""
        path = self._path(node, module, name, self._writer(node, module, name))
        return path.read_bytes() if path.exists() else b""

    def write(self, node: Node, module: str, name: str, content: bytes) -> None:
        """Keep what `node` leaves; raises NotKept when that is for another node to write."""
        writer = self._writer(node, module, name)
        if writer not in ("", node.name):
            raise NotKept(f"{name} of the module {module} is for {writer} to leave, not for {node.name}")
        path = self._path(node, module, name, writer)
        for folder in (self.paths.secrets, path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, content, mode=0o600)

    def _writer(self, node: Node, module: str, name: str) -> str:
        """The one node that writes it; empty: each node its own."""
        modules = self._of_image(node.image_of(self.config))
        for one in modules:
            if one.name == module and name in one.manifest.kept:
                variables = {"options": modules.values(module), "members": self.members(module)}
                return render_text(one.manifest.kept[name].writer, variables)
        raise NotKept(f"no module of {node.name} keeps {module}/{name}")

    def _path(self, node: Node, module: str, name: str, writer: str) -> Path:
        if writer:
            return module_secrets.folder(self.paths) / module / name
        return self.paths.secrets / "kept" / node.mac.replace(":", "-") / f"{module}-{name}"

    def members(self, module: str) -> list[Node]:
        """The nodes whose image has `module`, in natural order of their names."""
        return [node for node in self.registry if module in self._of_image(node.image_of(self.config))]

    def _of_image(self, image: str) -> Enabled:
        if image not in self._modules:
            self._modules[image] = of_image(self.paths, self.config, image)
        return self._modules[image]
