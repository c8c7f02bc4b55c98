"""DHCP against foreign clients (busybox udhcpc, dhclient) and captured bytes, on virtual cables in namespaces."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.nodes import leases
from tests import waiting
from tests.integration.namespaces import Namespace, network
from tests.integration.servers import started

REGISTERED = "dc:a6:32:00:00:01"
WAITING = "dc:a6:32:00:00:02"
STRANGER = "02:00:00:00:00:03"
SERVE = Path(__file__).with_name("dhcp_serve.py")
PROBE = Path(__file__).with_name("dhcp_probe.py")
CONFIG = (
    "network: {{address: 10.77.0.1/24, interface: br0, pool: 10.77.0.200-10.77.0.219}}\nservices: {{dhcp: {dhcp}}}\n"
)
PARSED = parse(CONFIG.format(dhcp="{}"))
NODES = f"nodes:\n  rpi1:\n    mac: {REGISTERED}\n    group: rpi\n    address: 10.77.0.11\n"
UDHCPC_SCRIPT = """#!/bin/sh
case "$1" in bound|renew) ip address replace "$ip/24" dev "$interface"; set > "$OUT";; esac
"""


until = partial(waiting.until, seconds=15)


@dataclass
class Lan:
    """The namespaces and the files of one server."""

    server: Namespace
    clients: dict[str, Namespace]
    folder: Path

    @property
    def leases(self) -> Path:
        return self.folder / "dhcp.leases"

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def events(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "events").read_text().splitlines()]

    @contextmanager
    def serving(self, dhcp: str = "{}", ready: str = "ready") -> Iterator[int]:
        """Run the server in its namespace; yields its process id."""
        (self.folder / "kestrelpi.yaml").write_text(CONFIG.format(dhcp=dhcp))
        (self.folder / "log").write_text("")
        with (self.folder / "log").open("ab") as out:
            files = [self.folder / name for name in ("kestrelpi.yaml", "nodes.yaml", "dhcp.leases", "events")]
            argv = self.server.argv(sys.executable, "-m", "tests.integration.dhcp_serve", *files)
            process = started(argv, output=out)
            try:
                until(lambda: ready in self.log() or process.poll() is not None, "the server's start")
                assert ready in self.log(), self.log()
                yield process.pid
            finally:
                run.stop(process)

    def udhcpc(self, client: str, *words: str) -> dict[str, str]:
        """One lease by busybox udhcpc; its script's variables."""
        script, out = self.folder / "script", self.folder / f"udhcpc-{client}"
        script.write_text(UDHCPC_SCRIPT.replace('"$OUT"', str(out)))
        script.chmod(0o755)
        out.unlink(missing_ok=True)
        self.clients[client].run(
            "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "4", "-T", "2", "-s", script, *words
        )
        return dict(re.findall(r"^(\w+)='?(.*?)'?$", out.read_text(), re.MULTILINE))

    def probe(self, client: str, raw: bytes, *words: str) -> list[bytes]:
        """Send bytes from a client without an address; the replies that come within a second or as `words` say."""
        said = self.clients[client].run(sys.executable, PROBE, raw.hex(), *words).stdout
        return [bytes.fromhex(line) for line in said.split()]


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    macs = {"registered": REGISTERED, "waiting": WAITING, "stranger": STRANGER}
    with network("10.77.0.1/24", macs) as (server, clients):
        (tmp_path / "nodes.yaml").write_text(NODES)
        (tmp_path / "events").touch()
        yield Lan(server, clients, tmp_path)


def test_udhcpc_gets_what_each_may_have(lan: Lan) -> None:
    with lan.serving():
        got = lan.udhcpc("registered")
        assert (got["ip"], got["mask"], got["router"], got["dns"]) == ("10.77.0.11", "24", "10.77.0.1", "10.77.0.1")
        assert (got["domain"], got["hostname"], got["lease"]) == ("cluster.internal", "rpi1", "43200")
        assert "boot_file" not in got and "tftp" not in got
        waiting = IPv4Address(lan.udhcpc("waiting", "-x", "hostname:new-pi")["ip"])
        assert IPv4Address("10.77.0.200") <= waiting <= IPv4Address("10.77.0.219")
        with pytest.raises(run.CommandFailed):
            lan.udhcpc("stranger")
        until(lambda: lan.leases.exists() and len(leases.read(lan.leases)) == 2, "the leases file")
        assert leases.read(lan.leases)[WAITING].hostname == "new-pi"
    with lan.serving("{strangers: address}"):
        assert lan.udhcpc("waiting")["ip"] == str(waiting), "the lease survived the restart"
        assert lan.udhcpc("stranger")["ip"] != str(waiting)


