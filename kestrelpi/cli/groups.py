"""`kestrelpi groups`: list, show."""

from __future__ import annotations

from collections import Counter

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.table import print_table
from kestrelpi.nodes.finding import find_group
from kestrelpi.nodes.registry import Registry


@click.group()
def command() -> None:
    """List groups of nodes. They are defined in kestrelpi.yaml."""


@command.command("list")
@pass_context
def list_(ctx: Context) -> None:
    """All groups."""
    counts = Counter(node.group for node in Registry.load(ctx.paths.registry, ctx.config))
    groups = ctx.config.groups
    if ctx.json:
        ctx.document([_document(ctx, name, counts[name]) for name in groups])
        return
    rows = [(name, f"{ctx.config.prefix(name)}N", group.image, str(counts[name])) for name, group in groups.items()]
    print_table(("GROUP", "NAMES", "IMAGE", "NODES"), rows)


@command.command()
@click.argument("name")
@pass_context
def show(ctx: Context, name: str) -> None:
    """One group: its options and its nodes."""
    group = find_group(ctx.config, name)
    nodes = [node for node in Registry.load(ctx.paths.registry, ctx.config) if node.group == name]
    if ctx.json:
        ctx.document({**_document(ctx, name, len(nodes)), "names": [node.name for node in nodes]})
        return
    click.echo(f"names     {ctx.config.prefix(name)}N")
    click.echo(f"image     {group.image}")
    click.echo(f"cmdline   {group.cmdline or '-'}")
    click.echo(f"config    {'; '.join(group.config_txt) or '-'}")
    click.echo(f"nodes     {' '.join(node.name for node in nodes) or '-'}")


def _document(ctx: Context, name: str, count: int) -> dict[str, object]:
    group = ctx.config.groups[name]
    return {
        "name": name,
        "prefix": ctx.config.prefix(name),
        "image": group.image,
        "cmdline": group.cmdline,
        "config_txt": list(group.config_txt),
        "nodes": count,
    }
