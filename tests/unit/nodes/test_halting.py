"""Halting and rebooting nodes over SSH, and what becomes of those that don't answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from kestrelpi.config import Power
from kestrelpi.errors import UserError
from kestrelpi.nodes import halting
from kestrelpi.nodes.halting import SETTLE, halt_by_ssh, restart
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.power import State
from kestrelpi.run import Finished
from tests.unit.nodes.test_power import NODES, Fake

DRIVER = Power(driver="command")


@dataclass
class Room:
    """Which nodes answer, and what they were told."""

    up: dict[str, int]
    """Address → how many times it still answers after an order."""
    told: list[str] = field(default_factory=list)

    def answers(self, address: str, port: int = 22) -> bool:
        if self.told and self.up.get(address, 0) > 0:
            self.up[address] -= 1
        return self.up.get(address, 0) > 0

    def run(self, argv: Sequence[str], timeout: float) -> Finished:
        self.told.append(f"{argv[0]}: {' '.join(argv[-2:])}")
        return Finished(tuple(argv), "")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """rpi1 and rpi2 answer; rpi3 doesn't."""
    made = Room({"10.77.0.11": 3, "10.77.0.12": 3})
    monkeypatch.setattr(halting, "answers", made.answers)
    monkeypatch.setattr(halting, "run", made.run)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return made


def enter(node: Node) -> list[str]:
    return [node.name]


def test_halting_waits_until_the_node_is_silent(room: Room) -> None:
    halt_by_ssh(enter, Power())(NODES[0])
    assert room.told == ["rpi1: systemctl poweroff"]
    assert room.up["10.77.0.11"] == 0


def test_a_silent_node_is_halted_only_if_its_power_can_be_cut(room: Room) -> None:
    halt_by_ssh(enter, DRIVER)(NODES[2])
    assert room.told == []
    with pytest.raises(UserError, match=r"rpi3 does not answer at 10\.77\.0\.13") as caught:
        halt_by_ssh(enter, Power())(NODES[2])
    assert "power.driver" in caught.value.fix


def test_a_node_that_does_not_go_down_in_time(room: Room) -> None:
    room.up["10.77.0.11"] = 1000
    halt_by_ssh(enter, Power(driver="command", halt_time=type(Power().halt_time)(0)))(NODES[0])
    with pytest.raises(UserError, match="still answers 0 s after"):
        halt_by_ssh(enter, Power(halt_time=type(Power().halt_time)(0)))(NODES[0])


def test_reboot_over_ssh_and_through_the_power(room: Room) -> None:
    fake, waits = Fake(), list[float]()
    done = list(restart(NODES, fake, enter, DRIVER, waits.append))
    assert sorted(room.told) == ["rpi1: systemctl reboot", "rpi2: systemctl reboot"]
    states: list[tuple[str, State]] = [("rpi3", "off"), ("rpi3", "on")]
    assert fake.done == states
    assert waits[0] == SETTLE
    assert [(one.node.name, one.how, one.error) for one in done] == [
        ("rpi1", "rebooted", ""),
        ("rpi2", "rebooted", ""),
        ("rpi3", "power cut and given back", ""),
    ]


def test_reboot_without_a_driver_says_who_does_not_answer(room: Room) -> None:
    errors = {one.node.name: one.error for one in restart(NODES, None, enter, Power())}
    assert errors["rpi1"] == errors["rpi2"] == ""
    assert "rpi3 does not answer" in errors["rpi3"]


def test_a_switch_that_fails_is_told(room: Room) -> None:
    done = list(restart(NODES, Fake(bad="rpi3"), enter, DRIVER, lambda seconds: None))
    assert done[-1].error == "the switch does not answer"
