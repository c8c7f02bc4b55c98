"""Drivers that switch nodes, the stagger, and slurmctld's wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.config import Power, parse
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.power import Command, HttpPlug, SnmpPoe, State, WakeOnLan, driver, magic_packet, switch, wishes
from kestrelpi.run import Finished

NODES = [Node(f"rpi{n}", f"dc:a6:32:00:00:0{n}", "rpi", IPv4Address(f"10.77.0.1{n}")) for n in (1, 2, 3)]


@dataclass
class Recorder:
    """Takes the place of `run`."""

    calls: list[tuple[list[str], str]] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 0) -> Finished:
        folder = Path((env or {}).get("SNMPCONFPATH", "/none"))
        conf = folder / "snmp.conf"
        self.calls.append((list(argv), conf.read_text() if conf.exists() else ""))
        return Finished(tuple(argv), "")


@dataclass
class Fake:
    """A driver that can fail."""

    bad: str = ""
    done: list[tuple[str, State]] = field(default_factory=list)

    def switch(self, node: Node, state: State) -> None:
        if node.name == self.bad:
            raise UserError("the switch does not answer")
        self.done.append((node.name, state))


def never(what: object) -> None:
    raise AssertionError(f"called with {what}")


def power(text: str) -> Power:
    return parse(f"power: {text}").power


def test_poe_sets_the_ports_admin_state_and_keeps_the_community_off_the_command_line(tmp_path: Path) -> None:
    conf = tmp_path / "my-snmp.conf"
    conf.write_text("defVersion 2c\ndefCommunity secret\n")
    recorder = Recorder()
    settings = power(f"{{outlets: {{rpi1: '7'}}, snmp: {{host: 10.77.0.2, conf: {conf}}}}}")
    SnmpPoe(settings, recorder).switch(NODES[0], "on")
    SnmpPoe(settings, recorder).switch(NODES[0], "off")
    argvs = [argv for argv, _ in recorder.calls]
    assert [argv[-4:] for argv in argvs] == [
        ["10.77.0.2", "1.3.6.1.2.1.105.1.1.1.3.1.7", "i", "1"],
        ["10.77.0.2", "1.3.6.1.2.1.105.1.1.1.3.1.7", "i", "2"],
    ]
    assert not any("secret" in word for argv in argvs for word in argv)
    assert {text for _, text in recorder.calls} == {conf.read_text()}


def test_a_program_gets_the_node_and_its_outlet() -> None:
    recorder = Recorder()
    settings = power("{outlets: {rpi1: A3}, command: {on_program: [plug, '{outlet}', '{name}', '{mac}', '{address}']}}")
    Command(settings, recorder).switch(NODES[0], "on")
    assert recorder.calls[0][0] == ["plug", "A3", "rpi1", "dc:a6:32:00:00:01", "10.77.0.11"]
    with pytest.raises(ConfigError, match="off_program"):
        Command(settings, recorder).switch(NODES[0], "off")


def test_an_outlet_that_nobody_named() -> None:
    settings = power("{snmp: {host: 10.77.0.2, conf: /x}, http: {on_url: 'http://x/{outlet}'}}")
    for by in (SnmpPoe(settings, Recorder()), HttpPlug(settings)):
        with pytest.raises(ConfigError, match="which outlet feeds rpi1") as caught:
            by.switch(NODES[0], "on")
        assert "outlets: {rpi1:" in caught.value.fix


def test_settings_that_a_driver_lacks() -> None:
    with pytest.raises(ConfigError, match=r"power\.snmp\.host"):
        SnmpPoe(power("{outlets: {rpi1: '1'}}"), Recorder()).switch(NODES[0], "on")
    with pytest.raises(ConfigError, match="off_url"):
        HttpPlug(power("{outlets: {rpi1: '1'}, http: {on_url: 'http://x'}}")).switch(NODES[0], "off")


def test_the_magic_packet() -> None:
    packet = magic_packet("dc:a6:32:00:00:01")
    assert len(packet) == 102
    assert packet[:12] == bytes.fromhex("ffffffffffffdca632000001")
    assert packet[-6:] == bytes.fromhex("dca632000001")


@pytest.mark.parametrize(
    ("name", "kind"), [("snmp-poe", SnmpPoe), ("http", HttpPlug), ("command", Command), ("wol", WakeOnLan)]
)
def test_the_configured_driver(name: str, kind: type) -> None:
    assert isinstance(driver(parse(f"power: {{driver: {name}}}")), kind)


def test_no_driver() -> None:
    with pytest.raises(ConfigError, match=r"power\.driver is none"):
        driver(parse("cluster: x"))


def test_switching_on_waits_between_two_nodes_and_never_halts() -> None:
    waits: list[float] = []
    fake = Fake()
    results = list(switch(NODES, "on", fake, power("{stagger: 3s}"), never, waits.append))
    assert waits == [3, 3]
    assert fake.done == [("rpi1", "on"), ("rpi2", "on"), ("rpi3", "on")]
    assert [one.error for one in results] == ["", "", ""]


def test_switching_off_halts_all_nodes_first() -> None:
    fake, halted = Fake(), []
    results = switch(NODES[:2], "off", fake, Power(), lambda node: halted.append(node.name), never)
    assert next(results).error == ""
    assert sorted(halted) == ["rpi1", "rpi2"]
    assert fake.done == [("rpi1", "off")]
    assert [one.node.name for one in results] == ["rpi2"]


def test_a_node_that_does_not_halt_keeps_its_power() -> None:
    def halt(node: Node) -> None:
        if node.name == "rpi1":
            raise UserError("a job holds it")

    fake = Fake()
    results = list(switch(NODES[:2], "off", fake, Power(), halt, never))
    assert [one.error for one in results] == ["a job holds it", ""]
    assert fake.done == [("rpi2", "off")]


def test_without_a_driver_halting_is_all() -> None:
    halted: list[str] = []
    results = list(switch(NODES[:2], "off", None, Power(), lambda node: halted.append(node.name), never))
    assert [one.error for one in results] == ["", ""]
    assert sorted(halted) == ["rpi1", "rpi2"]


def test_one_that_fails_does_not_keep_the_others() -> None:
    fake = Fake(bad="rpi2")
    results = list(switch(NODES, "on", fake, Power(), never, lambda seconds: None))
    assert [one.error for one in results] == ["", "the switch does not answer", ""]
    assert [name for name, _ in fake.done] == ["rpi1", "rpi3"]


def test_slurms_wishes_are_taken_once_in_their_order(tmp_path: Path) -> None:
    for name, text in {
        "2": "off rpi3\n",
        "1": "on rpi1 rpi2 \n",
        ".3": "on half",
        "4": "explode rpi1",
        "5": "",
        "6": "\xff\xfe",
    }.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    assert list(wishes(tmp_path)) == [("on", ("rpi1", "rpi2")), ("off", ("rpi3",))]
    assert [path.name for path in tmp_path.iterdir()] == [".3"]
    assert list(wishes(tmp_path)) == []
    assert list(wishes(tmp_path / "none")) == []


def test_a_wish_is_no_way_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    secret = tmp_path / "target/secret"
    secret.write_text("on rpi1")
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "1").symlink_to(secret)
    assert list(wishes(spool)) == []
    assert secret.exists()