def test_udhcpc_with_the_broadcast_flag(lan: Lan) -> None:
    with lan.serving():
        assert lan.udhcpc("registered", "-B")["ip"] == "10.77.0.11"


def test_a_pi_that_was_registered_gets_its_address_at_its_next_renewal(lan: Lan) -> None:
    with lan.serving():
        old = lan.udhcpc("waiting")["ip"]
        more = f"  rpi2:\n    mac: {WAITING}\n    group: rpi\n    address: 10.77.0.12\n"
        (lan.folder / "nodes.yaml").write_text(NODES + more)
        assert lan.udhcpc("waiting", "-r", old)["ip"] == "10.77.0.12"


def test_leases_survive_a_kill(lan: Lan) -> None:
    with lan.serving() as pid:
        address = lan.udhcpc("waiting")["ip"]
        until(lambda: WAITING in leases.read(lan.leases), "the leases file")
        os.kill(pid, signal.SIGKILL)
    with lan.serving():
        lease = leases.read(lan.leases)[WAITING]
        assert str(lease.address) == address
        assert lan.udhcpc("waiting")["ip"] == address


def test_a_pi_at_another_port_of_the_switch_keeps_its_address(lan: Lan) -> None:
    with lan.serving():
        address = lan.udhcpc("waiting")["ip"]
        client = lan.clients["waiting"]
        client.ip("link", "delete", "eth0")
        words = f"link add elsewhere type veth peer name eth0 address {WAITING} netns {client.name}"
        lan.server.ip(*words.split())
        lan.server.ip("link", "set", "elsewhere", "up", "master", "br0")
        client.ip("link", "set", "eth0", "up")
        assert lan.udhcpc("waiting")["ip"] == address


def test_a_pi_with_a_new_mac_is_a_new_one_until_it_is_registered(lan: Lan) -> None:
    new = "dc:a6:32:00:00:77"
    with lan.serving():
        client = lan.clients["registered"]
        assert lan.udhcpc("registered")["ip"] == "10.77.0.11"
        client.ip("address", "flush", "dev", "eth0")
        client.ip("link", "set", "eth0", "address", new)
        assert IPv4Address(lan.udhcpc("registered")["ip"]) in PARSED.pool
        (lan.folder / "nodes.yaml").write_text(NODES.replace(REGISTERED, new))
        assert lan.udhcpc("registered")["ip"] == "10.77.0.11"


def test_dhclient_binds_and_releases(lan: Lan) -> None:
    with lan.serving(), ExitStack() as stack:
        files = [lan.folder / name for name in ("dhclient.leases", "dhclient.pid", "dhclient.conf")]
        files[2].write_text("timeout 10;\nretry 1;\n")
        words: list[str | Path] = [
            "-4",
            "-v",
            "-sf",
            "/bin/true",
            "-lf",
            files[0],
            "-pf",
            files[1],
            "-cf",
            files[2],
            "eth0",
        ]
        client = lan.clients["waiting"]
        client.run("dhclient", "-1", *words)
        stack.callback(stop_by_file, files[1])
        text = files[0].read_text()
        assert "option dhcp-server-identifier 10.77.0.1;" in text and 'option domain-name "cluster.internal";' in text
        address = re.findall(r"fixed-address ([\d.]+);", text)[-1]
        until(lambda: WAITING in leases.read(lan.leases), "the leases file")
        assert str(leases.read(lan.leases)[WAITING].address) == address
        client.ip("address", "add", f"{address}/24", "dev", "eth0")  # its script, /bin/true, didn't
        client.run("dhclient", "-r", *words)
        until(lambda: WAITING not in leases.read(lan.leases), "the release")


def stop_by_file(file: Path) -> None:
    """End the dhclient that wrote its process id to `file`, if it still runs."""
    if file.exists():
        pid = int(file.read_text())
        if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text().startswith("dhclient"):
            os.kill(pid, signal.SIGTERM)


