"""`kestrelpi reconfigure`: bring the frontend and the images to the configuration."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from kestrelpi import reconfigure
from kestrelpi.cli.context import Context, pass_context
from kestrelpi.files import locked
from kestrelpi.frontend.machine import machine, serving
from kestrelpi.nodes.finding import find_image
from kestrelpi.reconfigure import BuiltImages, Frontend, Plan, Selection

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.option("--all", "everything", is_flag=True, help="The frontend and every image (the default).")
@click.option("--frontend", is_flag=True, help="The frontend's files and services.")
@click.option("--image", "images", multiple=True, metavar="NAME", help="This image; may be given again.")
@click.option("--force", is_flag=True, help="Write every file and re-run every configure phase.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, as a diff of each file; do nothing.")
@click.option("--init", is_flag=True, help="First write a default configuration and install packages, if need be.")
@pass_context
def command(
    ctx: Context, everything: bool, frontend: bool, images: tuple[str, ...], force: bool, only_plan: bool, init: bool
) -> None:
    """Bring the frontend and the images to the configuration. Doing it twice changes nothing the second time."""
    if init and only_plan:
        raise click.UsageError("--init writes and installs: it can't be planned")
    if init and reconfigure.default_configuration(ctx.config_path):
        ctx.say(f"wrote {ctx.config_path}: set network.address there")
    selection = _selection(ctx, everything or not (frontend or images), frontend, images, force)
    steps = _Steps(ctx)
    built = BuiltImages(ctx.paths, ctx.config, str(ctx.config_path), steps.report)
    front = Frontend(ctx.paths, ctx.config, machine(ctx.paths, ctx.config), serving(ctx.paths), built)
    if only_plan:
        with tempfile.TemporaryDirectory(prefix="kestrelpi.") as logs:
            staged = reconfigure.stage(front, Path(logs), lambda what, seconds: None) if selection.frontend else None
        _show(ctx, reconfigure.make_plan(front, selection, staged))
        return
    with locked(ctx.paths.run / "reconfigure.lock", "kestrelpi reconfigure"):
        _do(ctx, front, selection, init, steps)


class _Steps:
    """Says each step as it is done, and keeps them for --json."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.done: list[dict[str, object]] = []

    def report(self, what: str, seconds: float) -> None:
        self.done.append({"what": what, "seconds": round(seconds, 3)})
        self.ctx.say(f"{seconds:7.1f} s  {what}")


def _selection(ctx: Context, everything: bool, frontend: bool, images: tuple[str, ...], force: bool) -> Selection:
    for name in images:
        find_image(ctx.config, name)
    chosen = tuple(ctx.config.images) if everything else tuple(dict.fromkeys(images))
    return Selection(everything or frontend, chosen, force, named=not everything)


def _do(ctx: Context, front: Frontend, selection: Selection, init: bool, steps: _Steps) -> None:
    logs = ctx.paths.log / "frontend"
    if init and selection.frontend:
        reconfigure.install(front, logs / "install", steps.report)
    staged = reconfigure.stage(front, logs / "configure", steps.report) if selection.frontend else None
    plan = reconfigure.make_plan(front, selection, staged)
    reconfigure.carry_out(front, plan, selection, steps.report)
    for remark in plan.remarks:
        ctx.say(f"note: {remark}")
    if plan.empty:
        ctx.say("Nothing changed.")
    if ctx.json:
        ctx.document({**_document(plan), "done": steps.done})


def _show(ctx: Context, plan: Plan) -> None:
    if ctx.json:
        ctx.document(_document(plan))
        return
    for change in plan.files:
        lines = (click.style(f"  {line}", fg=COLOURS.get(line[:1])) for line in change.diff().splitlines())
        # in one go: a line each of 10,000 nodes would take a second
        click.echo(
            "\n".join((f"{change.kind} {change.name}", *lines)), color=False if os.environ.get("NO_COLOR") else None
        )
    for image, reasons in plan.images.items():
        click.echo(f"build image {image}")
        for reason in reasons:
            click.echo(f"  {reason}")
    for reload in plan.reloads:
        click.echo(reload.what)
    for remark in plan.remarks:
        ctx.say(f"note: {remark}")
    if plan.empty:
        ctx.say("Nothing would change.")


def _document(plan: Plan) -> dict[str, object]:
    return {
        "files": [{"path": one.name, "change": one.kind, "diff": one.diff()} for one in plan.files],
        "images": {name: list(reasons) for name, reasons in plan.images.items()},
        "reloads": [one.what for one in plan.reloads],
        "remarks": list(plan.remarks),
    }
