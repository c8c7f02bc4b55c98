"""From a build to what nodes boot: examined always, tested where the configuration says so, a canary group first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kestrelpi.config import Config
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.images import build as building
from kestrelpi.images.store import Generation, Store
from kestrelpi.images.watcher import Watcher
from kestrelpi.images.workshop import Versions
from kestrelpi.paths import Paths
from kestrelpi.releasing import outcome
from kestrelpi.releasing.flaw import Flaw
from kestrelpi.releasing.lint import lint, refuse

Try = Callable[[Generation], outcome.Outcome]
"""Boots a generation in the lab and keeps what came of it."""

Examine = Callable[[Paths, Config, Generation], list[Flaw]]


@dataclass(frozen=True)
class Made:
    """What became of a build."""

    generation: Generation
    warnings: tuple[Flaw, ...] = ()
    canary: str = ""
    """The only group that gets it; empty: all do."""


def make(
    paths: Paths,
    config: Config,
    image: str,
    *,
    force: str = "",
    watch: Watcher | None = None,
    where: str = "",
    attempt: Try,
    versions: Versions | None = None,
) -> Made:
    """Build, examine, test and publish as the configuration says. Raises UserError; nodes boot what they did then."""
    warnings: list[Flaw] = []

    def gate(draft: Generation) -> None:
        flaws = lint(paths, config, draft, fresh=True)
        refuse(flaws, draft)
        warnings.extend(flaws)

    generation = building.build(
        paths, config, image, force=force, watch=watch, where=where, gate=gate, publish=False, versions=versions
    )  # fmt: skip
    if config.images[image].publish == "tested":
        ensure_tested(generation, attempt)
    return Made(generation, tuple(warnings), offer(paths, config, generation))


def ensure_tested(generation: Generation, attempt: Try) -> None:
    """Try a generation that hasn't passed yet; raises UserError when it doesn't."""
    result = outcome.read(generation)
    if result is None or not result.passed:
        result = attempt(generation)
    if not result.passed:
        failed = [one for one in result.checks if not one.ok]
        raise UserError(
            f"{generation.id} is not published: it failed {', '.join(one.name for one in failed)}",
            where=result.log or str(outcome.path(generation)),
            detail="\n".join(f"{one.name}: {one.detail}" for one in failed),
            fix=f"mend it and build again; or give it to the nodes all the same: kestrelpi images publish "
            f"{generation.image} {generation.id} --untested",
        )


def offer(paths: Paths, config: Config, generation: Generation) -> str:
    """Give a new generation to the canary group, which is returned; or to all where there is none."""
    store, group = Store(paths), config.images[generation.image].canary
    current = store.current(generation.image)
    if not group or current is None or current.id == generation.id:
        publish(paths, generation)
        return ""
    store.switch_canary(generation)
    return group


def publish(paths: Paths, generation: Generation) -> None:
    """Give a generation to all nodes that are not pinned."""
    store = Store(paths)
    store.switch(generation)
    store.end_canary(generation.image)


def to_publish(
    paths: Paths, config: Config, image: str, id: str, *, untested: bool, examine: Examine = lint
) -> Generation:
    """What `images publish` is about: `id`, else what the canary group has, else the newest. Raises UserError."""
    if image not in config.images:
        raise ConfigError(f"there is no image {image!r}", fix=f"images: {', '.join(config.images)}")
    store = Store(paths)
    found = store.generation(image, id) if id else store.canary(image) or next(reversed(store.generations(image)), None)
    if found is None:
        raise UserError(f"{image} has no generation yet", fix=f"kestrelpi images build {image}")
    result = outcome.read(found)
    if config.images[image].publish == "tested" and not untested and (result is None or not result.passed):
        raise UserError(
            f"{found.id} has not passed its test",
            where=f"images.{image}.publish: tested",
            fix=f"kestrelpi images test {image} {found.id}; or add --untested",
        )
    refuse(examine(paths, config, found), found)
    return found


def roll_back(paths: Paths, image: str, to: Generation | None) -> Generation:
    """Make `to` the one that all boot.

    Without it: what the canary group has is given up; else the generation before the current one. Raises UserError.
    """
    store = Store(paths)
    current = store.current(image)
    if current is None:
        raise UserError(f"{image} has no generation yet", fix=f"kestrelpi images build {image}")
    if to is None and store.canary(image):
        to = current
    earlier = [one for one in store.generations(image) if one.id < current.id]
    if to is None and not earlier:
        raise UserError(f"{image} has no generation before {current.id}", fix=f"kestrelpi images list {image}")
    chosen = to or earlier[-1]
    publish(paths, chosen)
    return chosen