def discover(mac: str, kind: int = 1, extra: bytes = b"", flags: int = 0, giaddr: bytes = bytes(4)) -> bytes:
    """A Pi 4's DISCOVER (or another kind) as it was captured."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    fixed = bytes([1, 1, 6, 0]) + b"\x12\x34\x56\x78" + b"\0\0" + flags.to_bytes(2, "big") + bytes(12) + giaddr
    fixed += hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
    wanted = bytes([1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135])
    guid = b"\0" + b"4iPR" + b"\x14\x31\xd0\0" + hardware[2:] + b"\x3d\xf0\xcd\x91"
    options = bytes([53, 1, kind]) + bytes([55, len(wanted)]) + wanted + b"\x5d\2\0\0\x5e\3\1\2\1"
    options += bytes([97, 17]) + guid + b"\x3c\x20PXEClient:Arch:00000:UNDI:002001" + extra + b"\xff"
    return fixed + options


def test_a_loader_without_an_address_is_answered_at_its_mac_with_checksum_0(lan: Lan) -> None:
    with lan.serving():
        (frame,) = lan.probe("registered", discover(REGISTERED), "--checksum-0")
        assert frame[:6] == bytes.fromhex(REGISTERED.replace(":", "")), "unicast to the MAC"
        assert frame[26:34] == bytes([10, 77, 0, 1, 10, 77, 0, 11])
        offer = frame[42:]
        assert offer[16:20] == bytes([10, 77, 0, 11]) and b"Raspberry Pi Boot   \xff" in offer
        (frame,) = lan.probe("registered", discover(REGISTERED, flags=0x8000))
        assert frame[:6] == b"\xff" * 6 and frame[30:34] == b"\xff" * 4
        until(lambda: [REGISTERED, "sighted", "91cdf03d"] in lan.events(), "the sighting")
        assert [stage for _, stage, _ in lan.events()][:3] == ["discover", "sighted", "offer"]


def test_a_rom_waits_for_its_offer_and_nobody_else_does(lan: Lan) -> None:
    with lan.serving("{rom_delay: 1s}"):
        mac = "b8:27:eb:00:00:09"
        raw = discover(mac).replace(bytes([55, 14, 1, 3]), bytes([55, 12]))
        said = lan.clients["waiting"].run(sys.executable, PROBE, raw.hex(), "--seconds", "3", "--times").stdout
        (line,) = said.split("\n")[:-1]
        assert float(line) >= 0.95


def test_an_address_that_somebody_uses_without_a_lease_is_not_offered(lan: Lan) -> None:
    """The Pi would get the same address again, as its MAC says where to look first, if it weren't for the probe."""
    with lan.serving():
        first = lan.udhcpc("waiting")["ip"]
        until(lambda: WAITING in leases.read(lan.leases), "the leases file")
    lan.leases.unlink()
    lan.clients["waiting"].ip("address", "flush", "dev", "eth0")
    with lan.serving():
        assert lan.udhcpc("waiting")["ip"] == first
    lan.leases.unlink()
    lan.clients["waiting"].ip("address", "flush", "dev", "eth0")
    lan.clients["stranger"].ip("address", "add", f"{first}/24", "dev", "eth0")
    with lan.serving():
        assert IPv4Address(lan.udhcpc("waiting")["ip"]) in PARSED.pool
        assert leases_of(lan, WAITING) != first
        assert f"{first} is in use by {STRANGER}" in lan.log()
    assert json.loads(lan.log().splitlines()[-1])["in_use"] == 1


def leases_of(lan: Lan, mac: str) -> str:
    """The address that the file says `mac` has."""
    until(lambda: mac in leases.read(lan.leases), "the leases file")
    return str(leases.read(lan.leases)[mac].address)


def test_a_relay_gets_its_answer_at_its_own_address(lan: Lan) -> None:
    with lan.serving():
        lan.clients["stranger"].ip("address", "add", "10.77.0.50/24", "dev", "eth0")
        raw = discover(WAITING, giaddr=bytes([10, 77, 0, 50]), extra=b"\x52\x06\x01\x04eth7")
        said = lan.clients["stranger"].run(sys.executable, PROBE, raw.hex(), "--relay", "10.77.0.50").stdout
        (offer,) = [bytes.fromhex(line) for line in said.split()]
        assert offer[24:28] == bytes([10, 77, 0, 50]) and b"\x52\x06\x01\x04eth7\xff" in offer


