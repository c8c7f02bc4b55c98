"""What a build would do: the steps in their order, their keys, and why a kept result is of no use any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.config.model import RootKind
from kestrelpi.errors import ConfigError
from kestrelpi.images import fetched, keys, mirror, packages, scripts, squashfs, wishes
from kestrelpi.images import lock as locking
from kestrelpi.images.chain import Chain, Step
from kestrelpi.images.lock import Lock
from kestrelpi.images.modules import Module, of_image, uid_variables
from kestrelpi.images.overrides import Resolved, resolve, resolve_all
from kestrelpi.images.sources import overlay_layers, script_layers
from kestrelpi.images.store import Generation, Store
from kestrelpi.paths import Paths

PHASES = ("bootstrap", "install", "packages", "post-install", "configure")
RECIPE = "2"
"""Counts changes of what bootstrap and packages do, so that older layers aren't taken for theirs."""


@dataclass(frozen=True)
class BuildPlan:
    """All steps of one image, and what they need."""

    image: str
    suite: str
    settings: scripts.Settings
    mirror: mirror.Mirror
    wanted: packages.Wanted
    node_overlay: Mapping[str, Resolved]
    initramfs: Mapping[str, Resolved]
    steps: tuple[Step, ...]
    removed: tuple[Resolved, ...]
    """Scripts that an empty file switched off."""
    modules: tuple[Module, ...]
    boot_key: str
    current: Generation | None
    root: RootKind = "nfs"
    """How nodes mount the generation's root."""

    made: Generation | None = None
    """The newest generation that is just what a build would make, whether or not nodes boot it."""
    canary: Generation | None = None
    """What the image's canary group boots."""
    lists: tuple[Resolved, ...] = ()
    """The package lists in force."""
    lock: Lock | None = None
    """With --locked: what is installed."""

    @property
    def up_to_date(self) -> bool:
        """Whether what nodes boot (those of the canary group, if there is one) is just what a build would make."""
        offered = self.canary or self.current
        return offered is not None and self.made is not None and offered.id == self.made.id

    @property
    def allow_secrets(self) -> tuple[str, ...]:
        """images.<name>.allow_secrets."""
        return self.settings.config.images[self.image].allow_secrets

    @property
    def packages_fetched(self) -> list[fetched.Fetched]:
        """Debian packages that modules fetch."""
        return [one for one in self.settings.fetched.values() if one.package]

    @property
    def to_verify(self) -> list[fetched.Fetched]:
        """What the steps that run will use of what modules fetch."""
        running = [step for step in self.steps if not step.cached]
        debs = self.packages_fetched if any(step.kind == "packages" and not step.added for step in running) else []
        return [*debs, *(one for step in running if step.script for one in step.script.fetched)]

    @property
    def reasons(self) -> list[str]:
        """Why a build is due, a line each; empty when it isn't."""
        found = [f"{step.phase} {step.name}: {step.stale}" for step in self.steps if not step.cached]
        if not found and not self.up_to_date:
            changed = "the initramfs's files or images.NAME.root changed"
            unpublished = f"{self.made.id} is not what nodes boot" if self.made else changed
            found = [unpublished if self.current else "there is no generation yet"]
        return found


