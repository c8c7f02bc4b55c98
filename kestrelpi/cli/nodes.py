"""`kestrelpi nodes`: register, list, show, set, remove, wake, halt, reboot, eeprom, ssh."""

from __future__ import annotations

import time
from dataclasses import asdict
from ipaddress import IPv4Address

import click

from kestrelpi import run
from kestrelpi.cli.context import Context, pass_context
from kestrelpi.cli.eeprom import eeprom
from kestrelpi.cli.interrupt import ctrl_c
from kestrelpi.cli.naming import complete_nodes
from kestrelpi.cli.power import halt, reboot, wake
from kestrelpi.cli.table import ago, print_finding, print_table
from kestrelpi.config import parse_mac
from kestrelpi.errors import ExitStatus
from kestrelpi.nodes import overview, sightings
from kestrelpi.nodes.changing import Change, change_node, remove_nodes
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.finding import find_node
from kestrelpi.nodes.identity import Secrets
from kestrelpi.nodes.registering import Learned, Registered, Registrar, Seen, nothing_found, watch
from kestrelpi.nodes.registry import Node, Registry, edit


@click.group()
def command() -> None:
    """Register, list, change, reach and switch nodes."""


for one in (wake, halt, reboot):
    command.add_command(one)
command.add_command(eeprom)


