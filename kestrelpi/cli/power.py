"""`kestrelpi nodes power`: switch nodes on and off."""

from __future__ import annotations

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.errors import UserError
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.finding import find_node
from kestrelpi.nodes.power import State, driver, halt_by_ssh, switch
from kestrelpi.nodes.registry import Node, Registry


@click.command()
@click.argument("state", type=click.Choice(["on", "off"]))
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@pass_context
def power(ctx: Context, state: State, names: tuple[str, ...]) -> None:
    """Switch nodes on, one after the other, or halt them and switch them off. How: `power` in kestrelpi.yaml."""
    registry = Registry.load(ctx.paths.registry, ctx.config)
    nodes = [find_node(registry, name) for name in names]

    def enter(node: Node) -> list[str]:
        return ssh_command(ctx.paths, ctx.config, node)

    done = []
    for one in switch(nodes, state, driver(ctx.config), ctx.config.power, halt_by_ssh(enter, ctx.config.power)):
        done.append(one)
        ctx.say(f"{one.node.name}: {one.error or state}")
    if ctx.json:
        ctx.document([{"name": one.node.name, "state": one.state, "error": one.error} for one in done])
    failed = [one.node.name for one in done if one.error]
    if failed:
        raise UserError(f"could not be switched {state}: {', '.join(failed)}")
