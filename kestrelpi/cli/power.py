"""`kestrelpi nodes wake|halt|reboot`: start and stop nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.naming import complete_nodes, named_nodes
from kestrelpi.errors import UserError
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.halting import Enter, halt_by_ssh, restart
from kestrelpi.nodes.power import Driver, driver, switch
from kestrelpi.nodes.registry import Node, Registry

Command = Callable[..., Any]


def _several(function: Command) -> Command:
    """The arguments of a command for nodes by name, or a group of them."""
    argument = click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=complete_nodes)
    return argument(click.option("--group", default="", metavar="NAME", help="All nodes of this group.")(function))


@click.command()
@_several
@pass_context
def wake(ctx: Context, names: tuple[str, ...], group: str) -> None:
    """Switch nodes on, one after the other. How: `power` in kestrelpi.yaml."""
    nodes = _nodes(ctx, names, group)
    halt = halt_by_ssh(_enter(ctx), ctx.config.power)
    done = switch(nodes, "on", driver(ctx.config), ctx.config.power, halt)
    _tell(ctx, ((one.node, "on", one.error) for one in done), "switched on")


@click.command()
@_several
@pass_context
def halt(ctx: Context, names: tuple[str, ...], group: str) -> None:
    """Shut nodes down; where `power` in kestrelpi.yaml says how, their power is cut then."""
    nodes, by = _nodes(ctx, names, group), _driver(ctx)
    done = switch(nodes, "off", by, ctx.config.power, halt_by_ssh(_enter(ctx), ctx.config.power))
    _tell(ctx, ((one.node, "off" if by else "halted", one.error) for one in done), "halted")


@click.command()
@_several
@pass_context
def reboot(ctx: Context, names: tuple[str, ...], group: str) -> None:
    """Start nodes again; one that does not answer loses its power for a moment: `power` in kestrelpi.yaml says how."""
    done = restart(_nodes(ctx, names, group), _driver(ctx), _enter(ctx), ctx.config.power)
    _tell(ctx, ((one.node, one.how, one.error) for one in done), "rebooted")


def _nodes(ctx: Context, names: tuple[str, ...], group: str) -> list[Node]:
    return named_nodes(ctx.config, Registry.load(ctx.paths.registry, ctx.config), names, group)


def _driver(ctx: Context) -> Driver | None:
    return None if ctx.config.power.driver == "none" else driver(ctx.config)


def _enter(ctx: Context) -> Enter:
    return partial(ssh_command, ctx.paths, ctx.config)


def _tell(ctx: Context, done: Iterable[tuple[Node, str, str]], what: str) -> None:
    """Say what became of each node; raises UserError when one failed."""
    rows = []
    for node, state, error in done:
        ctx.say(f"{node.name}: {error or state}")
        rows.append({"name": node.name, "state": "" if error else state, "error": error})
    if ctx.json:
        ctx.document(rows)
    failed = [row["name"] for row in rows if row["error"]]
    if failed:
        raise UserError(f"could not be {what}: {', '.join(failed)}")
