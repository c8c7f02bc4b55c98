"""A generation's test: an emulated Pi boots it from services of its own, beside those that serve real nodes.

It has a root of its own below the cache, with hard links of the generation and a copy of the user's files, so that
nothing of the real cluster is touched: not its registry, its leases, its secrets, its ports.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from kestrelpi import config as configuration
from kestrelpi import run
from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import locked, write_whole
from kestrelpi.images.layers import remove_tree
from kestrelpi.images.store import Generation, Store
from kestrelpi.lab import demo
from kestrelpi.lab.lab import Lab
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import Boot
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths
from kestrelpi.releasing import outcome
from kestrelpi.releasing.boards import BOARDS
from kestrelpi.releasing.outcome import CheckOutcome, Outcome
from kestrelpi.verify.checks import CHECKS, carry_out
from kestrelpi.verify.site import Site

Say = Callable[[str], None]
MODEL = "4"
"""What is emulated where the configuration names no models."""
MEMORY = 1024
"""MiB."""
CONSOLE = "console.log"
FSTAB = "etc/fstab"


def attempt(paths: Paths, config: Config, config_path: Path, generation: Generation, say: Say) -> Outcome:
    """Boot `generation`, check it, and keep the result in its folder. Raises UserError for what isn't its fault."""
    folder = paths.cache / "trial"
    log = paths.log / "images" / generation.image / f"test-{generation.id}"
    with (
        locked(paths.run / "trial.lock", "the test of a generation", wait=1.0),
        prepared(folder, paths, config_path, generation) as trial,
    ):
        trial_config = configuration.load(trial.config)
        redirect_mounts(generation, (paths, config), (trial, trial_config))
        model = model_for(config, generation.image)
        say(f"Booting {generation.id} on an emulated Pi {model}")
        result = Outcome(datetime.now(UTC).isoformat(timespec="seconds"), model, {}, (), str(log))
        with Lab(trial, trial_config, attached=True) as lab:
            lab.down()  # what a test left that was killed
            try:
                lab.up(lab.pis([model]), memory=MEMORY)
                result = examine(trial, trial_config, lab, result, say)
            finally:
                keep_logs(lab, log)
    outcome.keep(generation, result)
    return result


def redirect_mounts(generation: Generation, real: tuple[Paths, Config], trial: tuple[Paths, Config]) -> None:
    """Have the Pi mount from the trial what the image's fstab mounts from the frontend: as a file of its own."""
    fstab, target = generation.root / FSTAB, trial[0].etc / "overlays/runtime" / FSTAB
    if fstab.is_file() and not list(target.parent.glob(f"{target.name}*")):
        write_whole(target, mounts_of_trial(fstab.read_text(encoding="utf-8"), real, trial))


def mounts_of_trial(fstab: str, real: tuple[Paths, Config], trial: tuple[Paths, Config]) -> str:
    """`fstab` with what comes from the frontend, or from another server of the homes, out of the trial's root."""
    (paths, config), (trial_paths, trial_config) = real, trial
    frontend, server = str(config.listen), str(trial_config.listen)
    folder = f"{frontend}:{'' if paths.root == Path('/') else paths.root}/"
    homes = config.users.homes
    lines = []
    for line in fstab.splitlines():
        if line.startswith(folder):
            line = f"{server}:{trial_paths.root}/{line.removeprefix(folder)}".replace(f"={frontend}", f"={server}")
        elif config.users.server and line.startswith(f"{config.users.server} "):
            options = f"rw,vers=4.1,port={trial_config.services.nfs.port},addr={server},nodev,nosuid,_netdev,nofail"
            line = f"{server}:{trial_paths.root}{homes} {homes} nfs4 {options} 0 0"
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def keep_logs(lab: Lab, log: Path) -> None:
    """Copy what the Pi's console and the services said out of the trial's root, in place of what an earlier test left.

    Nothing is there when the services didn't start.
    """
    remove_tree(log)
    log.mkdir(parents=True)
    for one in lab.folders():
        if one.console.exists():
            shutil.copy(one.console, log / CONSOLE)
    if lab.serve_log.exists():
        shutil.copy(lab.serve_log, log / lab.serve_log.name)


