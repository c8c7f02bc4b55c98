"""`kestrelpi apt`: change an image's packages. What would change is worked out, then a list is written and built."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import locked, write_whole
from kestrelpi.images import account, apt_history, forced, needs, packages, wishes
from kestrelpi.images.added import DoesNotFit
from kestrelpi.images.apt_history import Entry
from kestrelpi.images.compare import Change, changes_between
from kestrelpi.images.install import job_of
from kestrelpi.images.layers import Layers
from kestrelpi.images.lock import Section, read_section
from kestrelpi.images.manifest import installed_packages
from kestrelpi.images.packages import STAND_IN
from kestrelpi.images.plan import BuildPlan, plan
from kestrelpi.images.preflight import preflight
from kestrelpi.images.resolve import resolve
from kestrelpi.images.store import Generation
from kestrelpi.images.watcher import Watcher
from kestrelpi.images.workshop import Chosen, Versions, opened, scratch_folder
from kestrelpi.paths import Paths

NAMED = 8
"""So many packages stand in an error."""
Make = Callable[[str, Versions], Generation]
"""Builds the image: it is told from which phase on everything runs anew (empty: what changed), and which versions."""


@dataclass(frozen=True)
class Proposal:
    """What a command would do."""

    image: str
    action: str
    names: tuple[str, ...]
    text: str
    """The new text of the image's list."""
    changes: tuple[Change, ...]
    chosen: Chosen | None = None
    """What the packages phase would install; None: all of it is kept."""
    force: str = ""
    undone: Entry | None = None

    def is_nothing(self, paths: Paths) -> bool:
        """Whether everything is as it should be already."""
        same = self.text == wishes.read(wishes.path_of(paths, self.image))
        return same and not self.changes and not self.undone


def propose_install(paths: Paths, config: Config, image: str, names: Sequence[str], watch: Watcher) -> Proposal:
    """What installing these packages would change; raises UserError for one that there isn't."""
    for name in names:
        packages.check_name(name, "the command line")
    text = wishes.added(wishes.read(wishes.path_of(paths, image)), _unwished(paths, config, image, names))
    return _proposal(paths, config, image, "install", names, text, watch)


def _unwished(paths: Paths, config: Config, image: str, names: Sequence[str]) -> list[str]:
    """Those of the names that no list asks for yet."""
    there = plan(paths, config, image).wanted.names
    return [name for name in names if name not in there]


def propose_remove(paths: Paths, config: Config, image: str, names: Sequence[str], watch: Watcher) -> Proposal:
    """What removing these packages would change; raises UserError for one that isn't there or that others need."""
    todo = plan(paths, config, image)
    current = built(todo)
    there = needs.read((current.root / "var/lib/dpkg/status").read_text(encoding="utf-8"))
    rest = [name.partition("/")[0] for name in todo.wanted.names if name not in names]
    for name in names:
        others = needs.needed_by(name, there, rest)
        if name not in there:
            raise UserError(f"{name} is not in the image {image}", fix=f"kestrelpi images show {image}")
        if there[name].base:
            raise UserError(f"{name} belongs to Debian's base system", fix="no image can do without it")
        if others:
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            raise UserError(
                f"{name} is needed by {', '.join(others[:NAMED])}{more}", fix="remove that first, or leave it"
            )
        if name in config.images[image].packages:
            raise UserError(
                f"{name} stands in the configuration, which has the last word",
                where=str(paths.config),
                fix=f"take it out of images.{image}.packages, and run: kestrelpi images build {image}",
            )
    text = wishes.removed(wishes.read(wishes.path_of(paths, image)), names)
    still = plan(paths, config, image, wished=text).wanted.names
    text = wishes.appended(text, [f"-{name}" for name in names if name in still])
    return _proposal(paths, config, image, "remove", names, text, watch)


def propose_upgrade(paths: Paths, config: Config, image: str, watch: Watcher) -> Proposal:
    """Which packages have newer versions."""
    text = wishes.read(wishes.path_of(paths, image))
    return _proposal(paths, config, image, "upgrade", (), text, watch, force="packages")


def propose_undo(paths: Paths, config: Config, image: str, id: int | None) -> Proposal:
    """What taking back an entry of the history would do; the versions of before come back as far as they are kept."""
    entry = apt_history.find(apt_history.path_of(paths, image), id)
    text = wishes.undone(wishes.read(wishes.path_of(paths, image)), entry.list_before, entry.list_after)
    changes = tuple(Change(one.name, one.new, one.old) for one in entry.changes)
    return Proposal(image, f"undo {entry.id}", entry.names, text, changes, undone=entry)


def _proposal(
    paths: Paths,
    config: Config,
    image: str,
    action: str,
    names: Sequence[str],
    text: str,
    watch: Watcher,
    force: str = "",
) -> Proposal:
    current = built(plan(paths, config, image))
    try:
        todo = plan(paths, config, image, wished=text, whole=bool(force))
        chosen, after = choose(paths, todo, watch, newest=bool(force))
    except DoesNotFit:
        todo = plan(paths, config, image, wished=text, whole=True)
        chosen, after = choose(paths, todo, watch, newest=False)
    before = {name: version for name, version in current.manifest.packages.items() if name in _managed(current, after)}
    changes = changes_between(before, after)
    return Proposal(image, action, tuple(names), text, changes, chosen, force if changes else "")


