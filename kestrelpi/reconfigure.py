"""Bring the frontend and the images to the configuration: first a plan, then the plan carried out.

Done twice, the second time does nothing. The frontend's files are made whole by the scripts of its configure phase in a
staging folder and compared with those below the root; the images know by their keys what is stale; the services are
told last, and only of news.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.frontend import changes, state
from kestrelpi.frontend.changes import FileChange
from kestrelpi.frontend.machine import Machine
from kestrelpi.frontend.scripts import Variables, fingerprint, module_variables, run_scripts, variables
from kestrelpi.images.manifest import StepRecord
from kestrelpi.images.overrides import Resolved
from kestrelpi.images.plan import plan as plan_image
from kestrelpi.images.sources import frontend_scripts
from kestrelpi.images.store import Generation
from kestrelpi.images.watcher import Silent
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths, data_dir
from kestrelpi.releasing import making, trial
from kestrelpi.releasing.outcome import Outcome
from kestrelpi.run import run

UNIT = "kestrelpi.service"


class Images(Protocol):
    """What reconfigure asks of the images."""

    def stale(self, image: str) -> Sequence[str] | None:
        """Why `image` must be built again, a reason a line; empty: it needn't; None: it has never been built."""

    def build(self, image: str, force: bool) -> str:
        """Build what is stale, the configure phase also when it isn't but `force` is; returns the generation's id."""


Report = Callable[[str, float], None]
"""Is told what was done, and the seconds that it took."""


@dataclass(frozen=True)
class BuiltImages(Silent):
    """The real images. Tells `report` of every step of a build that had to run anew."""

    paths: Paths
    config: Config
    where: str
    """The configuration's file, for errors."""
    report: Report

    def stale(self, image: str) -> Sequence[str] | None:
        planned = plan_image(self.paths, self.config, image, self.where)
        return planned.reasons if planned.current else None

    def build(self, image: str, force: bool) -> str:
        again = "configure" if force else ""

        def attempt(generation: Generation) -> Outcome:
            return trial.attempt(self.paths, self.config, Path(self.where), generation, lambda text: None)

        made = making.make(
            self.paths, self.config, image, force=again, watch=self, where=self.where, attempt=attempt
        )  # fmt: skip
        return made.generation.id

    def done(self, record: StepRecord) -> None:
        if not record.cached:
            self.report(f"{record.phase} {record.name}", record.seconds)


@dataclass(frozen=True)
class Selection:
    """What `reconfigure` was asked for."""

    frontend: bool
    images: tuple[str, ...]
    force: bool = False
    named: bool = False
    """The images were named one by one: one that was never built is an error then, and not a remark."""


@dataclass(frozen=True)
class Reload:
    """How the services are told: argv of a command, or a signal for a process."""

    what: str
    argv: tuple[str, ...] = ()
    process: int = 0


@dataclass(frozen=True)
class Plan:
    """All that will be done, in this order."""

    files: tuple[FileChange, ...] = ()
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Images that will be built, with the reasons."""
    reloads: tuple[Reload, ...] = ()
    remarks: tuple[str, ...] = ()
    """What can't be done now, and how the user can."""
    staged: Mapping[str, changes.Content] | None = None
    """Every file that the scripts made, also those that are in place already; None: the frontend was not asked for."""
    news: bool = False
    """The services haven't been told of this configuration yet."""

    @property
    def empty(self) -> bool:
        return not (self.files or self.images or self.reloads)


@dataclass(frozen=True)
class Frontend:
    """The place and the time: everything that a plan depends on beside the selection."""

    paths: Paths
    config: Config
    machine: Machine
    serving: int | None
    """The process of `kestrelpi serve`; None: it doesn't run."""
    images: Images

    @property
    def state_path(self) -> Path:
        return self.paths.state / "frontend.json"


def make_plan(front: Frontend, selection: Selection, staged: Mapping[str, changes.Content] | None) -> Plan:
    """What `selection` needs; `staged` is what `stage` made, None if the frontend wasn't asked for. Changes nothing."""
    past = state.read(front.state_path)
    remarks: list[str] = []
    files: tuple[FileChange, ...] = ()
    if staged is not None:
        files = tuple(changes.compare(staged, past.files, front.paths.root, selection.force))
        if waiting := pending_installs(front, past):
            remarks.append(f"not run yet: {', '.join(waiting)}; run them with: kestrelpi reconfigure --frontend --init")
    images = _stale_images(front, selection, remarks)
    news = past.config != state.config_mark(front.config)
    reloads = _reloads(front, past, files, bool(images) or news or selection.force)
    remarks += _unserved(front, past, bool(files or images or news))
    return Plan(files, images, reloads, tuple(remarks), staged, news)


def stage(front: Frontend, logs: Path, report: Report) -> dict[str, changes.Content]:
    """The files that the scripts of the frontend's configure phase make."""
    with tempfile.TemporaryDirectory(prefix="kestrelpi.") as folder:
        work = Path(folder)
        scripts = frontend_scripts(front.paths, front.config, "configure")
        run_scripts(scripts, _variables(front, work), work, logs, lambda one, s: report(f"configure {one.name}", s))
        return changes.read_tree(work / "stage")


def _variables(front: Frontend, work: Path) -> Variables:
    registry = Registry.load(front.paths.registry, front.config)
    return variables(front.paths, front.config, front.machine, registry, work)


