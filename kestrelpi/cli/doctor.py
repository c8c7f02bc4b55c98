"""`kestrelpi doctor`: what is wrong, the likely cause, the fix."""

from __future__ import annotations

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.naming import complete_nodes
from kestrelpi.cli.table import print_finding
from kestrelpi.config import parse_mac
from kestrelpi.finding import worst_first
from kestrelpi.nodes import boots
from kestrelpi.nodes.finding import find_node
from kestrelpi.nodes.registry import Node, Registry


@click.command()
@click.argument("name", required=False, default="", metavar="[NODE]", shell_complete=complete_nodes)
@pass_context
def command(ctx: Context, name: str) -> None:
    """Examine the frontend, and what was seen of NODE (a name, or the MAC of any Pi) or of all Pis.

    Ends with 0 when nothing is wrong, 1 with warnings only, 2 with something that keeps a Pi from booting.
    """
    from kestrelpi.frontend.doctor import examine, examine_nodes

    report, _, registry = examine(ctx.paths, ctx.config_path)
    only = _find(ctx, registry, name) if name else ""
    examine_nodes(report, ctx.paths, registry, only)
    if ctx.json:
        ctx.document(report.document())
    else:
        for finding in worst_first(report.findings):
            print_finding(ctx, finding)
        click.echo(f"\nlooked at: {', '.join(report.checked)}")
        if not report.findings:
            click.echo("nothing is wrong")
    raise SystemExit(int(report.worst))


def _find(ctx: Context, registry: Registry, name: str) -> Node | str:
    """A node, or the MAC of a Pi that isn't registered but was seen."""
    try:
        mac = parse_mac(name)
    except ValueError:
        return find_node(registry, name)
    if mac not in registry.by_mac and boots.file_of(ctx.paths.boots, mac).exists():
        return mac
    return find_node(registry, name)
