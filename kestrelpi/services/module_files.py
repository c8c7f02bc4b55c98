"""The frontend's side of modules, decided: which files, secrets and children they want, as plain data."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.images import modules
from kestrelpi.images.fetched import Fetched, choose, of_module, own_arch, verify_all
from kestrelpi.images.fetched import folder as fetched_folder
from kestrelpi.images.module_file import Service
from kestrelpi.images.modules import Enabled, Module
from kestrelpi.images.sources import frontend_overlay
from kestrelpi.nodes.capacity import Capacity, capacities
from kestrelpi.nodes.registry import Registry
from kestrelpi.nodes.sightings import Sighting
from kestrelpi.paths import Paths
from kestrelpi.services.supervise import Child
from kestrelpi.templates import render, render_text


@dataclass(frozen=True)
class File:
    """A file of the overlay `frontend`, rendered."""

    path: Path
    content: bytes
    mode: int
    module: str
    """Whose services read it; empty: nobody's."""


@dataclass(frozen=True)
class Frontend:
    """One state of configuration and registry."""

    paths: Paths
    config: Config
    enabled: Enabled
    registry: Registry
    nodes: tuple[Capacity, ...]
    program: str

    @classmethod
    def of(
        cls, paths: Paths, config: Config, registry: Registry, sightings: Mapping[str, Sighting], program: str
    ) -> Frontend:
        """Raises ConfigError when the modules can't be as the configuration says."""
        found = modules.of_frontend(paths, config)
        return cls(paths, config, found, registry, tuple(capacities(registry, config, sightings)), program)

    @property
    def root(self) -> str:
        """What every path begins with: empty on a machine of its own."""
        return "" if self.paths.root == Path("/") else str(self.paths.root)

    def variables(self, module: str) -> dict[str, object]:
        """What templates of a module know. `nodes` and `groups` are those whose image has the module."""
        images = {name for name in self.config.images if module in modules.of_image(self.paths, self.config, name)}
        nodes = [node for node in self.nodes if node.image in images]
        groups = {name: [node for node in nodes if node.group == name] for name in self.config.groups}
        return {
            "config": self.config,
            "options": self.enabled.values(module),
            "modules": [one.name for one in self.enabled],
            "nodes": nodes,
            "groups": {name: own for name, own in groups.items() if own or self.config.groups[name].image in images},
            "paths": self.paths,
            "root": self.root,
            "lab": bool(self.root),
            "server": str(self.config.listen),
            "hostname": socket.gethostname().split(".")[0],
            "program": self.program,
            "arch": own_arch(),
            "fetched": self.fetched(module),
        }

    def fetched(self, module: str) -> dict[str, Fetched]:
        """What a module fetches, by name; nothing for the name of none."""
        cache = fetched_folder(self.paths, self.config)
        found = [of_module(one, self.enabled.values(module), cache) for one in self.enabled if one.name == module]
        return found[0] if found else {}

    def verify(self, module: Module, service: Service) -> None:
        """Raise UserError unless the fetched files that the service uses are there and right."""
        names = [render_text(name, self.variables(module.name)) for name in service.fetched]
        verify_all(choose(self.fetched(module.name), names, f"{service.name} of the module {module.name}"))

    def files(self) -> list[File]:
        """Every file of the overlay, rendered; raises UserError when a template can't be."""
        owners = {one.folders[0]: one.name for one in self.enabled}
        known: dict[str, dict[str, object]] = {}
        found = []
        for name, one in frontend_overlay(self.paths, self.config).items():
            owner = owners.get(one.module, "") if one.module else ""
            variables = known.setdefault(owner, self.variables(owner))
            content = render(one.path, variables).encode() if one.is_template else one.path.read_bytes()
            found.append(File(self.paths.root / name, content, one.path.stat().st_mode & 0o755 | 0o644, owner))
        return found

    def services(self) -> list[tuple[Module, Service]]:
        """In the order in which they start: a module's after those of the modules that it needs."""
        return [
            (module, service)
            for module in self.enabled
            for service in module.manifest.frontend.services
            if not service.needs_nodes or self.variables(module.name)["nodes"]
        ]

    def child(self, module: Module, service: Service) -> Child:
        """The service as a child of the daemon."""
        variables = self.variables(module.name)

        def say(text: str) -> str:
            return render_text(text, variables)

        host, _, port = say(service.ready.tcp).rpartition(":")
        return Child(
            name=service.name,
            argv=tuple(word for word in map(say, service.argv) if word),
            log=self.paths.log / f"{service.name}.log",
            user=service.user,
            capabilities=service.capabilities,
            folders=tuple(Path(say(folder)) for folder in service.folders),
            socket=Path(say(service.ready.socket)) if service.ready.socket else None,
            tcp=(host, int(port)) if port else None,
            environment={key: say(value) for key, value in service.environment.items()},
        )

    def reload_command(self, module: Module, service: Service) -> list[str]:
        """What is run after the service was started again with new files; empty: nothing."""
        return [render_text(word, self.variables(module.name)) for word in service.reload]
