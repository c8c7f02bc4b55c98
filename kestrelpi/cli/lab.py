"""`kestrelpi lab`: emulated Pis that boot from the real services."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from kestrelpi import run
from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.images import build
from kestrelpi.cli.table import print_table
from kestrelpi.cli.verify import show
from kestrelpi.errors import ExitStatus
from kestrelpi.lab import demo as demo_of
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.machine import Board
from kestrelpi.lab.overview import index_of, load_registry, node_of, rows
from kestrelpi.lab.profiles import PROFILES
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.verify.site import Site

WIDE_TABLE = 150
"""Columns that the demo's table takes with a row a node."""


@click.group()
def command() -> None:
    """Emulated Pis in a network of their own, which boot from the real services."""


def lab_of(ctx: Context, config: bool = True) -> Lab:
    """The lab of this root. Without `config` it works even when kestrelpi.yaml is broken or gone."""
    from kestrelpi.config import Config

    return Lab(ctx.paths, ctx.config if config else Config(), config_path=ctx.config_path.resolve())


@command.command()
@click.option("--nodes", type=click.IntRange(1, 200), default=None, help="How many Pis; default 2, or one a --model.")
@click.option(
    "--model", "models", multiple=True, type=click.Choice(list(PROFILES)), help="Model; several are dealt out in turn."
)
@click.option(
    "--machine",
    type=click.Choice(["auto", *map(str, Board)]),
    default="auto",
    help="The emulated board: virt is fast; raspi3b has a Pi 3B's devices.",
)
@click.option("--memory", type=click.IntRange(256, 65536), default=1024, metavar="MB", help="RAM of each Pi.")
@click.option("--no-serve", is_flag=True, help="Only network and Pis: you run the services yourself.")
@click.option("--real-timers", is_flag=True, help="Wait for SD card and link at power-on, as a real Pi does.")
@pass_context
def up(
    ctx: Context,
    nodes: int | None,
    models: tuple[str, ...],
    machine: str,
    memory: int,
    no_serve: bool,
    real_timers: bool,
) -> None:
    """Start the services in a network of their own, and switch on Pis that boot from them."""
    models = models or ("4",)
    count = nodes or (2 if len(models) == 1 else len(models))
    lab = lab_of(ctx)
    pis = lab.pis([models[number % len(models)] for number in range(count)])
    lab.up(pis, machine=machine, memory=memory, serve=not no_serve, waits=real_timers)
    if ctx.json:
        ctx.document({"namespace": lab.network.namespace, "pis": [dataclasses.asdict(pi) for pi in pis]})
        return
    ctx.say(f"the lab is up in the network namespace {lab.network.namespace}: kestrelpi lab status shows its Pis")


@command.command()
@pass_context
def down(ctx: Context) -> None:
    """End everything in the lab and remove its network. What was registered and built stays."""
    lab = lab_of(ctx, config=False)
    there = bool(lab.network.namespaces())
    lab.down()
    if ctx.json:
        ctx.document({"was_up": there})
    else:
        ctx.say("the lab is down" if there else "the lab was not up")


@command.command()
@pass_context
def status(ctx: Context) -> None:
    """Show each Pi: what it does, for how long, and its console's last line."""
    lab = lab_of(ctx)
    found = rows(lab, load_registry(ctx.paths, ctx.config))
    if ctx.json:
        ctx.document([row.document() for row in found])
        return
    print_table(
        ("PI", "NAME", "MODEL", "MAC", "SERIAL", "STATE", "SECONDS", "ADDRESS", "CONSOLE"),
        (
            (
                str(row.pi.index),
                row.name,
                row.pi.model,
                row.pi.mac,
                row.pi.serial,
                str(row.pi.state),
                f"{row.seconds:.0f}",
                row.address,
                row.pi.detail or row.console,
            )
            for row in found
        ),
    )


