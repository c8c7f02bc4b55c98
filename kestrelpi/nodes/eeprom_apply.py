"""Asking nodes for their boot loaders, and setting one after the other: from the booted node, never over TFTP."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from kestrelpi.errors import UserError
from kestrelpi.nodes import eeprom
from kestrelpi.nodes.eeprom import NEEDED, Eeprom, Standing, changed, stand
from kestrelpi.nodes.node import Node

AT_ONCE = 16
"""Nodes that are asked at the same time."""
AGAIN = 5.0
"""Seconds between two tries to reach a node that starts again."""

Shell = Callable[[Node, str], str]
"""Runs a script on a node with `sh -s` and returns what it printed; raises UserError."""

WRITE = """
set -eu
umask 077
base64 -d > /run/kestrelpi-bootconf.txt <<'END'
{content}
END
RPI_EEPROM_IMMEDIATE_UPDATE=1 rpi-eeprom-config --apply /run/kestrelpi-bootconf.txt
rm /run/kestrelpi-bootconf.txt
"""
"""Writes the EEPROM now and not at the next start, where it would be taken from a boot partition that a node hasn't
(raspberrypi/rpi-eeprom, README, "Immediate (flashrom) updates")."""
REBOOT = "systemctl --no-block reboot\n"


@dataclass(frozen=True)
class Clock:
    """The time, passed in so that a test has its own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def look(nodes: Sequence[Node], wanted: Mapping[str, str], shell: Shell) -> Iterator[Standing]:
    """Ask each node, in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda node: look_at(node, wanted, shell), nodes)


def look_at(node: Node, wanted: Mapping[str, str], shell: Shell) -> Standing:
    """Ask one node; one that can't be reached has that for its problem."""
    try:
        return stand(node.name, ask(node, shell), wanted)
    except UserError as error:
        why = error.detail.splitlines()[-1] if error.detail else error.what  # ssh's own words, not its command line
        return Standing(node.name, problem=f"can't be asked: {why}")


def ask(node: Node, shell: Shell) -> Eeprom:
    """What the node tells of its boot loader; raises UserError."""
    said = shell(node, eeprom.READ)
    try:
        return eeprom.parse(said)
    except ValueError as error:
        raise UserError(f"{node.name} gave an answer that can't be read: {error}", detail=said[:200]) from error


def ready(standing: Standing) -> Standing:
    """`standing` with the problem that keeps it from being written, if there is one."""
    if standing.problem or not standing.differs or standing.told is None:
        return standing
    absent = [one for one in NEEDED if one not in standing.told.programs]
    if not absent:
        return standing
    return replace(standing, problem=f"{standing.word}; its image lacks {', '.join(absent)}")


def apply(
    node: Node, wanted: Mapping[str, str], shell: Shell, patience: float, say: Callable[[str], None], clock: Clock
) -> Standing:
    """Write the settings of one node, start it again, and see that it came back with them.

    Raises UserError when it can't be written, doesn't come back within `patience` seconds, or comes back without them:
    nothing more may be written to other nodes then.
    """
    before = ready(look_at(node, wanted, shell))
    if before.problem:
        raise UserError(f"{node.name}: {before.problem}", fix="see docs/how-to/eeprom.md")
    if not before.differs or before.told is None:
        return before
    say(f"{node.name}: {before.word}")
    content = base64.encodebytes(changed(before.told.text, before.differs).encode()).decode().strip()
    shell(node, WRITE.format(content=content))
    say(f"{node.name}: written; it starts again")
    shell(node, REBOOT)
    after = _returned(node, before.told.boot, wanted, shell, patience, clock)
    if after.differs or after.problem:
        raise UserError(
            f"{node.name} came back, but: {after.word}",
            fix="its EEPROM was not written: see what rpi-eeprom-config says there; no other node was touched",
        )
    return after


def _returned(
    node: Node, boot: str, wanted: Mapping[str, str], shell: Shell, patience: float, clock: Clock
) -> Standing:
    """How it stands once it is in another boot than `boot`."""
    deadline = clock.monotonic() + patience
    while clock.monotonic() < deadline:
        clock.sleep(AGAIN)
        standing = look_at(node, wanted, shell)
        if standing.told is not None and standing.told.boot != boot:
            return standing
    raise UserError(
        f"{node.name} did not come back within {patience:.0f} s",
        fix=f"kestrelpi nodes show {node.name}; look at it. A boot loader that doesn't start is written anew from a "
        "card: Raspberry Pi Imager, Misc utility images, Bootloader. No other node was touched",
    )