def _stale_images(front: Frontend, selection: Selection, remarks: list[str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for name in selection.images:
        reasons = front.images.stale(name)
        if reasons is None:
            how = f"kestrelpi images build {name}"
            if selection.named:
                raise UserError(f"the image {name} has never been built", fix=f"build it with: {how}")
            remarks.append(f"the image {name} has never been built; build it with: {how}")
        elif reasons or selection.force:
            found[name] = tuple(reasons) or ("forced",)
    return found


def _reloads(front: Frontend, past: state.State, files: tuple[FileChange, ...], other_news: bool) -> tuple[Reload, ...]:
    """How the services learn of it: the kernel's nfsd, and `kestrelpi serve` by systemd or by a signal."""
    found = []
    machine = front.machine
    if machine.systemd and machine.nfs == "kernel" and _touched(files, "/etc/nfs.conf.d/"):
        found.append(Reload("restart the kernel's NFS server", ("systemctl", "restart", "nfs-server.service")))
    elif machine.privileged and machine.nfs == "kernel" and _touched(files, "/etc/exports.d/"):
        found.append(Reload("export again", ("exportfs", "-r")))
    if machine.systemd and _touched(files, "/etc/dnsmasq.d/"):
        found.append(Reload("restart dnsmasq", ("systemctl", "try-restart", "dnsmasq.service")))
    elif machine.systemd and _touched(files, "/etc/kestrelpi/dnsmasq-hosts"):
        found.append(Reload("reload dnsmasq", ("systemctl", "try-reload-or-restart", "dnsmasq.service")))
    if machine.systemd and _touched(files, "/etc/ssh/"):
        found.append(Reload("reload sshd", ("systemctl", "try-reload-or-restart", "ssh.service")))
    units = _touched(files, "/etc/systemd/")
    if machine.systemd:
        if units:
            found.append(Reload("read systemd's units again", ("systemctl", "daemon-reload")))
        if units or past.network != state.network_mark(front.config):
            found.append(Reload("restart the services", ("systemctl", "restart", UNIT)))
        elif files or other_news:
            found.append(Reload("reload the services", ("systemctl", "reload-or-restart", UNIT)))
    elif front.serving and (files or other_news):
        found.append(Reload(f"reload kestrelpi serve (process {front.serving})", process=front.serving))
    return tuple(found)


def _touched(files: Iterable[FileChange], folder: str) -> bool:
    return any(one.name.startswith(folder) for one in files)


def _unserved(front: Frontend, past: state.State, something: bool) -> list[str]:
    """What can't be reloaded where `kestrelpi serve` isn't systemd's."""
    if front.machine.systemd:
        return []
    if front.serving is None:
        return ["kestrelpi serve is not running: nothing to reload"] if something else []
    if past.network and past.network != state.network_mark(front.config):
        return ["network or services changed: end kestrelpi serve and start it again"]
    return []


def carry_out(front: Frontend, plan: Plan, selection: Selection, report: Report) -> None:
    """Do what the plan says. What is done is remembered even if a later step fails."""
    past = state.read(front.state_path)
    for change in plan.files:
        with _timed(report, f"{change.kind} {change.name}"):
            changes.carry_out(change)
    if plan.staged is not None:
        past.files = _ours(past, plan)
        if plan.files:
            state.write(front.state_path, past)
    for image in plan.images:
        began = time.monotonic()
        generation = front.images.build(image, selection.force)
        report(f"image {image}: generation {generation}", time.monotonic() - began)
    for reload in plan.reloads:
        with _timed(report, reload.what):
            _carry_out_reload(reload)
    if plan.news or plan.files:
        past.config, past.network = state.config_mark(front.config), state.network_mark(front.config)
        state.write(front.state_path, past)


def _ours(past: state.State, plan: Plan) -> dict[str, str]:
    """The files that are ours to remove one day: those that weren't there before us."""
    made = {change.name for change in plan.files if change.old is None}
    staged = plan.staged or {}
    return {name: content.sha256 for name, content in staged.items() if name in made or name in past.files}


def _carry_out_reload(reload: Reload) -> None:
    if reload.argv:
        run(reload.argv)
    else:
        os.kill(reload.process, signal.SIGHUP)


@contextmanager
def _timed(report: Report, what: str) -> Iterator[None]:
    """Reports a step with its seconds when it ended well."""
    began = time.monotonic()
    yield
    report(what, time.monotonic() - began)


def pending_installs(front: Frontend, past: state.State) -> dict[str, Resolved]:
    """Scripts of the frontend's install phase that haven't run in their present form; none below another root."""
    if not front.machine.privileged:
        return {}
    scripts = frontend_scripts(front.paths, front.config, "install")
    modules = module_variables(front.paths, front.config)
    return {name: one for name, one in scripts.items() if past.installed.get(name) != fingerprint(one, modules)}


def install(front: Frontend, logs: Path, report: Report) -> None:
    """Run the frontend's install phase: each script once, remembered as soon as it has ended well."""
    past = state.read(front.state_path)
    modules = module_variables(front.paths, front.config)

    def done(script: Resolved, seconds: float) -> None:
        past.installed[script.name] = fingerprint(script, modules)
        state.write(front.state_path, past)
        report(f"install {script.name}", seconds)

    with tempfile.TemporaryDirectory(prefix="kestrelpi.") as folder:
        work = Path(folder)
        run_scripts(pending_installs(front, past), _variables(front, work), work, logs, done)


def default_configuration(path: Path) -> bool:
    """Write the commented default configuration to `path` if there is nothing; whether it was written."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (data_dir() / "etc/kestrelpi.yaml").read_bytes())
    return True