@command.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND…]")
@pass_context
def ssh(ctx: Context, name: str, words: tuple[str, ...]) -> None:
    """Enter a node as root, or run COMMAND on it. NAME: the node's name, or a Pi's number, MAC or serial."""
    lab = lab_of(ctx)
    lab.must_be_up()
    node = node_of(lab, load_registry(ctx.paths, ctx.config), name)
    run.replace(lab.enter(ssh_command(ctx.paths, ctx.config, node, words)))
    raise SystemExit(ExitStatus.FAILED)


@command.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND…")
@pass_context
def exec_(ctx: Context, words: tuple[str, ...]) -> None:
    """Run a command in the lab's network, where the frontend is."""
    lab = lab_of(ctx, config=False)
    lab.must_be_up()
    run.replace(lab.enter(words))
    raise SystemExit(ExitStatus.FAILED)


@command.command()
@click.argument("name")
@click.option("--lines", type=click.IntRange(1), default=40, help="How many of the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@pass_context
def console(ctx: Context, name: str, lines: int, follow: bool) -> None:
    """Show what a Pi's boot loader and its serial ports wrote."""
    lab = lab_of(ctx)
    log: Path = lab.folder_of(index_of(lab, load_registry(ctx.paths, ctx.config), name)).console
    run.replace(["tail", "-n", str(lines), *(["-f"] if follow else []), log])
    raise SystemExit(ExitStatus.FAILED)


@command.command()
@click.argument("action", type=click.Choice(["on", "off", "cycle"]))
@click.argument("name")
@pass_context
def power(ctx: Context, action: str, name: str) -> None:
    """Switch a Pi on or off, or cut its power and give it back."""
    lab = lab_of(ctx)
    lab.power(index_of(lab, load_registry(ctx.paths, ctx.config), name), action)


@command.command()
@click.option("--nodes", type=click.IntRange(1, 200), default=2, help="How many Pis.")
@click.option("--model", type=click.Choice(list(PROFILES)), default="4", help="Which model they are.")
@click.option("--keep", is_flag=True, help="Leave everything up and say how to log in.")
@pass_context
def demo(ctx: Context, nodes: int, model: str, keep: bool) -> None:
    """Build an image, boot Pis that nobody has seen, register them, compute, check every module, take all down."""
    demo_of.configure(ctx.paths)
    click.get_current_context().invoke(build, name="default")
    group = next(iter(ctx.config.groups))
    with ExitStack() as stack:
        lab = lab_of(ctx)
        lab.down()  # what a demo left that was killed
        demo_of.forget_nodes(ctx.paths, ctx.config)
        ctx.say(f"Switching on {nodes} emulated Pis (model {model})")
        if not keep:
            stack.callback(lab.down)
        lab.up(lab.pis([model] * nodes))
        ctx.say(f"Registering them from their leases (kestrelpi nodes register {group})")
        found = demo_of.register(ctx.paths, ctx.config, group, nodes, ctx.say)
        ctx.say("Waiting until they are ready")
        ready = demo_of.wait_until_ready(ctx.paths, lab, found, ctx.say)
        ctx.say(f"Computing: fibo {demo_of.FIBO} on each over SSH")
        connections = stack.enter_context(Connections(ctx.paths, ctx.config, lab.enter))
        results = [demo_of.compute(connections, node, ready[node.name]) for node in found]
        ctx.say("Checking every module with real jobs (kestrelpi verify)")
        checks = show(ctx, Site(tuple(found), connections))
    headings, table = demo_of.table(results)
    if ctx.json:
        told = [dict(zip(headings, row, strict=True)) for row in table]
        ctx.document({"nodes": told, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        click.echo("Seconds from the first DHCP packet to each stage, and fibo:")
        if sys.stdout.isatty() and shutil.get_terminal_size().columns < WIDE_TABLE:
            headings, *table = zip(headings, *table, strict=True)  # a column a node
        print_table(headings, table)
    if keep:
        ctx.say(f"The lab is up. Log in: kestrelpi lab ssh {found[0].name}    See it: kestrelpi lab status")
        ctx.say("Take it down: kestrelpi lab down")
    if not all(check.ok for check in checks):
        raise SystemExit(ExitStatus.FAILED)
