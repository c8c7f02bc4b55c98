"""`kestrelpi images`: build, list, compare, roll back and enter images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.errors import ExitStatus, UserError

if TYPE_CHECKING:
    from kestrelpi.images.store import Generation
    from kestrelpi.releasing.outcome import Outcome


@click.group()
def command() -> None:
    """Build, list, compare and roll back images."""


def _only_image(ctx: Context, name: str | None) -> str:
    """The image that is meant when none is named: the only one, or the one called default."""
    names = list(ctx.config.images)
    if name is None:
        name = names[0] if len(names) == 1 else "default"
    if name not in names:
        raise UserError(f"there is no image {name!r}", where=str(ctx.config_path), fix=f"images: {', '.join(names)}")
    return name


@command.command()
@click.argument("name", required=False)
@click.option("--plan", "only_plan", is_flag=True, help="Show what would run, and why; change nothing.")
@click.option("--force", is_flag=True, help="Run everything anew, with the newest packages.")
@click.option(
    "--force-from",
    type=click.Choice(["bootstrap", "install", "packages", "post-install", "configure"]),
    default=None,
    help="Run this phase and those after it anew.",
)
@click.option("--locked", is_flag=True, help="Install just the packages of the image's lock file.")
@pass_context
def build(ctx: Context, name: str | None, only_plan: bool, force: bool, force_from: str | None, locked: bool) -> None:
    """Build what changed of the image NAME, and make the result the one that nodes boot."""
    from kestrelpi.cli import build_view, build_watch
    from kestrelpi.images.plan import plan
    from kestrelpi.images.workshop import Versions
    from kestrelpi.releasing import making

    image = _only_image(ctx, name)
    where = str(ctx.config_path)
    if only_plan:
        build_view.show_plan(ctx, plan(ctx.paths, ctx.config, image, where, locked=locked))
        return
    with build_watch.watcher(ctx) as watch:
        phase = force_from or ("bootstrap" if force else "")
        made = making.make(
            ctx.paths,
            ctx.config,
            image,
            force=phase,
            watch=watch,
            where=where,
            attempt=partial(_attempt, ctx),
            versions=Versions(locked=locked),
        )
    build_view.show_result(ctx, made, watch)


@command.command("list")
@click.argument("name", required=False)
@pass_context
def list_(ctx: Context, name: str | None) -> None:
    """List generations: what they are, whether they were tested, who boots them."""
    from kestrelpi.cli import build_view
    from kestrelpi.images.store import Store
    from kestrelpi.nodes.registry import Registry
    from kestrelpi.releasing import overview

    store = Store(ctx.paths)
    names = [name] if name else sorted({*ctx.config.images, *store.images()})
    found = overview.rows(store, ctx.config, Registry.load(ctx.paths.registry, ctx.config), names)
    build_view.show_generations(ctx, found, [one for one in names if not store.generations(one)])


@command.command()
@click.argument("name")
@click.argument("id", required=False)
@pass_context
def show(ctx: Context, name: str, id: str | None) -> None:
    """Show a generation: kernel, packages, boot files, steps. ID: all of it or one end; default: the current one."""
    from kestrelpi.cli import build_view

    build_view.show_generation(ctx, _generation(ctx, name, id))


@command.command()
@click.argument("name")
@click.argument("old")
@click.argument("new", required=False)
@pass_context
def diff(ctx: Context, name: str, old: str, new: str | None) -> None:
    """Compare the generations OLD and NEW (default: the current one): packages, files, boot files, configuration."""
    from kestrelpi.cli import build_view
    from kestrelpi.images.compare import compare
    from kestrelpi.images.layers import Layers

    layers = Layers(ctx.paths.cache / "layers")
    build_view.show_difference(ctx, compare(_generation(ctx, name, old), _generation(ctx, name, new), layers))


@command.command()
@click.argument("name")
@click.argument("id", required=False)
@pass_context
def rollback(ctx: Context, name: str, id: str | None) -> None:
    """Give all nodes the generation ID at their next boot.

    Default: take back what only the canary group has; else the generation before the current one.
    """
    from kestrelpi.releasing import making

    generation = making.roll_back(ctx.paths, name, _generation(ctx, name, id) if id else None)
    if ctx.json:
        ctx.document({"image": name, "current": generation.id})
    else:
        click.echo(f"{name}: {generation.id} is current; nodes get it when they boot")


@command.command()
@click.argument("name")
@click.argument("id", required=False)
@click.option("--untested", is_flag=True, help="Also one that has not passed its test.")
@pass_context
def publish(ctx: Context, name: str, id: str | None, untested: bool) -> None:
    """Give all nodes the generation ID at their next boot; default: what the canary group has, else the newest."""
    from kestrelpi.releasing import making

    generation = making.to_publish(ctx.paths, ctx.config, name, id or "", untested=untested)
    making.publish(ctx.paths, generation)
    if ctx.json:
        ctx.document({"image": name, "current": generation.id})
    else:
        click.echo(f"{name}: {generation.id} is current; nodes get it when they boot")


@command.command()
@click.argument("name")
@click.argument("id", required=False)
@pass_context
def lint(ctx: Context, name: str, id: str | None) -> None:
    """Check that a generation's parts belong together and that your Pis could boot it; status 1 if not."""
    from kestrelpi.cli import release_view
    from kestrelpi.releasing.lint import lint as examine

    generation = _generation(ctx, name, id)
    if release_view.show_flaws(ctx, generation, examine(ctx.paths, ctx.config, generation)):
        raise SystemExit(ExitStatus.FAILED)


