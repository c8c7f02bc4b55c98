"""Shutting nodes down and starting them again from inside, over SSH."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from kestrelpi.config import Power
from kestrelpi.errors import UserError
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.power import Driver, at_once, attempt
from kestrelpi.run import run

Enter = Callable[[Node], list[str]]
"""The command that enters a node; words added to it run there."""

TIMEOUT = 20.0
"""Seconds for a node to take an order."""
SETTLE = 3.0
"""Seconds that a node gets to stop after its network is gone; its root is read-only, so nothing can be lost."""
SOON = ("systemd-run", "--quiet", "--on-active=1", "systemctl")
"""After SSH has ended, so that its status tells whether the order was taken."""


def answers(address: str, port: int = 22) -> bool:
    """Whether something listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def halt_by_ssh(enter: Enter, power: Power) -> Callable[[Node], None]:
    """A function that shuts a node down cleanly and waits until it doesn't answer any more.

    With a driver in `power` a node that doesn't answer is taken for halted, and one that takes longer than
    `power.halt_time` isn't waited for: their power is cut. Without one these raise UserError.
    """
    can_cut = power.driver != "none"

    def halt(node: Node) -> None:
        try:
            must_answer(node)
        except UserError:
            if can_cut:
                return
            raise
        run([*enter(node), *SOON, "poweroff"], timeout=TIMEOUT)
        deadline = time.monotonic() + power.halt_time
        while answers(str(node.address)):
            if time.monotonic() > deadline:
                if can_cut:
                    return
                raise UserError(f"{node.name} still answers {power.halt_time:g} s after it was told to shut down")
            time.sleep(1)
        time.sleep(SETTLE)

    return halt


def must_answer(node: Node) -> None:
    """Raise UserError when a node doesn't."""
    if not answers(str(node.address)):
        raise UserError(
            f"{node.name} does not answer at {node.address}",
            fix=f"kestrelpi nodes show {node.name} tells how far it came; nothing but its plug can start or stop it:"
            " with power.driver in kestrelpi.yaml kestrelpi does that",
        )


@dataclass(frozen=True)
class Restarted:
    """What became of one node; `error` is empty when it went well."""

    node: Node
    how: Literal["rebooted", "power cut and given back"]
    error: str = ""


def restart(
    nodes: Sequence[Node],
    by: Driver | None,
    enter: Enter,
    power: Power,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Restarted]:
    """Reboot the nodes that answer; of the others cut the power and give it back, one after the other.

    `by`: None if nothing can switch them; then those that don't answer are errors.
    """

    def reboot(node: Node) -> None:
        run([*enter(node), *SOON, "reboot"], timeout=TIMEOUT)

    silence = at_once(must_answer, nodes)
    up = [node for node in nodes if not silence[node.name]]
    down = [node for node in nodes if silence[node.name]]
    errors = at_once(reboot, up)
    yield from (Restarted(node, "rebooted", errors[node.name]) for node in up)
    if by is None:
        yield from (Restarted(node, "rebooted", silence[node.name]) for node in down)
        return
    for number, node in enumerate(down):
        if number:
            sleep(float(power.stagger))
        yield Restarted(node, "power cut and given back", attempt(partial(_cycle, by, sleep), node))


def _cycle(by: Driver, sleep: Callable[[float], None], node: Node) -> None:
    """Cut a node's power and give it back."""
    by.switch(node, "off")
    sleep(SETTLE)
    by.switch(node, "on")
