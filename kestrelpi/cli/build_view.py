"""How the results of builds are shown: tables, or one document with --json."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import click

from kestrelpi.cli.build_watch import Lines, short
from kestrelpi.cli.context import Context
from kestrelpi.cli.release_view import print_flaw
from kestrelpi.cli.table import print_table
from kestrelpi.images import lock
from kestrelpi.images.chain import Step
from kestrelpi.images.compare import Change, Difference
from kestrelpi.images.manifest import NAME
from kestrelpi.images.plan import BuildPlan
from kestrelpi.images.store import Generation
from kestrelpi.releasing.making import Made
from kestrelpi.releasing.overview import Row

MEGA = 1e6


def show_result(ctx: Context, made: Made, watch: Lines) -> None:
    """The end of a build."""
    generation = made.generation
    boots = f"is what the group {made.canary} boots" if made.canary else "is current"
    for flaw in made.warnings:
        print_flaw(ctx, flaw)
    seconds = round(time.monotonic() - watch.began, 2)
    if ctx.json:
        steps = [asdict(record) for record in watch.records]
        ctx.document(
            {
                "image": generation.image,
                "id": generation.id,
                "changed": watch.changed,
                "canary": made.canary,
                "warnings": [flaw.document() for flaw in made.warnings],
                "seconds": seconds,
                "steps": steps,
            }
        )
    elif watch.changed:
        print_table(
            ("PHASE", "STEP", "FROM", "SECONDS", "WHY"),
            [
                (one.phase, one.name, one.origin, "kept" if one.cached else f"{one.seconds:.1f}", short(one.stale))
                for one in watch.records
            ],
        )
        click.echo(f"{generation.image}: {generation.id} {boots} ({seconds:.1f} s)")
    else:
        click.echo(f"{generation.image}: nothing changed, {generation.id} {boots} ({seconds:.1f} s)")


def show_plan(ctx: Context, plan: BuildPlan) -> None:
    """What a build would do."""
    if ctx.json:
        steps = [_plan_step(step) for step in plan.steps]
        removed = [str(one.path) for one in plan.removed]
        ctx.document(
            {
                "image": plan.image,
                "suite": plan.suite,
                "up_to_date": plan.up_to_date,
                "steps": steps,
                "removed": removed,
            }
        )
        return
    rows = []
    for step in plan.steps:
        lists = f"{len(step.overrides)} lists" if step.overrides else ""
        source = str(step.path) if step.path else lists
        overrides = ", ".join(map(str, step.overrides)) if step.path else ""
        rows.append((step.phase, step.name, "keep" if step.cached else "run", short(step.stale), source, overrides))
    print_table(("PHASE", "STEP", "", "WHY", "FILE", "OVERRIDES"), rows)
    for one in plan.removed:
        click.echo(f"removed by an empty file: {one.name} ({one.path})")
    if plan.current is not None and plan.up_to_date:
        click.echo(f"nothing changed: {plan.current.id} is current")


def _plan_step(step: Step) -> dict[str, object]:
    return {
        "phase": step.phase,
        "name": step.name,
        "origin": step.origin,
        "path": str(step.path or ""),
        "overrides": [str(path) for path in step.overrides],
        "key": step.key,
        "cached": step.cached,
        "stale": step.stale,
    }


def show_generations(ctx: Context, rows: Sequence[Row], empty: Sequence[str]) -> None:
    """All generations of some images, and the images that have none."""
    if ctx.json:
        ctx.document([row.document() for row in rows])
        return
    print_table(
        ("IMAGE", "GENERATION", "", "CREATED", "SUITE", "KERNEL", "PACKAGES", "SIZE", "BOOT", "TEST", "NODES"),
        [_generation_row(row) for row in rows]
        + [(name, "not built yet", "", "", "", "", "", "", "", "", "") for name in empty],
    )


SHOWN = 3
"""So many names of nodes stand in a table."""


def _generation_row(row: Row) -> tuple[str, ...]:
    manifest = row.generation.manifest
    boot = sum(info.size for info in manifest.boot.values())
    more = f" and {len(row.nodes) - SHOWN} more" if len(row.nodes) > SHOWN else ""
    return (
        row.generation.image,
        row.generation.id,
        row.state,
        manifest.created,
        manifest.suite,
        manifest.kernel,
        str(len(manifest.packages)),
        f"{row.size / MEGA:.0f} MB",
        f"{boot / MEGA:.1f} MB",
        row.tested,
        " ".join(row.nodes[:SHOWN]) + more,
    )


def show_generation(ctx: Context, generation: Generation) -> None:
    """One generation whole."""
    manifest = generation.manifest
    if ctx.json:
        places = {"lock": str(generation.folder / lock.NAME), "sbom": str(generation.folder / NAME)}
        whole = {**asdict(manifest), "folder": str(generation.folder), **places}
        ctx.document({**whole, "build": asdict(generation.record)})
        return
    click.echo(f"{manifest.image} {manifest.id}: {manifest.suite}, kernel {manifest.kernel}, made {manifest.created}")
    click.echo(f"{len(manifest.packages)} packages, {manifest.files} files in {generation.root}")
    if generation.squashfs:
        size = sum(file.stat().st_size for file in generation.squashfs.iterdir())
        click.echo(f"nodes mount {size / MEGA:.0f} MB in {generation.squashfs}")
    click.echo(f"tree hash {manifest.tree}")
    for what, name in (("lock file", lock.NAME), ("bill of materials", NAME)):
        click.echo(f"{what} {generation.folder / name}")
    print_table(
        ("BOOT FILE", "BYTES", "SHA256"),
        [(name, str(info.size), info.sha256[:16]) for name, info in manifest.boot.items()],
    )
    print_table(
        ("PHASE", "STEP", "FROM", "SECONDS", "LOG"),
        [
            (one.phase, one.name, one.origin, "kept" if one.cached else f"{one.seconds:.1f}", one.log)
            for one in generation.record.steps
        ],
    )


def show_difference(ctx: Context, difference: Difference) -> None:
    """What changed between two generations."""
    if ctx.json:
        ctx.document(asdict(difference))
        return
    for title, changes in (
        ("PACKAGE", difference.packages),
        ("FILE", difference.files),
        ("BOOT FILE", difference.boot),
        ("CONFIGURATION", difference.configuration),
    ):
        if changes:
            print_table((title, "OLD", "NEW"), [_change_row(change) for change in changes])
    if not (difference.packages or difference.files or difference.boot or difference.configuration):
        click.echo("no difference")


def _change_row(change: Change) -> tuple[str, str, str]:
    return (change.name, change.old, change.new)