@command.command()
@click.argument("name")
@click.argument("id", required=False)
@pass_context
def test(ctx: Context, name: str, id: str | None) -> None:
    """Boot a generation on an emulated Pi and check it; default: the newest. Status 1 if it fails."""
    from kestrelpi.cli import release_view
    from kestrelpi.images.store import Store

    newest = Store(ctx.paths).generations(name)[-1:]
    generation = _generation(ctx, name, id or (newest[0].id if newest else None))
    result = _attempt(ctx, generation)
    release_view.show_outcome(ctx, generation, result)
    if not result.passed:
        raise SystemExit(ExitStatus.FAILED)


def _attempt(ctx: Context, generation: Generation) -> Outcome:
    from kestrelpi.releasing import trial

    return trial.attempt(ctx.paths, ctx.config, ctx.config_path, generation, ctx.say)


@command.command()
@click.argument("name")
@click.argument("id")
@pass_context
def remove(ctx: Context, name: str, id: str) -> None:
    """Remove the generation ID of the image NAME. Never one that is current, pinned or booted."""
    from kestrelpi.images.layers import remove_tree
    from kestrelpi.images.store import Store
    from kestrelpi.nodes.running import holding_used

    generation = _generation(ctx, name, id)
    with holding_used(ctx.paths, ctx.config) as used:
        if (name, generation.id) in used:
            raise UserError(f"a node is pinned to {generation.id}, or runs it", fix="see: kestrelpi nodes list")
        withdrawn = Store(ctx.paths).withdraw(generation)
    remove_tree(withdrawn)
    if ctx.json:
        ctx.document({"image": name, "removed": generation.id})
    else:
        click.echo(f"{name}: removed {generation.id}")


@command.command()
@click.argument("name")
@click.argument("id", required=False)
@click.option("--at", metavar="SCRIPT", help="Where this script of the next build would run, instead of it.")
@click.option("--save", metavar="SCRIPT", help="Keep what is changed as this script, such as 80-by-hand, unasked.")
@pass_context
def shell(ctx: Context, name: str, id: str | None, at: str | None, save: str | None) -> None:
    """Open a shell inside a generation; what is changed there can be kept as a script for the next builds."""
    from kestrelpi.cli import keeping
    from kestrelpi.images import enter

    if at:
        if id or save:
            raise click.UsageError("--at goes with neither an ID nor --save: what is done there is thrown away")
        raise SystemExit(enter.shell_at(ctx.paths, ctx.config, _only_image(ctx, name), at, str(ctx.config_path)))
    if save:
        keeping.check_name(ctx, name, save)
    left = enter.shell(ctx.paths, _generation(ctx, name, id))
    keeping.offer(ctx, name, left.changes, save)


@command.command()
@click.option("--keep", default=3, show_default=True, help="Generations of each image to keep beside those in use.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would go; remove nothing.")
@pass_context
def gc(ctx: Context, keep: int, only_plan: bool) -> None:
    """Remove old generations that no node needs, and kept results that no generation uses."""
    from kestrelpi.images import tidy
    from kestrelpi.nodes.registry import Registry
    from kestrelpi.nodes.running import holding_used, used

    if only_plan:
        registry = Registry.load(ctx.paths.registry, ctx.config)
        rubbish = tidy.find(ctx.paths, keep, used(ctx.paths, ctx.config, registry))
    else:
        rubbish = tidy.collect(ctx.paths, keep, partial(holding_used, ctx.paths, ctx.config))
    if ctx.json:
        generations = [{"image": one.image, "id": one.id} for one in rubbish.generations]
        ctx.document({"plan": only_plan, "generations": generations, "layers": list(rubbish.layers)})
        return
    for generation in rubbish.generations:
        click.echo(f"{generation.image}  {generation.id}")
    verb = "would go" if only_plan else "removed"
    click.echo(f"{len(rubbish.generations)} generations and {len(rubbish.layers)} layers {verb}")


def _generation(ctx: Context, name: str, id: str | None) -> Generation:
    """The generation that is meant; without an id the current one."""
    from kestrelpi.images.store import Store

    store = Store(ctx.paths)
    if id and id != "current":
        return store.generation(name, id)
    current = store.current(name)
    if current is None:
        raise UserError(
            f"{name} has no generation yet", where=str(store.folder(name)), fix=f"kestrelpi images build {name}"
        )
    return current