def _managed(current: Generation, after: dict[str, str]) -> set[str]:
    """The packages that come from archives: neither our stand-in nor package files of modules."""
    lock = account.kept_versions(current, current.manifest.suite)
    return {*(lock.packages if lock else current.manifest.packages), *after} - {STAND_IN}


def built(todo: BuildPlan) -> Generation:
    """The current generation; raises UserError when there is none, or what it was made of is gone."""
    below = todo.steps[: packages_steps(todo)[0]]
    if todo.current is None or not all(step.cached for step in below):
        raise UserError(
            f"what the packages of {todo.image} are installed over is not there",
            fix=f"kestrelpi images build {todo.image}",
        )
    return todo.current


def packages_steps(todo: BuildPlan) -> list[int]:
    """The numbers of the steps of the packages phase."""
    return [number for number, step in enumerate(todo.steps) if step.kind == "packages"]


def choose(paths: Paths, todo: BuildPlan, watch: Watcher, newest: bool) -> tuple[Chosen | None, dict[str, str]]:
    """What apt would install, and all packages that would be there then, by name with their versions.

    Nothing is chosen when the packages phase has been carried out already; `newest`: it is to be carried out again.
    Raises DoesNotFit.
    """
    preflight(paths, todo)
    layers = Layers(paths.cache / "layers")
    numbers = packages_steps(todo)
    runs = numbers[0] if newest else next((one for one in numbers if not todo.steps[one].cached), None)
    status = (layers.tree(todo.steps[0].key) / "var/lib/dpkg/status").read_text(encoding="utf-8")
    after = installed_packages(status)
    kept = [read_section(layers.folder / todo.steps[one].key) for one in numbers if runs is None or one < runs]
    for section in kept:
        after |= _installs(section, todo) if section else {}
    if runs is None:
        return None, after
    section = _resolve(paths, todo, runs, watch, newest)
    return Chosen(section, todo.steps[runs].added), after | _installs(section, todo)


def _installs(section: Section, todo: BuildPlan) -> dict[str, str]:
    """The packages of a section that are installed whole, with their versions."""
    return {one.name: one.version for one in section.packages if one.name not in (todo.wanted.parts or {})}


def _resolve(paths: Paths, todo: BuildPlan, number: int, watch: Watcher, newest: bool) -> Section:
    """What apt would install in the step `number`."""
    layers = Layers(paths.cache / "layers")
    keep = None if newest else account.kept_versions(todo.current, todo.suite)
    with (
        locked(paths.state / "build.lock", "the image builder", wait=1.0),
        opened(paths, todo, layers, watch.line, keep) as shop,
        scratch_folder(shop) as scratch,
    ):
        log = paths.log / "images" / todo.image / shop.started / "apt.log"
        job = job_of(todo.steps[number], todo, scratch)
        return resolve(job, [step.key for step in todo.steps[:number]], shop, scratch, log, keep)


def carry_out(paths: Paths, config: Config, proposal: Proposal, make: Make) -> Entry:
    """Write the list, build, and remember it; when the build fails, the list is as before."""
    image, path = proposal.image, wishes.path_of(paths, proposal.image)
    existed = path.is_file()
    before_text, moments = wishes.read(path), forced.read(paths, image)
    current = plan(paths, config, image).current
    try:
        if proposal.text != before_text:
            write_whole(path, proposal.text)
        if proposal.undone:
            _restore_forced(paths, image, proposal.undone)
        made = make(proposal.force, _versions(paths, config, proposal))
    except BaseException:
        if not existed:
            path.unlink(missing_ok=True)
        elif proposal.text != before_text:
            write_whole(path, before_text)
        forced.write(paths, image, moments)
        raise
    before = current.id if current else ""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    changes = changes_between(dict(current.manifest.packages) if current else {}, dict(made.manifest.packages))
    entry = Entry(
        *(0, now, who(), proposal.action, proposal.names, before, made.id, changes),
        *(before_text, proposal.text, moments),
    )
    return apt_history.append(apt_history.path_of(paths, image), entry)


def _versions(paths: Paths, config: Config, proposal: Proposal) -> Versions:
    """What was shown; or, to take something back, the versions of before it."""
    if not proposal.undone:
        return Versions(chosen=proposal.chosen)
    folder = paths.images / proposal.image / "generations" / proposal.undone.before
    suite = plan(paths, config, proposal.image).suite
    return Versions(keep=account.kept_versions(Generation(proposal.image, proposal.undone.before, folder), suite))


def _restore_forced(paths: Paths, image: str, entry: Entry) -> None:
    """Bring back the keys of before an upgrade, so that its layers of then are found again."""
    if entry.action == "upgrade":
        forced.write(paths, image, dict(entry.forced_before))


def who() -> str:
    """The person behind a command."""
    return os.environ.get("SUDO_USER") or getpass.getuser()
