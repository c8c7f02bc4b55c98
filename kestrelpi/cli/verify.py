"""`kestrelpi verify`: check that the cluster computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.errors import ExitStatus, UserError
from kestrelpi.lab.lab import Lab
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.registry import Registry
from kestrelpi.verify.checks import CHECKS, Result, carry_out
from kestrelpi.verify.site import Site


@click.command()
@pass_context
def command(ctx: Context) -> None:
    """Check the nodes and every enabled module with real jobs; status 1 if one fails."""
    nodes = Registry.load(ctx.paths.registry, ctx.config).nodes
    if not nodes:
        raise UserError("there are no nodes to check", fix="kestrelpi nodes register GROUP")
    with Connections(ctx.paths, ctx.config, _enter(ctx)) as connections:
        results = show(ctx, Site(nodes, connections))
    if ctx.json:
        ctx.document([asdict(result) for result in results])
    if not all(result.ok for result in results):
        raise SystemExit(ExitStatus.FAILED)


def show(ctx: Context, site: Site) -> list[Result]:
    """Carry out all checks that concern `site`; each is printed as it ends, unless --json is given."""
    results = []
    for result in carry_out(CHECKS, site):
        results.append(result)
        if not ctx.json:
            first, *rest = result.detail.splitlines() or [""]
            state = "-" if result.skipped else "ok" if result.ok else "FAILED"
            click.echo(f"{state:<6} {result.name:<12} {result.seconds:6.1f} s  {first}")
            for line in rest:
                click.echo(f"       {line}")
    return results


def _enter(ctx: Context) -> Callable[[Sequence[str]], list[str]]:
    lab = Lab(ctx.paths, ctx.config, config_path=ctx.config_path.resolve())
    if lab.network.exists():
        return lab.enter
    return list
