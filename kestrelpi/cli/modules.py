"""`kestrelpi modules`: list, show, enable, disable."""

from __future__ import annotations

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.table import print_table
from kestrelpi.config import parse
from kestrelpi.config.edit import set_modules
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.images.modules import Module, available, of_image
from kestrelpi.images.options import text_of


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
        "folders": list(map(str, module.folders)),
        "options": {
            name: {"type": one.type, "default": one.default, "choices": list(one.choices), "help": one.help}
            for name, one in manifest.options.items()
        },
    }
