"""Power drivers against what they are for: net-snmp's agent, an HTTP server, a program, a UDP socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.config import Power, parse
from kestrelpi.errors import UserError
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.power import Command, HttpPlug, SnmpPoe, WakeOnLan
from tests.integration.servers import started
from tests.waiting import until

NODE = Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.0.11"))
BASE = ".1.3.6.1.2.1.105.1.1.1.3.1"
PORT_TABLE = """#!/bin/sh
# snmpd.conf(5), `pass`: -g OID reads, -s OID TYPE VALUE writes. A switch with the ports 1 to 8.
case $2 in {base}.[1-8]) ;; *) [ "$1" != -s ] || echo not-writable; exit 0 ;; esac
if [ "$1" = -s ]; then echo "${{2##*.}} $4" >>{log}; exit 0; fi
printf '%s\\ninteger\\n1\\n' "$2"
"""


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Switch:
    """An SNMP agent that has a PoE switch's ports."""

    folder: Path
    port: int

    def power(self, community: str = "keep-out", outlet: str = "7") -> Power:
        conf = self.folder / "client.conf"
        conf.write_text(f"defVersion 2c\ndefCommunity {community}\n")
        conf.chmod(0o600)
        snmp = f"snmp: {{host: '127.0.0.1:{self.port}', conf: {conf}}}"
        return parse(f"power: {{outlets: {{rpi1: '{outlet}'}}, {snmp}}}").power

    @property
    def set(self) -> list[str]:
        log = self.folder / "set"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def poe(tmp_path: Path) -> Iterator[Switch]:
    port = free_udp_port()
    script = tmp_path / "ports"
    script.write_text(PORT_TABLE.format(base=BASE, log=tmp_path / "set"))
    conf = tmp_path / "snmpd.conf"
    conf.write_text(f"rwcommunity keep-out 127.0.0.1\npass {BASE} /bin/sh {script}\n")
    env = {"SNMP_PERSISTENT_DIR": str(tmp_path / "state")}
    agent = started(["snmpd", "-f", "-Ln", "-C", "-c", conf, f"udp:127.0.0.1:{port}"], env=env)
    try:
        ask = ["snmpget", "-v2c", "-ckeep-out", "-t0.2", "-r0", f"127.0.0.1:{port}", f"{BASE}.1"]
        until(lambda: answers(ask), "an answer of snmpd's", 30)
        yield Switch(tmp_path, port)
    finally:
        run.stop(agent)


def answers(ask: list[str]) -> bool:
    """Whether the command ends well."""
    try:
        run.run(ask)
    except run.CommandFailed:
        return False
    return True


def test_poe_ports_are_switched(poe: Switch) -> None:
    driver = SnmpPoe(poe.power())
    driver.switch(NODE, "off")
    driver.switch(NODE, "on")
    assert poe.set == ["7 2", "7 1"]


def test_poe_with_a_wrong_community_says_so(poe: Switch) -> None:
    with pytest.raises(UserError, match="snmpset") as caught:
        SnmpPoe(poe.power("guess")).switch(NODE, "off")
    assert "Timeout" in str(caught.value)
    assert poe.set == []


def test_a_port_that_the_switch_does_not_have(poe: Switch) -> None:
    with pytest.raises(UserError):
        SnmpPoe(poe.power(outlet="99")).switch(NODE, "off")
    assert poe.set == []


@dataclass
class Plug:
    """An HTTP plug."""

    url: str
    status: int = 200
    asked: list[tuple[str, str, str]] = field(default_factory=list)


@pytest.fixture
def plug() -> Iterator[Plug]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
            self.send_response(found.status)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Plug(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def plug_power(plug: Plug, more: str = "") -> Power:
    urls = f"on_url: '{plug.url}/{{outlet}}?turn=on', off_url: '{plug.url}/{{name}}/off'"
    return parse(f"power: {{outlets: {{rpi1: A3}}, http: {{{urls}{more}}}}}").power


def test_a_plug_is_asked(plug: Plug) -> None:
    driver = HttpPlug(plug_power(plug))
    driver.switch(NODE, "on")
    driver.switch(NODE, "off")
    assert plug.asked == [("GET", "/A3?turn=on", ""), ("GET", "/rpi1/off", "")]


def test_a_plug_with_a_password(plug: Plug, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("admin:geheim\n")
    HttpPlug(plug_power(plug, f", method: POST, password: {secret}")).switch(NODE, "on")
    assert plug.asked == [("POST", "/A3?turn=on", "Basic YWRtaW46Z2VoZWlt")]


def test_a_plug_that_refuses(plug: Plug) -> None:
    plug.status = 403
    with pytest.raises(UserError, match=r"the plug of rpi1 does not do it: .*403") as caught:
        HttpPlug(plug_power(plug)).switch(NODE, "on")
    assert caught.value.where == f"{plug.url}/A3?turn=on"


def test_a_plug_that_is_not_there() -> None:
    with pytest.raises(UserError, match="refused"):
        HttpPlug(plug_power(Plug("http://127.0.0.1:1"))).switch(NODE, "on")


def test_a_program_is_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = f"[sh, -c, 'echo $0 $1 >{out}; exit $2', '{{name}}', '{{outlet}}', "
    settings = parse(
        f"power: {{outlets: {{rpi1: A3}}, command: {{on_program: {program}'0'], off_program: {program}'4']}}}}"
    )
    Command(settings.power).switch(NODE, "on")
    assert out.read_text() == "rpi1 A3\n"
    with pytest.raises(UserError, match="ended with status 4"):
        Command(settings.power).switch(NODE, "off")


def test_a_magic_packet_is_sent_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as board:
        board.bind(("127.0.0.1", 0))
        board.settimeout(10)
        waker = WakeOnLan("127.0.0.1", board.getsockname()[1])
        waker.switch(NODE, "off")
        waker.switch(NODE, "on")
        assert board.recv(2000) == b"\xff" * 6 + bytes.fromhex("dca632000001") * 16
        board.setblocking(False)
        with pytest.raises(BlockingIOError):
            board.recv(2000)