def _address(ctx: click.Context, param: click.Parameter, value: str | None) -> IPv4Address | None:
    try:
        return IPv4Address(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _mac(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return parse_mac(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@command.command()
@click.argument("group")
@click.option("--image", default="", metavar="NAME", help="The image that they boot; default: the group's.")
@click.option("--count", type=click.IntRange(1), default=None, metavar="N", help="End when N Pis are registered.")
@click.option("--timeout", type=click.FloatRange(0), default=None, metavar="S", help="End after S seconds.")
@pass_context
def register(ctx: Context, group: str, image: str, count: int | None, timeout: float | None) -> None:
    """Make every new Pi that gets a lease a node of GROUP, until Ctrl-C, --count or --timeout."""
    registrar = Registrar(ctx.paths, ctx.config, group, image)
    ctx.say(f"Waiting for new Pis of the group {group}: switch them on, in the order of their names. Ctrl-C ends.")
    found: list[Node] = []
    with ctrl_c() as pressed:
        for event in watch(registrar, count or 0, timeout or 0.0, pressed):
            _say(ctx, event)
            if isinstance(event, Registered):
                found.append(event.node)
                Secrets(ctx.paths).host_key(event.node.mac)  # made now, so that a boot of many Pis needn't wait for it
        interrupted = pressed()
    names = {node.name for node in found}
    found = [node for node in Registry.load(ctx.paths.registry) if node.name in names]  # with what was learned since
    if ctx.json:
        ctx.document({"registered": [_plain(node) for node in found]})
    elif found:
        _table(found)
    if not interrupted and len(found) < (count or 1):
        raise nothing_found(registrar, len(found), count or 0)


def _say(ctx: Context, event: Seen | Registered | Learned) -> None:
    if isinstance(event, Seen):
        what = " ".join(filter(None, (event.serial and f"serial {event.serial}", event.model and f"Pi {event.model}")))
        ctx.say(f"{event.mac}  {what or 'a Pi'} has {event.address}")
        return
    node = event.node
    said = f"serial {node.serial or 'unknown'}, Pi {node.model or 'model unknown'}"
    if isinstance(event, Learned):
        ctx.say(f"{node.mac}  {node.name} is {said}")
        return
    ctx.say(f"{node.mac}  is now {node.name}: {node.address}, {said}")
    if event.warning:
        ctx.say(f"  warning: {event.warning}")


def _plain(node: Node) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(node).items()}


def _table(nodes: list[Node]) -> None:
    print_table(
        ("NAME", "MAC", "SERIAL", "MODEL", "ADDRESS", "GROUP"),
        [(node.name, node.mac, node.serial, node.model, str(node.address), node.group) for node in nodes],
    )


def _offered(ctx: Context, image: str, group: str) -> str:
    """The id of the generation that a group boots of an image; empty: not built."""
    from kestrelpi.images.store import Store

    generation = Store(ctx.paths).offered(image, group, ctx.config)
    return generation.id if generation else ""


def _generation(ctx: Context, node: Node, given: str) -> str:
    """The whole id of a generation of the node's image, of which `given` may be a part; UserError if there is none."""
    from kestrelpi.images.store import Store

    return Store(ctx.paths).generation(node.image_of(ctx.config), given).id


@command.command("list")
@click.option("--group", default="", metavar="NAME", help="Only this group.")
@pass_context
def list_(ctx: Context, group: str) -> None:
    """All nodes: what they are, what they boot, how far their last boot came."""
    registry = Registry.load(ctx.paths.registry, ctx.config)
    if group:
        registry = Registry(tuple(node for node in registry if node.group == group))
    rows = overview.rows(ctx.paths, ctx.config, registry, lambda image, of: _offered(ctx, image, of), whole=False)
    now = time.time()
    if ctx.json:
        ctx.document([{**row.document(), "finding": row.trouble(now)} for row in rows])
        return
    if not rows:
        ctx.say("There are no nodes yet. Switch a Pi on and: kestrelpi nodes register GROUP")
        return
    print_table(
        ("NAME", "MAC", "SERIAL", "MODEL", "ADDRESS", "GROUP", "IMAGE", "GENERATION", "STAGE", "LAST SEEN"),
        [_cells(row, now) for row in rows],
    )


def _cells(row: overview.Row, now: float) -> tuple[str, ...]:
    node = row.node
    generation = f"{row.generation} (pinned)" if node.pin else row.generation
    known = (node.name, node.mac, node.serial, node.model, str(node.address), node.group, row.image)
    trouble = row.trouble(now)
    stage = f"{row.stage}: {trouble}" if trouble else row.stage
    return (*known, generation, stage, ago(row.last_seen, now))


@command.command()
@click.argument("name", shell_complete=complete_nodes)
@click.option("--boots", "shown", type=click.IntRange(1), default=1, metavar="N", help="Show the last N boots.")
@pass_context
def show(ctx: Context, name: str, shown: int) -> None:
    """One node, with the timeline of its last boots and what is wrong with it."""
    registry = Registry.load(ctx.paths.registry, ctx.config)
    node = find_node(registry, name)
    row = overview.rows(ctx.paths, ctx.config, Registry((node,)), lambda image, of: _offered(ctx, image, of))[0]
    findings = row.findings(time.time())
    if ctx.json:
        found = {"findings": [one.document() for one in findings]}
        ctx.document({**row.document(), **found, "boots": [overview.boot_document(boot) for boot in row.boots]})
        return
    for key, value in row.document().items():
        text = ago(row.last_seen) if key == "last_seen" else str(value or "-")
        click.echo(f"{key.replace('_', ' '):12} {text}")
    for boot in row.boots[-shown:]:
        click.echo(f"\nboot of {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(boot.started))}")
        print_table(
            ("STAGE", "SECONDS", "DETAIL"),
            overview.timeline(boot),
        )
    for finding in findings:
        print_finding(ctx, finding)


@command.command("set")
@click.argument("name", shell_complete=complete_nodes)
@click.option("--name", "new_name", metavar="NAME", help="Another name.")
@click.option("--address", callback=_address, metavar="IP", help="Another address; in force at its next boot.")
@click.option("--group", metavar="GROUP", help="Another group.")
@click.option("--image", metavar="IMAGE", help="Another image than the group's; '' gives it the group's.")
@click.option("--pin", metavar="GENERATION", help="Boot this generation; '' takes the pin away.")
@click.option("--mac", callback=_mac, metavar="MAC", help="Another board takes this node's place.")
@pass_context
def set_(
    ctx: Context,
    name: str,
    new_name: str | None,
    address: IPv4Address | None,
    group: str | None,
    image: str | None,
    pin: str | None,
    mac: str | None,
) -> None:
    """Change a node."""
    change = Change(new_name, mac, group, address, image, pin)
    if change.empty:
        raise click.UsageError("say what to change: --name, --address, --group, --image, --pin or --mac")
    with edit(ctx.paths, ctx.config) as edited:
        known = sightings.read(ctx.paths.sightings)
        edited.registry, node = change_node(edited.registry, ctx.config, name, change, known)
        if pin:
            whole = _generation(ctx, node, pin)
            edited.registry, node = change_node(edited.registry, ctx.config, node.name, Change(pin=whole), known)
    if ctx.json:
        ctx.document(_plain(node))
    else:
        _table([node])


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=complete_nodes)
@pass_context
def remove(ctx: Context, names: tuple[str, ...]) -> None:
    """Take nodes out of the registry. At their next boot they wait to be registered."""
    with edit(ctx.paths) as edited:
        edited.registry, gone = remove_nodes(edited.registry, names)
    if ctx.json:
        ctx.document({"removed": [_plain(node) for node in gone]})
        return
    for node in gone:
        ctx.say(f"removed {node.name} ({node.mac}, {node.address})")


@command.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", shell_complete=complete_nodes)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND…]")
@pass_context
def ssh(ctx: Context, name: str, words: tuple[str, ...]) -> None:
    """Enter a node as root, or run COMMAND on it."""
    node = find_node(Registry.load(ctx.paths.registry, ctx.config), name)
    run.replace(ssh_command(ctx.paths, ctx.config, node, words))
    raise SystemExit(ExitStatus.FAILED)
