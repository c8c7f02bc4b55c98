"""`kestrelpi users`: add, remove, list."""

from __future__ import annotations

from dataclasses import asdict

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.table import print_table
from kestrelpi.nodes.registry import Registry
from kestrelpi.users import changing
from kestrelpi.users.registry import load


@click.group()
def command() -> None:
    """Users of the cluster: the same uid and home everywhere."""


@command.command()
@click.argument("name")
@click.option("--uid", type=click.IntRange(1000, 59999), default=None, help="Default: the next free one.")
@click.option("--comment", default="", metavar="TEXT", help="The full name.")
@pass_context
def add(ctx: Context, name: str, uid: int | None, comment: str) -> None:
    """Make a user who can log in on every node and submit jobs at once."""
    registry = Registry.load(ctx.paths.registry, ctx.config)
    user = changing.add(ctx.paths, ctx.config, name, uid, comment, registry)
    if ctx.json:
        ctx.document(asdict(user))
    else:
        ctx.say(f"{user.name}: uid {user.uid}, home {ctx.config.users.homes / user.name}")


@command.command()
@click.argument("name")
@click.option("--with-home", is_flag=True, help="Delete the home too.")
@pass_context
def remove(ctx: Context, name: str, with_home: bool) -> None:
    """Take a user away; the home stays."""
    user = changing.remove(ctx.paths, ctx.config, name, with_home, Registry.load(ctx.paths.registry, ctx.config))
    if ctx.json:
        ctx.document(asdict(user))
    else:
        ctx.say(f"removed {user.name} (uid {user.uid})")


@command.command("list")
@pass_context
def list_(ctx: Context) -> None:
    """All users."""
    users = load(ctx.paths)
    if ctx.json:
        ctx.document([asdict(user) for user in users.values()])
        return
    rows = [(u.name, str(u.uid), str(ctx.config.users.homes / u.name), u.comment) for u in users.values()]
    print_table(("NAME", "UID", "HOME", "COMMENT"), rows)
