"""Boot loaders: what a node tells, what would be written, and every way in which it can go wrong.

The values are those that people published: rpi-eeprom#606 (a 4's timestamps and settings), #554 (a mainline kernel).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from kestrelpi.errors import UserError
from kestrelpi.nodes.eeprom import NEEDED, Eeprom, Setting, changed, parse, signs, stand
from kestrelpi.nodes.eeprom_apply import REBOOT, Clock, apply, look, ready
from kestrelpi.nodes.node import Node

SETTINGS = "[all]\nBOOT_UART=1\nPOWER_OFF_ON_HALT=0\nBOOT_ORDER=0xf461\n"
WANTED = {"BOOT_ORDER": "0xf21", "NET_BOOT_MAX_RETRIES": "-1"}
NODES = [
    Node(f"rpi{n}", f"dc:a6:32:00:00:0{n}", "rpi", IPv4Address(f"10.77.0.{10 + n}"), model="4B") for n in (1, 2, 3)
]


def told(settings: str = SETTINGS, built: int = 1725975630, boot: str = "b1", **more: str) -> str:
    """What READ prints on a Pi 4."""
    lines = {
        "boot": boot,
        "model": b"Raspberry Pi 4 Model B Rev 1.4\0".hex(),
        "version": b"5be4f304b152e06cbcb9c08c26aafc9da755ae47\0".hex(),
        "build-timestamp": f"{built:08x}",
        "update-timestamp": f"{1726252498:08x}",
        "settings": (settings.encode().ljust(300, b"\0")).hex(),
        **more,
    }
    return "".join(f"{key} {value}\n" for key, value in lines.items() if value)


ALL = "".join(f"program {one}\n" for one in NEEDED)


def test_what_a_pi_4_tells() -> None:
    found = parse(told() + ALL)
    assert found.model == "4B" and found.version == "5be4f304b152e06cbcb9c08c26aafc9da755ae47"
    assert (found.built, found.written) == (1725975630, 1726252498)
    assert found.settings == {"BOOT_UART": "1", "POWER_OFF_ON_HALT": "0", "BOOT_ORDER": "0xf461"}
    assert found.programs == NEEDED


@pytest.mark.parametrize("output", ["", "model 00\n", "bash: sh: not found\n", "boot\n", told(version="zz")])
def test_what_is_no_answer(output: str) -> None:
    with pytest.raises(ValueError):
        parse(output)


def test_a_pi_3_has_none_and_an_old_one_does_not_show_its_settings() -> None:
    three = parse(f"boot b\nmodel {b'Raspberry Pi 3 Model B Plus Rev 1.3'.hex()}\n")
    assert stand("rpi1", three, WANTED).problem == "a 3B+ has no EEPROM"
    assert "can't be seen" in stand("rpi1", parse(told(settings="")), WANTED).problem
    assert stand("rpi1", parse(told(settings="")), {}).problem == "", "there is something to show"


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        (SETTINGS, [Setting("BOOT_ORDER", "0xf461", "0xf21"), Setting("NET_BOOT_MAX_RETRIES", "", "-1")]),
        ("BOOT_ORDER=0xF21\nNET_BOOT_MAX_RETRIES = -1\n", []),
        ("BOOT_ORDER=3873\nNET_BOOT_MAX_RETRIES=-1\n", []),
        ("#BOOT_ORDER=0xf21\n[ALL]\nNET_BOOT_MAX_RETRIES=-1", [Setting("BOOT_ORDER", "", "0xf21")]),
    ],
)
def test_what_differs(settings: str, differs: list[Setting]) -> None:
    assert list(stand("rpi1", parse(told(settings)), WANTED).differs) == differs


def test_a_setting_in_a_section_of_its_own_is_not_touched() -> None:
    standing = stand("rpi1", parse(told("[all]\nBOOT_UART=1\n[gpio4=0]\nBOOT_ORDER=0x1\n")), WANTED)
    assert "[gpio4=0]" in standing.problem and "BOOT_ORDER" in standing.problem


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        "BOOT_ORDER=0xf1\n[pi400]\nBOOT_UART=0\n",
        "# by hand\r\nBOOT_UART=1\r\n",
        "[all]\nA=1\n[none]\nB=2\n[all]\nBOOT_ORDER = 0x4",
    ],
)
def test_what_is_written_has_what_was_wanted_and_keeps_the_rest(settings: str) -> None:
    before = parse(told(settings))
    text = changed(before.text, stand("rpi1", before, WANTED).differs)
    after = Eeprom("b", built=1.0, text=text)
    assert not stand("rpi1", after, WANTED).differs
    kept = {key: value for key, value in before.settings.items() if key not in WANTED}
    assert {key: value for key, value in after.settings.items() if key not in WANTED} == kept
    assert text.count("BOOT_ORDER") == 1
    for line in settings.splitlines():
        assert line in text.splitlines() or line.startswith("BOOT_ORDER")


def test_a_plan_says_what_the_image_lacks() -> None:
    standing = stand("rpi1", parse(told() + "program flashrom\n"), WANTED)
    assert ready(standing).problem.endswith("its image lacks rpi-eeprom-config, rpi-eeprom-update")
    assert not ready(stand("rpi1", parse(told() + ALL), WANTED)).problem
    fine = stand("rpi1", parse(told("BOOT_ORDER=0xf21\nNET_BOOT_MAX_RETRIES=-1\n")), WANTED)
    assert ready(fine) == fine, "one that is as wanted needs nothing"


@dataclass
class Fleet:
    """Nodes with an EEPROM each, played: what is sent to them with `sh -s`, and a clock."""

    settings: dict[str, str] = field(default_factory=lambda: {node.name: SETTINGS for node in NODES})
    boots: dict[str, int] = field(default_factory=lambda: {node.name: 1 for node in NODES})
    absent: Mapping[str, str] = field(default_factory=dict)
    """Node to what goes wrong with it: off, dead (after its restart), unwritten, slow."""
    written: list[str] = field(default_factory=list)
    now: float = 0.0
    up: dict[str, float] = field(default_factory=dict)

    def shell(self, node: Node, script: str) -> str:
        how = self.absent.get(node.name, "")
        if how == "off" or self.now < self.up.get(node.name, 0.0):
            raise UserError("ssh … ended with status 255", detail="ssh: connect to host: No route to host")
        if script == REBOOT:
            self.boots[node.name] += 1
            self.up[node.name] = self.now + {"dead": 1e9, "slow": 200.0}.get(how, 40.0)
            return ""
        if "rpi-eeprom-config --apply" in script:
            self.written.append(node.name)
            content = script.split("<<'END'\n")[1].split("\nEND")[0]
            if how != "unwritten":
                self.settings[node.name] = base64.b64decode(content).decode()
            return ""
        return told(self.settings[node.name], boot=f"b{self.boots[node.name]}") + ALL

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def apply(self, node: Node) -> object:
        return apply(node, WANTED, self.shell, 300.0, lambda text: None, Clock(lambda: self.now, self.sleep))


def test_one_node_after_the_other_is_written_and_verified() -> None:
    fleet = Fleet()
    for node in NODES:
        fleet.apply(node)
        assert "BOOT_ORDER=0xf21" in fleet.settings[node.name] and "BOOT_UART=1" in fleet.settings[node.name]
        assert fleet.boots[node.name] == 2, "it was started again before the next one's turn"
    assert fleet.written == ["rpi1", "rpi2", "rpi3"]
    fleet.apply(NODES[0])
    assert fleet.written == ["rpi1", "rpi2", "rpi3"], "what is as wanted is not written"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("off", "can't be asked: ssh: connect"),
        ("dead", "did not come back within 300 s"),
        ("unwritten", "but: BOOT_ORDER"),
    ],
)
def test_what_goes_wrong_is_said_and_ends_it(how: str, said: str) -> None:
    fleet = Fleet(absent={"rpi1": how})
    with pytest.raises(UserError, match=said):
        fleet.apply(NODES[0])


def test_a_slow_node_is_waited_for() -> None:
    fleet = Fleet(absent={"rpi1": "slow"})
    fleet.apply(NODES[0])
    assert 200 <= fleet.now <= 300


def test_a_look_at_all_keeps_their_order_and_names_those_that_are_off() -> None:
    fleet = Fleet(absent={"rpi2": "off"})
    found = list(look(NODES, WANTED, fleet.shell))
    assert [one.node for one in found] == ["rpi1", "rpi2", "rpi3"]
    assert [bool(one.problem) for one in found] == [False, True, False]
    assert fleet.written == []


def test_an_answer_that_is_nonsense_is_a_problem_of_that_node_alone() -> None:
    (one,) = look(NODES[:1], WANTED, lambda node, script: "motd\n")
    assert "can't be asked" in one.problem


def test_no_boots_show_no_signs() -> None:
    assert signs([]) == ()
