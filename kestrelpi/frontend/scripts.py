"""The frontend's scripts: run in order, each with the variables that it declares, its output in a log of its own.

A script of the configure phase changes nothing: it writes whole files below $KESTRELPI_STAGE, a tree like `/`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.frontend.machine import Machine
from kestrelpi.images.modules import of_frontend, uid_variables
from kestrelpi.images.overrides import Resolved
from kestrelpi.images.scripts import DECLARATION, check_name
from kestrelpi.nodes.models import OUIS
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths, data_dir
from kestrelpi.run import stream
from kestrelpi.services import nfs
from kestrelpi.templates import render


@dataclass(frozen=True)
class Variables:
    """What scripts can ask for."""

    environment: Mapping[str, str]
    """KESTRELPI_* for scripts that declare them in `# needs:`."""
    templates: Mapping[str, object]
    """Names for scripts that are templates (`*.j2`)."""


def variables(paths: Paths, config: Config, machine: Machine, registry: Registry, work: Path) -> Variables:
    """The variables of all scripts; `work` is a temporary folder, in which `stage` is theirs to write to."""
    stage, nodes = work / "stage", work / "nodes"
    stage.mkdir()
    rows = ((n.name, n.address, n.mac, n.serial or "-", n.group, n.image_of(config)) for n in registry)
    nodes.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    environment = {
        "KESTRELPI_STAGE": str(stage),
        "KESTRELPI_ROOT": str(paths.root),
        "KESTRELPI_NODES": str(nodes),
        "KESTRELPI_CLUSTER": config.cluster,
        "KESTRELPI_DOMAIN": config.network.domain,
        "KESTRELPI_SERVER": str(config.listen),
        "KESTRELPI_NETWORK": str(config.network.address.network),
        "KESTRELPI_INTERFACE": config.network.interface,
        "KESTRELPI_HTTP_PORT": str(config.services.http.port),
        "KESTRELPI_IMAGES": str(paths.images),
        "KESTRELPI_CACHE": str(config.build.cache or paths.cache),
        "KESTRELPI_NFS": machine.nfs,
        "KESTRELPI_NFS_PORT": str(config.services.nfs.port),
        "KESTRELPI_MOUNTD_PORT": str(nfs.mountd_port(config.services.nfs)),
        "KESTRELPI_EXPORTS": nfs.exports_file(paths, config).strip(),
        "KESTRELPI_SYSTEMD": "yes" if machine.systemd else "no",
        "KESTRELPI_PROGRAM": machine.program,
        "KESTRELPI_DATA": str(data_dir()),
        "KESTRELPI_MODULE": "",
        **module_variables(paths, config),
    }
    return Variables(
        environment,
        {"config": config, "ouis": ouis(config), "nodes": registry.nodes, "machine": machine, "paths": paths},
    )


def ouis(config: Config) -> list[str]:
    """The MAC prefixes of Raspberry Pis, with those of the configuration, in lower case with colons."""
    more = (one.lower().replace("-", ":") for one in config.services.dhcp.extra_ouis)
    return list(dict.fromkeys((*OUIS, *more)))


def run_script(script: Resolved, given: Variables, work: Path, log: Path) -> float:
    """Run one script; returns its seconds. Raises UserError if it isn't executable, asks for what isn't there, or fails
    (with its last lines)."""
    check_name(script)
    if not os.access(script.path, os.X_OK):
        raise UserError("this script is not executable", where=str(script.path), fix=f"chmod +x {script.path}")
    began = time.monotonic()
    environment = {**given.environment, "KESTRELPI_MODULE": str(script.module or "")}
    stream([_rendered(script, given, work)], log, env=_asked_for(script, environment), cwd=work)
    return time.monotonic() - began


def _rendered(script: Resolved, given: Variables, work: Path) -> Path:
    if not script.is_template:
        return script.path
    path = work / f"{script.name}.sh"
    path.write_text(render(script.path, given.templates))
    path.chmod(0o700)
    return path


def _asked_for(script: Resolved, environment: Mapping[str, str]) -> dict[str, str]:
    names = _needs(script.path.read_text(errors="replace"))
    for name in names:
        if name not in environment:
            known = ", ".join(sorted(environment))
            raise UserError(
                f"the script needs {name}, which doesn't exist here",
                where=str(script.path),
                fix=f"it may have: {known}",
            )
    return {name: environment[name] for name in names}


def _needs(text: str) -> list[str]:
    """The variables that a script declares."""
    return [name for kind, words in DECLARATION.findall(text) if kind == "needs" for name in words.split()]


def run_scripts(
    scripts: Mapping[str, Resolved],
    given: Variables,
    work: Path,
    logs: Path,
    done: Callable[[Resolved, float], None],
) -> None:
    """Run `scripts` in the order of their names; `done` is told of each with its seconds."""
    before = os.umask(0o022)  # what they stage keeps its mode, whatever the user's umask is
    try:
        for script in scripts.values():
            log = logs / f"{script.name}.log"
            log.unlink(missing_ok=True)
            done(script, run_script(script, given, work, log))
    finally:
        os.umask(before)


def module_variables(paths: Paths, config: Config) -> dict[str, str]:
    """What the enabled modules add: the packages that they want here, their options, the uids of their users."""
    modules = of_frontend(paths, config)
    return {
        "KESTRELPI_PACKAGES": " ".join(modules.frontend_packages()),
        **modules.variables(),
        **uid_variables(modules),
    }


def fingerprint(script: Resolved, modules: Mapping[str, str]) -> str:
    """Of the script's bytes, and of what it asks for of `modules` (see module_variables): it runs again when the script
    changed, or when a module was enabled that concerns it."""
    content = script.path.read_bytes()
    asked = sorted(_needs(content.decode(errors="replace")))
    known = "".join(f"\n{name}={modules[name]}" for name in asked if name in modules)
    return hashlib.sha256(content + known.encode()).hexdigest()
