"""`kestrelpi serve`: the daemon in the foreground; the systemd unit runs the same."""

from __future__ import annotations

import logging

import click

from kestrelpi.cli.context import Context, pass_context


@click.command()
@pass_context
def command(ctx: Context) -> None:
    """Run DHCP, TFTP, DNS, NFS and the nodes' HTTP endpoint until SIGTERM; SIGHUP reloads."""
    logging.basicConfig(
        level=logging.DEBUG if ctx.verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
    )
    from kestrelpi.services.daemon import Daemon  # scapy and the HTTP server take half a second to import

    Daemon(ctx.paths, ctx.config_path).run()
