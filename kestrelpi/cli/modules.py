"""`kestrelpi modules`: list, show, enable, disable, fetch."""

from __future__ import annotations

from pathlib import Path

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.fetch_view import bring_all, show_wanted
from kestrelpi.cli.table import print_table
from kestrelpi.config import parse
from kestrelpi.config.edit import set_modules
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.images.fetch import from_folder, from_web
from kestrelpi.images.fetched import Fetched, of_images, of_module
from kestrelpi.images.fetched import folder as cache_folder
from kestrelpi.images.modules import Module, available, of_image
from kestrelpi.images.options import text_of, values


@click.group()
def command() -> None:
    """List, show, enable and disable modules: what nodes can do."""


@command.command("list")
@pass_context
def list_(ctx: Context) -> None:
    """All modules, and the images that have them."""
    found = available(ctx.paths)
    users = _users(ctx)
    if ctx.json:
        ctx.document([_document(module, users.get(name, [])) for name, module in found.items()])
        return
    rows = [(name, " ".join(users.get(name, [])), module.help) for name, module in found.items()]
    print_table(("MODULE", "IMAGES", "WHAT"), rows)


@command.command()
@click.argument("name")
@pass_context
def show(ctx: Context, name: str) -> None:
    """One module: its options with their defaults, what it needs, where it lies."""
    module = _find(ctx, name)
    images = _users(ctx).get(name, [])
    if ctx.json:
        ctx.document(_document(module, images))
        return
    manifest = module.manifest
    click.echo(f"{name}: {module.help}")
    click.echo(f"images     {' '.join(images) or '-'}")
    click.echo(f"needs      {' '.join(manifest.needs) or '-'}")
    click.echo(f"conflicts  {' '.join(manifest.conflicts) or '-'}")
    click.echo(f"fetches    {' '.join(manifest.fetch) or '-'}")
    click.echo(f"folders    {' '.join(map(str, module.folders))}")
    for option, declared in manifest.options.items():
        kind = " | ".join(declared.choices) if declared.choices else declared.type
        click.echo(f"\n  {option} ({kind}, default {declared.default or 'empty'})\n    {declared.help}")
        for image in images:
            click.echo(f"    {image}: {text_of(of_image(ctx.paths, ctx.config, image).values(name)[option])}")


@command.command()
@click.argument("name")
@click.option("--image", default="default", metavar="IMAGE", show_default=True, help="The image that gets it.")
@pass_context
def enable(ctx: Context, name: str, image: str) -> None:
    """Give an image a module, with the modules that it needs; kestrelpi.yaml is changed, comments stay."""
    _find(ctx, name)
    _change(ctx, name, image, True)


@command.command()
@click.argument("name")
@click.option("--image", default="default", metavar="IMAGE", show_default=True, help="The image that loses it.")
@pass_context
def disable(ctx: Context, name: str, image: str) -> None:
    """Take a module from an image."""
    _change(ctx, name, image, False)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Take the files from this folder, such as a USB stick, not from the web.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Only say what is wanted and what is there.")
@pass_context
def fetch(ctx: Context, names: tuple[str, ...], folder: Path | None, only_plan: bool) -> None:
    """Bring files that modules need and Debian doesn't have; each must have its SHA-256."""
    wanted = _wanted(ctx, names)
    if only_plan:
        show_wanted(ctx, wanted)
        return
    if not wanted and not ctx.json:
        ctx.say("no enabled module needs a file that Debian doesn't have")
    bring_all(ctx, wanted, from_folder(folder) if folder else from_web)


def _wanted(ctx: Context, names: tuple[str, ...]) -> list[Fetched]:
    """What the modules called `names` fetch (all modules of the images, without names), as the images' options say; a
    module that no image has, as its defaults say."""
    found = of_images(ctx.paths, ctx.config)
    if not names:
        return found
    chosen = [one for one in found if one.module in names]
    for name in names:
        module = _find(ctx, name)
        if not module.manifest.fetch:
            raise UserError(f"the module {name} fetches nothing")
        if not any(one.module == name for one in found):
            defaults = values(module.manifest.options, {})
            chosen += of_module(module, defaults, cache_folder(ctx.paths, ctx.config)).values()
    return chosen


def _change(ctx: Context, name: str, image: str, on: bool) -> None:
    if image not in ctx.config.images:
        raise UserError(f"there is no image {image!r}", fix=f"images: {', '.join(ctx.config.images)}")
    before = ctx.config.images[image].modules
    if (name in before) == on:
        ctx.say(f"{name} is {'already' if on else 'not'} among the modules of {image}")
        return
    wanted = (*before, name) if on else tuple(one for one in before if one != name)
    text = set_modules(ctx.config_path.read_text(encoding="utf-8"), image, wanted, str(ctx.config_path))
    found = of_image(ctx.paths, parse(text, str(ctx.config_path)), image)
    if not on and name in found:
        ctx.say(f"{name} stays: another module of {image} needs it")
    write_whole(ctx.config_path, text, ctx.config_path.stat().st_mode & 0o777)
    ctx.say(f"the modules of {image}: {', '.join(module.name for module in found)}")
    ctx.say("now: kestrelpi reconfigure --all, and restart the nodes")


def _find(ctx: Context, name: str) -> Module:
    found = available(ctx.paths)
    if name not in found:
        raise UserError(f"there is no module {name!r}", fix=f"modules: {', '.join(found)}")
    return found[name]


def _users(ctx: Context) -> dict[str, list[str]]:
    """Module → images that have it."""
    users: dict[str, list[str]] = {}
    for image in ctx.config.images:
        for module in of_image(ctx.paths, ctx.config, image):
            users.setdefault(module.name, []).append(image)
    return users


def _document(module: Module, images: list[str]) -> dict[str, object]:
    manifest = module.manifest
    return {
        "name": module.name,
        "help": module.help,
        "images": images,
        "needs": list(manifest.needs),
        "conflicts": list(manifest.conflicts),
        "fetches": list(manifest.fetch),
        "folders": list(map(str, module.folders)),
        "options": {
            name: {"type": one.type, "default": one.default, "choices": list(one.choices), "help": one.help}
            for name, one in manifest.options.items()
        },
    }
