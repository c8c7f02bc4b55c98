"""Each fault made with simulated Pis and real servers, and its name expected from `kestrelpi doctor`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.images import binfmt
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.network import BRIDGE
from kestrelpi.nodes.boots import Stage, file_of, read
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.services.daemon import WATCH
from tests import prometheus
from tests.integration import lab_dnsmasq
from tests.integration.test_lab_dnsmasq import Bench
from tests.integration.test_lab_serve import CONFIG, GENERATION, furnish
from tests.program import program
from tests.waiting import until

BPDU = (
    "0180c2000000 001c0e877804 0026 424203 0000 00 00 00 8001001c0e878500 00000004 8064001c0e877800 "
    "8004 0100 1400 0200 0f00"
)
SEND = "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); \
s.send(bytes.fromhex(sys.argv[1]))"
SEVERITIES = ("hint", "warning", "error")
CLOSED = """\
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop;
    iifname lo accept
    ct state established accept
    udp dport { 67, 69 } accept
  }
}
"""
"""A firewall that lets nodes fetch their boot files, and nothing else."""
WITHIN = 20.0
"""Seconds for what was heard to be on disk."""


class Ward(Bench):
    """The lab, its services, and the doctor."""

    lab: Lab

    @property
    def boot_folder(self) -> Path:
        return self.paths.images / "default/generations" / GENERATION / "boot"

    def doctor(self, *words: str, before: str = "") -> dict[str, Any]:
        """`before`: shell commands in a mount namespace of the doctor's own."""
        argv = program(self.paths.root, "--json", "doctor", *words)
        if before:
            argv = ["unshare", "--mount", "sh", "-euc", f'{before}; exec "$@"', "sh", *argv]
        done = subprocess.run(self.lab.enter(argv), capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        severities = [SEVERITIES.index(one["severity"]) for one in document["findings"]]
        assert severities == sorted(severities, reverse=True), "worst first"
        assert done.returncode == document["status"] == max(severities, default=0), done.stderr
        return document

    def names(self, pi: PiSpec) -> list[str]:
        """The findings about one Pi, the worst first."""
        found = self.doctor(pi.mac)["findings"]
        return [one["name"] for one in found if one["node"] == pi.mac]

    def frontend(self, before: str = "") -> dict[str, Mapping[str, str]]:
        return {one["name"]: one for one in self.doctor(before=before)["findings"] if not one["node"]}

    def nodes(self, *words: str) -> Any:
        """What `kestrelpi nodes` says."""
        argv = program(self.paths.root, "--json", "nodes", *words)
        return json.loads(run.run(self.lab.enter(argv)).stdout)

    def report(self, pi: PiSpec, stage: str, detail: str = "") -> None:
        """What the Pi's system would tell, from its own address."""
        url = f"http://10.99.0.1:8067/v1/stage/{stage}"
        self.inside(pi, "curl", "-sS", "--fail-with-body", "--data", detail, url)

    def inside(self, pi: PiSpec, *words: str) -> str:
        return run.run(self.network.enter(words, self.network.of(pi.index))).stdout

    def age(self, pi: PiSpec, seconds: float) -> None:
        """Let time pass: the timeline of a Pi becomes so much older."""
        time.sleep(2 * WATCH)  # all of it is written by then
        path = file_of(self.paths.boots, pi.mac)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**one, "at": one["at"] - seconds}) + "\n" for one in lines))


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    paths = Paths(folder / "root")
    furnish(paths, CONFIG)
    with Lab(paths, parse(CONFIG), attached=True) as lab:
        made = Ward(lab.network, folder)
        made.lab = lab
        lab.up(list(made.pis.values()), on=False)
        yield made


def test_a_pi_that_boots_has_no_finding_and_then_falls_silent(ward: Ward) -> None:
    pi = ward.pis["5"]
    assert ward.boot(pi).started
    assert ward.names(pi) == []
    ward.age(pi, 600)
    assert ward.names(pi) == ["fell-silent"]
    assert ward.doctor(pi.mac)["status"] == 2


def test_the_services_answer_the_doctor(ward: Ward) -> None:
    silent = [name for name in ward.frontend() if name.endswith("-silent") or name in ("not-serving", "no-address")]
    assert silent == []


def test_a_missing_file(ward: Ward) -> None:
    pi = ward.pis["4"]
    hidden = ward.boot_folder / "vmlinuz"
    content = hidden.read_bytes()
    hidden.unlink()
    try:
        assert ward.boot(pi).failed_stage == "kernel"
    finally:
        hidden.write_bytes(content)
    ward.age(pi, 30)
    assert ward.names(pi) == ["missing-file"]
    (finding,) = ward.doctor(pi.mac)["findings"][:1]
    assert "vmlinuz" in finding["what"] and finding["severity"] == "error"