def test_a_second_server_is_named(lan: Lan, tmp_path: Path) -> None:
    """A dnsmasq on the same cable, found by its broadcast offer: our own request never goes to it."""
    other = lan.clients["stranger"]
    other.ip("address", "add", "10.77.0.254/24", "dev", "eth0")
    conf = tmp_path / "other.conf"
    conf.write_text(
        "port=0\nno-daemon\nuser=root\ninterface=eth0\nbind-interfaces\n"
        f"dhcp-range=10.77.0.150,10.77.0.160,1h\ndhcp-leasefile={tmp_path / 'other.leases'}\n"
    )
    process = started(other.argv("dnsmasq", f"--conf-file={conf}"))
    try:
        with lan.serving():
            until(
                lambda: len(lan.probe("waiting", discover(WAITING, flags=0x8000), "--seconds", "2")) == 2,
                "the answers of both servers",
                seconds=30,
            )
            until(lambda: "a second DHCP server answers on this network: 10.77.0.254" in lan.log(), "the warning")
            assert "network: 10.77.0.1." not in lan.log()
    finally:
        run.stop(process)


def test_nonsense_is_counted_and_the_next_client_is_served(lan: Lan) -> None:
    with lan.serving():
        lan.clients["stranger"].ip("address", "add", "10.77.0.50/24", "dev", "eth0")
        code = "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
        code += "[s.sendto(p,('10.77.0.1',67)) for p in (b'',b'x',bytes(300),b'\\xff'*1400)]"
        lan.clients["stranger"].run(sys.executable, "-c", code)
        assert lan.udhcpc("registered")["ip"] == "10.77.0.11"
    until(lambda: '"malformed"' in lan.log(), "the counters")
    assert json.loads(lan.log().splitlines()[-1])["malformed"] == 4
    assert "Traceback" not in lan.log()


def test_a_taken_port_is_said(lan: Lan) -> None:
    with lan.serving():
        first = lan.log()
        files = [lan.folder / name for name in ("kestrelpi.yaml", "nodes.yaml", "other.leases", "events")]
        with pytest.raises(run.CommandFailed) as failed:
            run.run(
                lan.server.argv(sys.executable, "-m", "tests.integration.dhcp_serve", *files),
                cwd=Path(__file__).parent.parent.parent,
                timeout=20,
            )
        assert "DHCP can't listen on 0.0.0.0:67" in failed.value.detail
        assert lan.log() == first


def test_a_delay_longer_than_the_pause_between_two_tries_ends_all_the_same(lan: Lan) -> None:
    with lan.serving("{rom_delay: 3s}"):
        raw = discover("b8:27:eb:00:00:09").replace(bytes([55, 14, 1, 3]), bytes([55, 12]))
        words = ["--seconds", "4.5", "--again", "2"]
        said = lan.clients["waiting"].run(sys.executable, PROBE, raw.hex(), *words).stdout
        assert len(said.split()) == 1, "the offer to the first try, before the second one's time has come"


def test_on_loopback_without_rights_the_answer_goes_back_to_where_it_came_from(tmp_path: Path) -> None:
    """Port 6767 and a plain socket: what an unprivileged test of the whole daemon uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "kestrelpi.yaml"
    config.write_text(f"network: {{address: 10.77.0.1/24}}\nservices: {{listen: 127.0.0.1, dhcp: {{port: {port}}}}}\n")
    (tmp_path / "nodes.yaml").write_text(NODES)
    with (tmp_path / "log").open("wb") as out:
        files = [config, *(tmp_path / name for name in ("nodes.yaml", "dhcp.leases", "events"))]
        process = started([sys.executable, "-m", "tests.integration.dhcp_serve", *files], output=out)
        try:
            until(lambda: "ready" in (tmp_path / "log").read_text(), "the server's start")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.sendto(discover(REGISTERED), ("127.0.0.1", port))
                offer = client.recv(2048)
            assert offer[16:24] == bytes([10, 77, 0, 11, 127, 0, 0, 1])
        finally:
            run.stop(process)