def examine(paths: Paths, config: Config, lab: Lab, start: Outcome, say: Say) -> Outcome:
    """Register the Pi, wait until it is ready, look at its units, and let the modules check themselves."""
    began = time.monotonic()
    nodes: list[Node] = []
    try:
        nodes = demo.register(paths, config, next(iter(config.groups)), 1, say)
        ready = demo.wait_until_ready(paths, lab, nodes, say, patient=False)
    except UserError as error:
        # its folder is gone when somebody reads this: the console is kept elsewhere
        failed = CheckOutcome("boot", False, seconds_since(began), "\n".join((error.what, error.detail)).strip())
        last = boots.read(paths.boots, nodes[0].mac)[-1:] if nodes else []
        return replace(start, stages=stages_of(last[0]) if last else {}, checks=(failed,))
    boot = ready[nodes[0].name]
    checks = [CheckOutcome("boot", True, seconds_since(began), "every stage up to ready")]
    with Connections(paths, config, lab.enter) as connections:
        site = Site(tuple(nodes), connections)
        checks.append(failed_units(site, nodes))
        for one in carry_out(CHECKS, site):
            if not one.skipped:
                checks.append(CheckOutcome(one.name, one.ok, round(one.seconds, 1), one.detail))
                say(f"  {one.name}: {'ok' if one.ok else 'FAILED'}")
    return replace(start, stages=stages_of(boot), checks=tuple(checks))


def seconds_since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def stages_of(boot: Boot) -> dict[str, float]:
    """Seconds from the first DISCOVER to each stage."""
    return {str(stage): round(at, 1) for stage, at in boot.stages.items()}


def failed_units(site: Site, nodes: Sequence[Node]) -> CheckOutcome:
    """Whether systemd has a unit that failed."""
    began = time.monotonic()
    try:
        said = {node.name: site.node(node, "systemctl --failed --no-legend --plain") for node in nodes}
    except UserError as error:
        return CheckOutcome("units", False, seconds_since(began), str(error))
    lines = [f"{name}: {line.strip()}" for name, text in said.items() for line in text.splitlines() if line.strip()]
    detail = "\n".join(lines) or "no unit failed"
    return CheckOutcome("units", not lines, seconds_since(began), detail)


def model_for(config: Config, image: str) -> str:
    """The lab's name of the first model that the groups of an image name."""
    named = [model for group in config.groups.values() if group.image == image for model in group.models]
    return BOARDS[named[0]].profile.name if named else MODEL


@contextmanager
def prepared(folder: Path, paths: Paths, config_path: Path, generation: Generation) -> Iterator[Paths]:
    """A root below `folder` with the generation, the user's files and a configuration for the lab; removed at the end.

    What a killed test left there is removed first.
    """
    remove_tree(folder)
    trial = Paths(folder)
    try:
        if paths.etc.is_dir():
            shutil.copytree(paths.etc, trial.etc, symlinks=True)
        write_whole(trial.config, for_lab(config_path.read_text(encoding="utf-8"), generation.image, paths.cache))
        store = Store(trial)
        there = store.folder(generation.image) / generation.id
        there.parent.mkdir(parents=True)
        run.run(["cp", "-al", generation.folder, there])
        store.switch(Generation(generation.image, generation.id, there))
        yield trial
    finally:
        remove_tree(folder)


def for_lab(text: str, image: str, cache: Path) -> str:
    """The user's configuration cut down to one image and one group in the lab's network.

    `cache`: the real one, which has what modules fetched.

    The kernel's NFS server doesn't listen there, another DHCP server neither; ports are free, nothing is switched. The
    NFS port stays: it stands in the image.
    """
    given: dict[str, Any] = yaml.safe_load(text) or {}
    made: dict[str, Any] = {"build": {"cache": str(cache), **(given.get("build") or {})}}
    if "cluster" in given:
        made["cluster"] = given["cluster"]
    network = given.get("network") or {}
    made["network"] = {key: network[key] for key in ("address", "pool", "nodes", "domain") if key in network}
    nfs = {**((given.get("services") or {}).get("nfs") or {}), "backend": "ganesha"}
    made["services"] = {"nfs": nfs}
    if "images" in given:
        made["images"] = {image: {**(given["images"][image] or {}), "publish": "built", "canary": ""}}
    groups = {name: one or {} for name, one in (given.get("groups") or {"rpi": {}}).items()}
    mine = {name: one for name, one in groups.items() if one.get("image", "default") == image}
    name, group = next(iter(mine.items()), ("rpi", {"image": image}))
    made["groups"] = {name: group}
    users = given.get("users") or {}
    made["users"] = {key: value for key, value in users.items() if key in ("homes", "first_uid")}
    return yaml.safe_dump(made, sort_keys=False)