def test_an_offer_that_is_ignored(ward: Ward) -> None:
    pi = ward.pis["400"]
    ward.network.connect(pi.index, "loader")
    argv = [sys.executable, "-m", "tests.integration.picky_pi", pi.mac, pi.serial, "14"]
    done = subprocess.run(
        ward.network.enter(argv, ward.network.of(pi.index)), capture_output=True, text=True, check=False
    )
    assert "Another Boot" in done.stdout, done.stderr
    assert ward.names(pi) == ["offer-ignored"]


def test_an_old_eeprom(ward: Ward) -> None:
    pi = ward.pis["4-old"]
    assert ward.boot(pi).started
    assert ward.names(pi) == ["old-eeprom"]
    (finding,) = [one for one in ward.doctor(pi.mac)["findings"] if one["node"]]
    assert all(sign in finding["what"] for sign in ("blksize 1024", "option 97", "option 60"))
    assert finding["severity"] == "warning"


def test_another_dhcp_server(ward: Ward) -> None:
    with ward.router():
        found = ward.frontend()
        assert "10.99.0.2" in found["foreign-dhcp"]["what"]
        assert found["foreign-dhcp"]["severity"] == "warning"
    heard = [one["what"] for one in ward.doctor()["findings"] if one["name"] == "foreign-dhcp"]
    assert len(heard) == 1, "it is gone, but the daemon heard it; and nobody takes us for one"


def test_another_boot_proxy(ward: Ward) -> None:
    """It was asked by the doctor, and a Pi that booted meanwhile heard it."""
    pi = ward.pis["CM4"]
    with ward.router(lab_dnsmasq.ONLY_A_PROXY):
        ward.boot(pi)
        found = ward.frontend()["foreign-proxy"]
    assert "10.99.0.2" in found["what"] and found["severity"] == "warning"
    assert "foreign-proxy" in ward.names(pi)


def test_two_boards_with_one_serial(ward: Ward) -> None:
    one, two = ward.pis["3B+"], ward.pis["CM5"]
    twin = PiSpec(two.index, two.model, two.mac, one.serial)
    for pi in (one, twin, one):
        ward.boot(pi)
    until(lambda: "same-serial" in ward.names(one), "the finding", WITHIN)
    assert "same-serial" in ward.names(twin)


def test_what_a_node_says_of_itself(ward: Ward) -> None:
    pi = ward.pis["5"]
    ward.boot(pi)
    ward.report(pi, "initramfs", "link 3.2 s, address 34.1 s")
    assert ward.names(pi) == ["stp-gap"]
    ward.report(pi, "failed", "while mounting the root: mount -t nfs4 -o ro x: Connection refused")
    assert ward.names(pi)[0] == "failed-initramfs"
    ward.boot(pi)
    ward.report(pi, "ready", "failed units: munge.service; low voltage")
    assert ward.names(pi) == ["failed-units", "low-voltage"]


def test_a_boot_loop(ward: Ward) -> None:
    pi = ward.pis["3B+"]
    for _ in range(3):
        ward.boot(pi)
    assert "boot-loop" in ward.names(pi)


def test_a_switch_that_speaks_spanning_tree(ward: Ward) -> None:
    ward.network.connect(ward.pis["5"].index, "loader")
    ward.inside(ward.pis["5"], sys.executable, "-c", SEND, BPDU)
    until(lambda: "stp-seen" in ward.frontend(), "the finding", WITHIN)
    assert "00:1c:0e:87:78:00" in ward.frontend()["stp-seen"]["what"]


def test_the_frontends_own_faults(ward: Ward) -> None:
    current = ward.paths.images / "default/current"
    target = current.readlink()
    current.unlink()
    run.run(["ip", "-n", ward.network.namespace, "address", "add", "10.99.0.1/32", "dev", "lo"])
    run.run(["ip", "-n", ward.network.namespace, "address", "delete", "10.99.0.1/24", "dev", BRIDGE])
    ward.paths.config.write_text(CONFIG.replace("network: {", f"network: {{interface: {BRIDGE}, "))
    try:
        found = ward.frontend()
    finally:
        ward.paths.config.write_text(CONFIG)
        current.symlink_to(target)
        run.run(["ip", "-n", ward.network.namespace, "address", "add", "10.99.0.1/24", "brd", "+", "dev", BRIDGE])
        run.run(["ip", "-n", ward.network.namespace, "address", "delete", "10.99.0.1/32", "dev", "lo"])
    assert found["image-not-built"]["severity"] == found["no-address"]["severity"] == "error"


