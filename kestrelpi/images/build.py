"""Building an image: from the first step that changed to a generation that appears whole or not at all."""

from __future__ import annotations

import time
from pathlib import Path

from kestrelpi import run
from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import locked
from kestrelpi.images import account, forced, steps
from kestrelpi.images.added import PHASE, DoesNotFit
from kestrelpi.images.assemble import Gate, assemble
from kestrelpi.images.chain import Step
from kestrelpi.images.fetched import verify_all
from kestrelpi.images.layers import Draft, LayerInfo, Layers
from kestrelpi.images.lock import Lock
from kestrelpi.images.manifest import StepRecord
from kestrelpi.images.plan import PHASES, BuildPlan, plan
from kestrelpi.images.preflight import NO_SPACE, disk_errors, no_space, preflight
from kestrelpi.images.store import Generation, Store
from kestrelpi.images.watcher import Silent, Watcher
from kestrelpi.images.workshop import Chosen, Versions, Workshop, opened
from kestrelpi.paths import Paths


def build(
    paths: Paths,
    config: Config,
    image: str,
    *,
    force: str = "",
    watch: Watcher | None = None,
    where: str = "",
    gate: Gate | None = None,
    publish: bool = True,
    versions: Versions | None = None,
) -> Generation:
    """Build what changed and make the result current; without any change, return the generation that is there.

    `force`: name of the phase from which on everything runs anew, with the newest packages if that is among it;
    `publish`: False leaves it to the caller to make it current (releasing.making does). Raises UserError; the
    generation that was current still is then.
    """
    watch = watch or Silent()
    versions = versions or Versions()
    plan(paths, config, image, where, locked=versions.locked)  # what the user must mend is found first
    with locked(paths.state / "build.lock", "the image builder", wait=1.0), disk_errors(paths.state):
        if force:
            forced.remember(paths, image, force, PHASES)
        store, layers = Store(paths), Layers(paths.cache / "layers")
        layers.clean()
        store.clean()
        newest = bool(force) and PHASES.index(force) <= PHASES.index(PHASE)

        def attempt(*, whole: bool) -> Generation:
            todo = plan(paths, config, image, where, locked=versions.locked, whole=whole)
            keep = None if newest else versions.keep or account.kept_versions(todo.current, todo.suite)
            watch.begin(todo)
            generation = todo.made or make(paths, todo, watch, gate, keep, versions.chosen)
            account.keep_lock(paths, generation, todo)
            if publish:
                store.switch(generation)
            return generation

        try:
            return attempt(whole=False)
        except DoesNotFit:
            watch.line("the new packages don't go together with those that are there: installing all of them anew")
            return attempt(whole=True)


def make(
    paths: Paths, todo: BuildPlan, watch: Watcher, gate: Gate | None, keep: Lock | None, chosen: Chosen | None
) -> Generation:
    """Carry out a plan. The caller holds the build lock."""
    layers = Layers(paths.cache / "layers")
    if not all(step.cached for step in todo.steps):
        preflight(paths, todo)
        verify_all(todo.to_verify)  # again when they are used: but then the build has run for a while
    started = time.monotonic()
    with opened(paths, todo, layers, watch.line, keep, chosen) as shop:
        records = [run_step(todo, number, shop, paths, watch) for number in range(len(todo.steps))]
        seconds = time.monotonic() - started
        return assemble(todo, layers, Store(paths), records, seconds, shop.folder, watch, gate)


def run_step(plan: BuildPlan, number: int, shop: Workshop, paths: Paths, watch: Watcher) -> StepRecord:
    """Carry out one step unless its layer is there, and seal the layer."""
    step = plan.steps[number]
    log = log_path(paths, plan.image, shop.started, step)
    watch.start(step)
    begun = time.monotonic()
    if not step.cached:
        below = [one.key for one in plan.steps[:number]]
        with shop.layers.draft(step.key) as draft:
            epoch = carry_out(step, below, draft, shop, log)
            seconds = round(time.monotonic() - begun, 3)
            info = LayerInfo(step.key, step.phase, step.name, step.fields, seconds, epoch=epoch)
            shop.layers.seal(draft, info)
    record = StepRecord(
        step.phase,
        step.name,
        step.origin,
        str(step.path or ""),
        tuple(str(one) for one in step.overrides),
        step.key,
        step.cached,
        step.stale,
        round(time.monotonic() - begun, 3),
        "" if step.cached else str(log),
    )
    watch.done(record)
    return record


def carry_out(step: Step, below: list[str], draft: Draft, shop: Workshop, log: Path) -> int:
    """One step; a command's failure becomes an error that names the script, its last lines and the log."""
    try:
        epoch = steps.carry_out(step, below, draft, shop, log)
        steps.check_layer(draft.tree)
    except run.CommandFailed as error:
        if NO_SPACE in error.detail:
            raise no_space(shop.layers.folder, steps.free_bytes(shop.layers.folder)) from error
        raise UserError(
            f"{step.phase} {step.name} failed with status {error.returncode}",
            where=str(step.path or step.name),
            detail=error.detail,
            fix="\n  ".join([f"the whole log: {log}", *shell_at(shop.plan.image, step)]),
        ) from error
    return epoch


def shell_at(image: str, step: Step) -> list[str]:
    """A line with the command that opens a shell at a step; none for the first, before which there is no root."""
    command = f"kestrelpi images shell {image} --at {step.phase}/{step.name}"
    return [] if step.kind == "bootstrap" else [f"a shell where it failed: {command}"]


def log_path(paths: Paths, image: str, started: str, step: Step) -> Path:
    return paths.log / "images" / image / started / f"{step.phase}-{step.name}.log"
