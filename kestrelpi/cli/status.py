"""`kestrelpi status`: what runs, and how far each node is."""

from __future__ import annotations

import time

import click

from kestrelpi.cli.context import Context, pass_context
from kestrelpi.services.control import status


@click.command()
@pass_context
def command(ctx: Context) -> None:
    """Show whether the services run, and each node's stage."""
    answer = status(ctx.paths)
    if ctx.json:
        ctx.document(answer)
        return
    click.echo(
        f"kestrelpi serve {answer['version']}: process {answer['pid']} on {answer['listen']}, "
        f"NFS by {answer['nfs']}, up {time.time() - answer['started']:.0f} s"
    )
    storm = answer["storm"]
    if storm and (storm["waiting_files"] or storm["waiting_root"]):
        click.echo(
            f"many Pis boot: {storm['files']} load files ({storm['waiting_files']} wait for that), "
            f"{storm['root']} start from their root ({storm['waiting_root']} wait)"
        )
    modules = answer["modules"]
    if modules["running"]:
        click.echo(f"modules: {', '.join(modules['running'])}")
    for name, why in modules["failed"].items():
        click.echo(f"FAILED {name}: {why}")
    for node in answer["nodes"]:
        since = f"{time.time() - node['since']:.0f} s ago" if node["since"] else ""
        click.echo(
            f"  {node['name']:<12} {node['address']:<15} {node['stage'] or 'never seen':<10} {since} {node['detail']}"
        )