def plan(
    paths: Paths,
    config: Config,
    image: str,
    where: str = "",
    apt: Path = Path("/etc/apt"),
    *,
    locked: bool = False,
    whole: bool = False,
    wished: str | None = None,
) -> BuildPlan:
    """Work out the steps of `image`; nothing is changed. Raises UserError for what a build would fail on at once.

    `where`: the configuration's file, for errors; `apt`: the frontend's own apt configuration; `locked`: install what
    the image's lock file says; `whole`: all packages in one step; `wished`: the text of the list that kestrelpi apt
    writes, if not what it is.
    """
    chosen = config.images.get(image)
    if chosen is None:
        known = ", ".join(config.images) or "none"
        raise ConfigError(f"there is no image {image!r}", where=where or str(paths.config), fix=f"images: {known}")
    suite = chosen.suite or mirror.own_suite()
    source = mirror.find(suite, config.build.mirror, mirror.read_sources(apt))
    found_modules = of_image(paths, config, image)
    modules = found_modules.modules
    more = {**found_modules.variables(), **uid_variables(modules)}
    brought = fetched.of_modules(found_modules, fetched.folder(paths, config))
    options = found_modules.options or {}
    settings = scripts.Settings(image, suite, config, paths, archives(paths, config), more, options, brought)
    lists = script_layers(paths, "node", "packages", modules, image)
    found = resolve(lists)
    for one in found.values():
        packages.check_list_name(one.name, one.path)
    others = [one for one in found.values() if wished is None or one.name != wishes.NAME]
    texts = [(one.path, scripts.render(one, settings).decode()) for one in others]
    wanted = packages.read_lists([*texts, (wishes.path_of(paths, image), wished or "")], chosen.packages)
    lock = read_lock(paths, image, suite, wanted) if locked else None
    node_overlay = resolve(overlay_layers(paths, "node", modules, image))
    initramfs = resolve(overlay_layers(paths, "initramfs", modules, image))
    chain = Chain(paths, image, lock, whole=whole)
    chain.add("bootstrap", "debootstrap", "bootstrap", {"recipe": RECIPE, "suite": suite, "arch": scripts.ARCH})
    removed = []
    for phase in PHASES[1:]:
        if phase == "packages":
            debs = {f"fetched {one.name}": one.required_sha256() for one in brought.values() if one.package}
            fields = {"recipe": RECIPE, "suite": suite, "arch": scripts.ARCH, **wanted.fields, **debs}
            chain.add_packages(fields, [one.path for one in found.values()])
            continue
        if phase == "configure":
            chain.add("configure", "overlay", "overlay", _overlay_fields(node_overlay, settings))
        everything = resolve_all(script_layers(paths, "node", phase, modules, image))
        removed += [one for one in everything.values() if one.removed]
        for one in everything.values():
            if not one.removed:
                chain.add_script(scripts.load(phase, one, settings))
    steps = tuple(chain.steps)
    files = {name: f"{keys.hash_path(one.path)}" for name, one in initramfs.items()}
    if chosen.root == "squashfs":
        files["root as squashfs"] = " ".join(squashfs.OPTIONS)
    boot_key = keys.digest({"recipe": RECIPE, "root": steps[-1].key, **files})
    return BuildPlan(
        image,
        suite,
        settings,
        source,
        wanted,
        node_overlay,
        initramfs,
        steps,
        tuple(removed),
        modules,
        boot_key,
        chain.current,
        chosen.root,
        find_made(Store(paths), image, tuple(step.key for step in steps), boot_key),
        Store(paths).canary(image) if chosen.canary else None,
        tuple(found.values()),
        lock,
    )


def read_lock(paths: Paths, image: str, suite: str, wanted: packages.Wanted) -> Lock:
    """The image's lock file; raises UserError when it doesn't fit the configuration."""
    path = locking.path_of(paths, image)
    lock = locking.read(path)
    locking.check(lock, suite, wanted.words, str(path))
    return lock


def find_made(store: Store, image: str, made_of: tuple[str, ...], boot_key: str) -> Generation | None:
    """The newest generation of these layers and boot files."""
    for one in reversed(store.generations(image)):
        if one.manifest.keys == made_of and one.manifest.boot_key == boot_key:
            return one
    return None


def archives(paths: Paths, config: Config) -> Path:
    """Where downloaded packages are kept, for all images and suites."""
    return (config.build.cache or paths.cache) / "archives"


def _overlay_fields(files: Mapping[str, Resolved], settings: scripts.Settings) -> dict[str, str]:
    fields = {}
    for name, one in files.items():
        if one.path.is_symlink():
            fields[name] = f"link {one.path.readlink()}"
        else:
            mode = one.path.stat().st_mode & 0o7777
            fields[name] = f"{mode:o} {keys.hash_bytes(scripts.render(one, settings))}"
    return fields
