"""`kestrelpi apt`: install, remove and upgrade packages of an image; its history, and how to take a change back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.table import print_table
from kestrelpi.errors import UserError

if TYPE_CHECKING:
    from kestrelpi.images.apt import Proposal
    from kestrelpi.images.apt_history import Entry
    from kestrelpi.images.compare import Change
    from kestrelpi.images.store import Generation
    from kestrelpi.images.watcher import Watcher
    from kestrelpi.images.workshop import Versions
    from kestrelpi.releasing.outcome import Outcome

Command = Callable[..., Any]


@click.group()
def command() -> None:
    """Install, remove and upgrade packages of an image, with a history."""


def image_option(function: Command) -> Command:
    return click.option("--image", default="default", metavar="NAME", show_default=True, help="Of which image.")(
        function
    )


def plan_option(function: Command) -> Command:
    return click.option("--plan", "only_plan", is_flag=True, help="Show what would change; change nothing.")(function)


@command.command()
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE…")
@image_option
@plan_option
@pass_context
def install(ctx: Context, packages: tuple[str, ...], image: str, only_plan: bool) -> None:
    """Put packages on the image's list and build it. Other packages stay at their versions where they can."""
    from kestrelpi.images import apt

    _check_image(ctx, image)
    _go(ctx, lambda watch: apt.propose_install(ctx.paths, ctx.config, image, packages, watch), only_plan)


@command.command()
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE…")
@image_option
@plan_option
@pass_context
def remove(ctx: Context, packages: tuple[str, ...], image: str, only_plan: bool) -> None:
    """Take packages off the image's list, or out of what other lists ask for, and build it."""
    from kestrelpi.images import apt

    _check_image(ctx, image)
    _go(ctx, lambda watch: apt.propose_remove(ctx.paths, ctx.config, image, packages, watch), only_plan)


@command.command()
@image_option
@plan_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_context
def upgrade(ctx: Context, image: str, only_plan: bool, yes: bool) -> None:
    """Show which packages have newer versions, ask, and build the image with them."""
    from kestrelpi.images import apt

    _check_image(ctx, image)
    _go(ctx, lambda watch: apt.propose_upgrade(ctx.paths, ctx.config, image, watch), only_plan, ask=not yes)


@command.command()
@click.argument("id", type=int, required=False)
@image_option
@plan_option
@pass_context
def undo(ctx: Context, id: int | None, image: str, only_plan: bool) -> None:
    """Take back what an entry of the history did; default: the last one."""
    from kestrelpi.images import apt

    _check_image(ctx, image)
    _go(ctx, lambda watch: apt.propose_undo(ctx.paths, ctx.config, image, id), only_plan)


@command.command()
@click.argument("id", type=int, required=False)
@image_option
@pass_context
def history(ctx: Context, id: int | None, image: str) -> None:
    """What was done, when and by whom, and the generations before and after; with ID: what changed then."""
    from kestrelpi.images import apt_history

    _check_image(ctx, image)
    path = apt_history.path_of(ctx.paths, image)
    entries = apt_history.read(path)
    if id is not None:
        _show_entry(ctx, apt_history.find(path, id))
    elif ctx.json:
        ctx.document([asdict(one) for one in entries])
    else:
        rows = [
            (str(one.id), one.when, one.who, one.action, " ".join(one.names), one.before, one.after) for one in entries
        ]
        print_table(("ID", "WHEN", "WHO", "WHAT", "PACKAGES", "BEFORE", "AFTER"), rows)


def _check_image(ctx: Context, image: str) -> None:
    names = list(ctx.config.images)
    if image not in names:
        raise UserError(f"there is no image {image!r}", where=str(ctx.config_path), fix=f"images: {', '.join(names)}")


def _go(ctx: Context, propose: Callable[[Watcher], Proposal], only_plan: bool, ask: bool = False) -> None:
    """Propose, show, perhaps ask, carry out."""
    from kestrelpi.cli import build_watch
    from kestrelpi.images import apt

    with build_watch.watcher(ctx) as watch:
        watch.work("Working out what would change")
        proposal = propose(watch)
    nothing = proposal.is_nothing(ctx.paths)
    if only_plan and ctx.json:
        ctx.document({"image": proposal.image, "changes": [asdict(one) for one in proposal.changes]})
    elif not ctx.json:
        show_changes(proposal.changes)
    if only_plan or nothing:
        if ctx.json and not only_plan:
            ctx.document({"image": proposal.image, "changes": []})
        return
    if ask:
        click.confirm("Build the image with these?", abort=True, err=True)
    with build_watch.watcher(ctx) as watch:
        entry = apt.carry_out(ctx.paths, ctx.config, proposal, partial(_make, ctx, proposal.image, watch))
    if ctx.json:
        ctx.document(asdict(entry))
    else:
        click.echo(
            f"{proposal.image}: {entry.after}; take it back: kestrelpi apt undo {entry.id} --image {proposal.image}"
        )


def _make(ctx: Context, image: str, watch: Watcher, force: str, versions: Versions) -> Generation:
    """Build and publish as the configuration says."""
    from kestrelpi.releasing import making, trial

    def attempt(generation: Generation) -> Outcome:
        return trial.attempt(ctx.paths, ctx.config, ctx.config_path, generation, ctx.say)

    made = making.make(
        ctx.paths,
        ctx.config,
        image,
        force=force,
        watch=watch,
        where=str(ctx.config_path),
        attempt=attempt,
        versions=versions,
    )
    return made.generation


def show_changes(changes: tuple[Change, ...]) -> None:
    """Packages that come, go, or get another version."""
    if not changes:
        click.echo("no package changes")
        return
    print_table(("PACKAGE", "OLD", "NEW"), [(one.name, one.old, one.new) for one in changes])


def _show_entry(ctx: Context, entry: Entry) -> None:
    if ctx.json:
        ctx.document(asdict(entry))
        return
    click.echo(f"{entry.id}: {entry.action} {' '.join(entry.names)}  ({entry.who}, {entry.when})")
    click.echo(f"{entry.before or '-'} → {entry.after}")
    show_changes(entry.changes)
