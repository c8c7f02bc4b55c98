"""`kestrelpi nodes eeprom`: what the boot loaders are set to, and setting them one after the other."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial

import click

from kestrelpi import run
from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.table import print_table
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.nodes import boots
from kestrelpi.nodes.eeprom import OLD, Standing, signs
from kestrelpi.nodes.eeprom_apply import Clock, Shell, apply, look, ready
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.finding import find_node
from kestrelpi.nodes.registry import Node, Registry

PATIENCE = 120.0
"""Seconds for one command on a node; writing an EEPROM takes about 20."""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--plan", "only_plan", is_flag=True, help="Compare with eeprom.settings; show what --apply would write.")
@click.option(
    "--apply", "do_apply", is_flag=True, help="Write it, one node after the other, and see that it came back."
)
@pass_context
def eeprom(ctx: Context, names: tuple[str, ...], only_plan: bool, do_apply: bool) -> None:
    """What the boot loaders of booted nodes are set to and how old they are; all nodes if none is named."""
    if only_plan and do_apply:
        raise click.UsageError("either --plan or --apply")
    registry = Registry.load(ctx.paths.registry, ctx.config)
    nodes = [find_node(registry, name) for name in names] or list(registry)
    wanted = ctx.config.eeprom.settings
    if (only_plan or do_apply) and not wanted:
        raise ConfigError(
            "nothing is wanted of the boot loaders",
            where="eeprom.settings",
            fix='add to kestrelpi.yaml: eeprom: {settings: {BOOT_ORDER: "0xf21"}}',
        )
    shell = partial(_ssh, ctx)
    if do_apply:
        _apply(ctx, nodes, shell)
        return
    found = [
        replace(ready(one) if only_plan else one, signs=signs(boots.read(ctx.paths.boots, node.mac)))
        for node, one in zip(nodes, look(nodes, wanted if only_plan else {}, shell), strict=True)
    ]
    _show(ctx, found, only_plan)


def _ssh(ctx: Context, node: Node, script: str) -> str:
    argv = ssh_command(ctx.paths, ctx.config, node, ("sh", "-s"))
    return run.run([argv[0], "-o", "BatchMode=yes", *argv[1:]], stdin=script, timeout=PATIENCE).stdout


def _apply(ctx: Context, nodes: list[Node], shell: Shell) -> None:
    settings = ctx.config.eeprom
    done: list[Standing] = []
    try:
        for node in nodes:
            done.append(apply(node, settings.settings, shell, float(settings.patience), ctx.say, Clock()))
            ctx.say(f"{node.name}: as wanted")
    except UserError:
        ctx.say(f"stopped: {len(done)} of {len(nodes)} nodes are as wanted")
        raise
    if ctx.json:
        ctx.document([_document(one) for one in done])


def _show(ctx: Context, found: list[Standing], compared: bool) -> None:
    if ctx.json:
        ctx.document([_document(one) for one in found])
        return
    print_table(
        ("NAME", "MODEL", "BUILT", "WRITTEN", "BOOT_ORDER", "PLAN" if compared else "REMARKS"),
        [_cells(one, compared) for one in found],
    )


def _cells(one: Standing, compared: bool) -> tuple[str, ...]:
    told = one.told
    remarks = [one.word if compared else one.problem, *one.signs]
    if told is None:
        return (one.node, "", "", "", "", "; ".join(filter(None, remarks)))
    if told.built and told.built < OLD:
        remarks.append("old: loads slowly, and no file over 67 MB")
    order = told.settings.get("BOOT_ORDER", "")
    return one.node, told.model, _day(told.built), _day(told.written), order, "; ".join(filter(None, remarks))


def _day(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).date().isoformat() if when else ""


def _document(one: Standing) -> dict[str, object]:
    told = one.told
    return {
        "name": one.node,
        "model": told.model if told else "",
        "version": told.version if told else "",
        "built": told.built if told else 0,
        "written": told.written if told else 0,
        "settings": dict(told.settings) if told else {},
        "differs": [asdict(setting) for setting in one.differs],
        "problem": one.problem,
        "signs": list(one.signs),
    }
