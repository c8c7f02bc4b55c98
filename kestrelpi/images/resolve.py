"""Which package versions an image gets: the frontend's apt decides, over the root as it is so far. Changes nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images import deb822, mirror, packages, pool
from kestrelpi.images.added import DoesNotFit
from kestrelpi.images.indexes import Apt, lists_folder, nothing
from kestrelpi.images.lock import Lock, Package, Section, section
from kestrelpi.images.packages import Job
from kestrelpi.images.plan import BuildPlan
from kestrelpi.images.workshop import Workshop
from kestrelpi.sandbox import CHROOT_PATH, Sandbox, bind, view

INST = re.compile(r"Inst (?P<name>[^ :]+)(?::\S+)? (?:\[\S+\] )?\((?P<version>\S+) (?P<origin>.*?)\[(?P<arch>\w+)\]\)")
"""What apt-get --simulate says of a package that it would install or upgrade."""
CACHE = 'Dir::Cache::pkgcache "{folder}/packages.bin";\nDir::Cache::srcpkgcache "{folder}/sources.bin";\n'
"""apt needs some seconds to read the indexes: once is enough for all of its runs."""
LOCAL = "local-deb"
"""The origin of package files that were given by their paths."""
DOWNLOAD = re.compile(r"'[^']+' (?P<name>[^_ ]+)_(?P<version>[^_ ]+)_(?P<arch>\w+)\.deb ")
"""What apt-get --print-uris says."""
PREFER_KEPT = f"Package: *\nPin: release o={pool.ORIGIN}\nPin-Priority: 991\n"
"""apt_preferences(5): more than any other version, less than what would downgrade what is installed."""

Version = tuple[str, str, str]
"""Name, version, architecture."""


@dataclass(frozen=True)
class Indexes:
    """What the archives have."""

    packages: tuple[tuple[Path, str], ...]
    """Package indexes, each with the role of its archive (as in a lock file)."""
    epoch: int
    """When the newest of them was published."""


def resolve(
    job: Job, below: Sequence[str], shop: Workshop, scratch: Path, log: Path, keep: Lock | None = None
) -> Section:
    """What a packages step is to install over the layers `below`, with the archives' indexes brought up to date.

    `keep`: packages stay at these versions as far as their archives are in the cache and everything fits together.
    Raises UserError for packages that there aren't, DoesNotFit for those that can't be added to what is there.
    """
    kept = [one for one in (keep.packages.values() if keep else ()) if pool.is_right(shop.archives / one.file, one)]
    apt = _Apt(below, shop, scratch, log, kept)
    indexes = apt.update()
    check_names(shop.plan, indexes)
    try:
        found = apt.simulate(job)
    except run.CommandFailed as error:
        if kept:
            shop.line("the versions of the last build don't go together with what is new: taking the newest")
            return resolve(job, below, shop, scratch, log)
        if job.over:
            raise DoesNotFit from error
        raise
    known = {(one.name, one.version, one.architecture): one for one in kept}
    ours = {version: known[version] for version in found if version in known}
    others = pool.look_up([version for version in found if version not in known], indexes.packages)
    return section("packages", indexes.epoch, [*ours.values(), *others.values()])


class _Apt:
    """The frontend's apt on a root that it can't change."""

    def __init__(self, below: Sequence[str], shop: Workshop, scratch: Path, log: Path, kept: Sequence[Package]) -> None:
        self.shop = shop
        self.lists = lists_folder(shop)
        for folder in (shop.archives / "partial", self.lists / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        root = shop.mount
        extra = _more_sources(kept, shop, scratch) + CACHE.format(folder=scratch)
        config = scratch / "resolve.conf"
        config.write_text(packages.apt_config(root, packages.frontend_acquire(), CHROOT_PATH) + extra)
        lowers = [shop.scaffold.tree, *(Path(key) / "tree" for key in reversed(below))]
        places = [root / "var/cache/apt/archives", root / "var/lib/apt/lists"]
        sources = [shop.archives, self.lists]
        binds = [bind(source, place) for source, place in zip(sources, places, strict=True)]
        box = Sandbox(cwd=shop.layers.folder).plus(view(lowers, root), *binds)
        self.apt = Apt(shop, box, config, (*places, scratch), log)

    def update(self) -> Indexes:
        """Fetch the newest indexes."""
        found = self.apt.update("$(FILENAME) $(REPO_URI)", self.shop.line)
        debian = [(self.lists / Path(name).name, uri) for name, uri in found if not uri.startswith("copy:")]
        source = self.shop.plan.mirror
        roles = tuple((path, pool.role(uri, source)) for path, uri in debian if path.is_file())
        return Indexes(roles, pool.published(sorted(self.lists.glob("*Release"))))

    def simulate(self, job: Job) -> list[Version]:
        """What apt would install."""
        rows = self.apt.run(["apt-get", "--simulate", *job.command, *job.wanted.names, *job.files], nothing)
        found = [match for row in rows if (match := INST.match(row)) and not match["origin"].startswith(LOCAL)]
        for name in job.wanted.parts or {}:
            rows = self.apt.run(["apt-get", "download", "--print-uris", name], nothing)
            found += [match for row in rows if (match := DOWNLOAD.match(row))]
        return [(one["name"], unquote(one["version"]), one["arch"]) for one in found]


def _more_sources(kept: Sequence[Package], shop: Workshop, scratch: Path) -> str:
    """Lines for apt.conf: suites that single packages come from, and packages that apt should prefer."""
    suites = shop.plan.wanted.suites
    sources = [shop.plan.mirror.more_sources(suites)]
    preferences = [mirror.preferences(suites)]
    if kept:
        sources.append(pool.flat_repository(kept, scratch / "kept"))
        preferences.append(PREFER_KEPT)
    (scratch / "more.sources").write_text("\n".join(sources))
    (scratch / "more.preferences").write_text("\n".join(preferences))
    names = {"sourcelist": scratch / "more.sources", "preferences": scratch / "more.preferences"}
    return "".join(f'Dir::Etc::{name} "{path}";\n' for name, path in names.items())


def check_names(plan: BuildPlan, indexes: Indexes) -> None:
    """Raise UserError, with names like them, for packages that no archive has."""
    wanted = plan.wanted
    names = [one.partition("/")[0] for one in (*wanted.names, *(wanted.parts or {}))]
    texts = [path.read_bytes() for path, _ in indexes.packages]
    there: set[str] = set().union(*(deb822.names(text) for text in texts))
    for name in names:
        if name not in there and not any(_provides(text, name) for text in texts):
            near = difflib.get_close_matches(name, there, 3, 0.75)
            raise UserError(
                f"there is no package {name!r}",
                where=asked_by(name, plan),
                fix=f"did you mean: {', '.join(near)}?" if near else "see packages.debian.org for its name",
            )


def _provides(index: bytes, name: str) -> bool:
    """Whether some package of the index provides the virtual package `name`."""
    return bool(re.search(rb"^Provides:.*[ ,]" + re.escape(name.encode()) + rb"(?:[ ,]|$)", index, re.MULTILINE))


def asked_by(name: str, plan: BuildPlan) -> str:
    """`file:line` of the list that asks for a package, or the configuration's key; empty: neither does."""
    for path in (one.path for one in plan.lists):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.partition("#")[0].partition(":")[0].strip() == name:
                return f"{path}:{number}"
    configured = plan.settings.config.images[plan.image].packages
    return f"images.{plan.image}.packages" if name in configured else ""