def test_a_firewall_that_keeps_nodes_out(ward: Ward) -> None:
    rules = ward.folder / "rules"
    rules.write_text(CLOSED)
    run.run(ward.network.enter(["nft", "--file", rules]))
    try:
        dropped = [one["what"] for one in ward.doctor()["findings"] if one["name"] == "firewall"]
    finally:
        run.run(ward.network.enter(["nft", "flush", "ruleset"]))
    ports = "tcp port 8067 (http)", "udp port 53 (dns)"
    assert sorted(dropped) == [f"the firewall drops {port} on {BRIDGE}" for port in ports]
    assert "firewall" not in ward.frontend()


def test_an_nfs_server_that_does_not_answer(ward: Ward) -> None:
    ward.paths.config.write_text(CONFIG.replace("backend: none", "backend: kernel"))
    try:
        assert "refused" in ward.frontend()["nfs-silent"]["what"]
    finally:
        ward.paths.config.write_text(CONFIG)


def test_no_emulation_a_full_disk_and_a_lost_clock(ward: Ward) -> None:
    """Each is there for the doctor alone, in a mount namespace of its own."""
    images = ward.paths.images / "default"
    small = (
        f"mount -t tmpfs -o size=64m tmpfs {ward.paths.state}; mkdir -p {images}/generations/20991231-000000-00000001"
    )
    found = ward.frontend(f"mount -t tmpfs tmpfs {binfmt.FOLDER}; {small}")
    assert found["disk-full"]["severity"] == found["clock-wrong"]["severity"] == "error"
    assert binfmt.is_native() or found["no-binfmt"]["severity"] == "warning"
    assert not {"disk-full", "clock-wrong", "no-binfmt"} & set(ward.frontend())


def test_nodes_list_and_nodes_show_say_it_too(ward: Ward) -> None:
    expected = {
        "4": ("firmware", "missing-file"),
        "400": ("offer", "offer-ignored"),
        "4-old": ("kernel", "old-eeprom"),
        "CM4": ("kernel", "foreign-proxy"),
        "CM5": ("", "same-serial"),
        "5": ("ready", "failed-units"),
    }
    pis = {f"n{number}": (ward.pis[model], *said) for number, (model, said) in enumerate(expected.items(), 1)}
    nodes = [Node(name, pi.mac, "rpi", IPv4Address("10.99.0.60") + pi.index) for name, (pi, _, _) in pis.items()]
    ward.paths.registry.write_text(Registry.of(nodes).emit())
    for row in ward.nodes("list"):
        pi, stage, name = pis[row["name"]]
        assert row["mac"] == pi.mac and stage in ("", row["stage"]), row
        shown = ward.nodes("show", row["name"])
        names = [one["name"] for one in shown["findings"]]
        assert name in names and row["finding"] == names[0], row
        assert set(shown["boots"][-1]["stages"]) >= {"discover", "offer"}
    ward.paths.registry.unlink()


def test_a_slip_in_the_configuration(ward: Ward) -> None:
    ward.paths.config.write_text("network: {adress: 10.99.0.1/24}\n")
    try:
        assert ward.doctor()["findings"][0]["name"] == "bad-configuration"
    finally:
        ward.paths.config.write_text(CONFIG)


def test_metrics(ward: Ward) -> None:
    argv = ["curl", "-sS", "--fail", "-D", "-", "http://10.99.0.1:8067/metrics"]
    # the TFTP workers tell their counters every 5 s
    time.sleep(6)
    head, _, text = run.run(ward.network.enter(argv)).stdout.replace("\r\n", "\n").partition("\n\n")
    assert re.search(r"(?im)^content-type: text/plain; version=0.0.4", head)
    page = prometheus.parse(text)
    booted = sum(len(read(ward.paths.boots, pi.mac)) for pi in ward.pis.values())
    assert page.value("kestrelpi_boots_begun_total") == booted
    assert page.value("kestrelpi_boots_total", result="ready") == 1
    assert page.value("kestrelpi_boots_total", result="failed") == 1
    assert page.value("kestrelpi_boot_stage_seconds_count", stage=Stage.READY.value) == 1
    assert page.value("kestrelpi_dhcp_received_total", type="discover") >= booted
    assert page.value("kestrelpi_tftp_transfers_total", result="missing") > 0
    assert page.value("kestrelpi_tftp_bytes_total") > 1_000_000
    assert page.value("kestrelpi_foreign_dhcp_servers") == 1


def test_nothing_was_a_traceback(ward: Ward) -> None:
    assert "Traceback" not in (ward.paths.log / "serve.log").read_text()
