"""kestrelpi as a boot proxy: every simulated boot loader gets its address from a foreign server, its files from us."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.loader import LoaderReport
from kestrelpi.lab.network import BRIDGE
from kestrelpi.lab.profiles import PROFILES
from kestrelpi.nodes import boots, leases, sightings
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.registering import Registered, Registrar, watch
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.pdeathsig import dies_with_us
from tests import waiting
from tests.integration.lab_dnsmasq import dnsmasq
from tests.integration.test_lab_dnsmasq import Bench, said
from tests.integration.test_lab_serve import furnish

CONFIG = """\
network: {address: 10.99.0.1/24}
services: {nfs: {backend: none}, dhcp: {backend: proxy}}
images: {default: {modules: []}}
"""
PARSED = parse(CONFIG)
ROUTER = IPv4Address("10.99.0.2")


until = partial(waiting.until, seconds=30)


class Foreign:
    """Another machine on the lab's wire, for the server of addresses."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.namespace = f"{bench.network.namespace}-router"
        ours = bench.network.namespace
        run.run(["ip", "netns", "add", self.namespace])
        add = f"link add router type veth peer name eth0 netns {self.namespace}"
        run.run(["ip", "-n", ours, *add.split()])
        run.run(["ip", "-n", ours, *f"link set router up master {BRIDGE}".split()])
        run.run(["ip", "-n", self.namespace, "address", "add", f"{ROUTER}/24", "brd", "+", "dev", "eth0"])
        run.run(["ip", "-n", self.namespace, "link", "set", "eth0", "up"])

    def dnsmasq(self, first: int = 130) -> AbstractContextManager[Path]:
        folder = self.bench.folder / f"dnsmasq-{first}"
        config = f"dhcp-range=10.99.0.{first},10.99.0.{first + 17},255.255.255.0,1h\ndhcp-option=3,{ROUTER}\n"
        # A Pi 3's loader confirms no lease, so without a reservation the next Pi could get the same address.
        threes = [pi for pi in self.bench.pis.values() if pi.profile.family == 3]
        for number, pi in enumerate(threes, first + 18):
            config += f"dhcp-host={pi.mac},10.99.0.{number}\n"
        return dnsmasq(self.bench.network, folder, config, {}, namespace=self.namespace, interface="eth0")

    @contextmanager
    def kea(self) -> Iterator[Path]:
        """Kea with the least that it needs; yields its log."""
        folder = self.bench.folder / "kea"
        folder.mkdir()
        config, log = folder / "kea.json", folder / "log"
        router = {"name": "routers", "data": str(ROUTER)}
        subnet = {
            "subnet": "10.99.0.0/24",
            "pools": [{"pool": "10.99.0.130 - 10.99.0.149"}],
            "option-data": [router],
        }
        dhcp4 = {
            "interfaces-config": {"interfaces": ["eth0"]},
            "lease-database": {"type": "memfile", "persist": False},
            "subnet4": [subnet],
            "loggers": [{"name": "kea-dhcp4", "severity": "DEBUG", "output_options": [{"output": str(log)}]}],
        }
        config.write_text(json.dumps({"Dhcp4": dhcp4}))
        argv: list[str | Path] = [
            "env",
            f"KEA_PIDFILE_DIR={folder}",
            f"KEA_LOCKFILE_DIR={folder}",
            "kea-dhcp4",
            "-c",
            config,
        ]
        with (folder / "out").open("wb") as out:
            process = run.start(dies_with_us(self.bench.network.enter(argv, self.namespace)), output=out)
        try:
            until(lambda: log.exists() and "DHCP4_STARTED" in log.read_text(), (folder / "out").read_text() or "start")
            yield log
        finally:
            run.stop(process)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    paths = Paths(tmp_path / "root")  # Bench.paths
    furnish(paths, CONFIG)
    with Lab(paths, PARSED, attached=True) as lab:
        made = Bench(lab.network, tmp_path)
        lab.up(list(made.pis.values()), on=False)
        yield made


def check_boots(bench: Bench, reports: dict[str, LoaderReport]) -> None:
    """Each has its kernel from us, and one address from the foreign server."""
    for model, report in reports.items():
        assert (report.failure, report.started, said(report)) == ("", True, []), model
        assert (report.server, report.kernel, report.initramfs) == ("10.99.0.1", "vmlinuz", ["initramfs.img"])
        assert IPv4Address("10.99.0.130") <= IPv4Address(report.address) <= IPv4Address("10.99.0.149")
        vmlinuz = bench.paths.images / "default/current/boot/vmlinuz"
        assert bench.downloaded(bench.pis[model], "vmlinuz") == vmlinuz.read_bytes()
    assert len({report.address for report in reports.values()}) == len(PROFILES)
    log = (bench.paths.log / "serve.log").read_text()
    assert "Traceback" not in log and " ERROR " not in log and "a second DHCP server" not in log


def check_met(bench: Bench, reports: dict[str, LoaderReport]) -> None:
    """All of them are known by MAC, address and, where option 97 has it, serial."""
    addresses = {bench.pis[model].mac: IPv4Address(report.address) for model, report in reports.items()}
    until(
        lambda: {mac: lease.address for mac, lease in leases.read(bench.paths.leases).items()} == addresses,
        "the leases file",
    )
    until(lambda: len(sightings.read(bench.paths.sightings)) == len(PROFILES), "the sightings")
    assert sightings.read(bench.paths.sightings)[bench.pis["5"].mac].serial == bench.pis["5"].serial
    last = boots.read(bench.paths.boots, bench.pis["4"].mac)[-1]
    wanted = [Stage.DISCOVER, Stage.OFFER, Stage.REQUEST, Stage.FIRMWARE, Stage.KERNEL]
    assert [stage for stage in last.stages if stage in wanted] == wanted


def test_beside_dnsmasq_from_unknown_to_registered_to_another_address(bench: Bench) -> None:
    foreign = Foreign(bench)
    with foreign.dnsmasq() as log:
        reports = {model: bench.boot(pi) for model, pi in bench.pis.items()}
        check_boots(bench, reports)
        check_met(bench, reports)
        assert "DHCPACK" in log.read_text()
        registrar = Registrar(bench.paths, PARSED, "rpi")
        events = list(watch(registrar, len(PROFILES), 30))
        nodes = {event.node.mac: event.node for event in events if isinstance(event, Registered)}
        assert {mac: str(node.address) for mac, node in nodes.items()} == {
            bench.pis[model].mac: report.address for model, report in reports.items()
        }
        until(lambda: "reloaded: " in (bench.paths.log / "serve.log").read_text(), "the new registry")
        for model in ("3B", "4"):
            report, pi = bench.boot(bench.pis[model]), bench.pis[model]
            assert (report.started, report.address) == (True, reports[model].address)
            assert nodes[pi.mac].name.encode() in bench.downloaded(pi, "config.txt")
    with foreign.dnsmasq(first=160):
        pi = bench.pis["4"]
        report = bench.boot(pi)
        assert report.started and nodes[pi.mac].name.encode() in bench.downloaded(pi, "config.txt")
        assert report.address != reports["4"].address

        def followed() -> bool:
            return str(Registry.load(bench.paths.registry, PARSED).by_mac[pi.mac].address) == report.address

        until(followed, "the registry's following")


def test_beside_kea(bench: Bench) -> None:
    with Foreign(bench).kea() as log:
        reports = {model: bench.boot(pi) for model, pi in bench.pis.items()}
        check_boots(bench, reports)
        check_met(bench, reports)
        assert "DHCP4_LEASE_ALLOC" in log.read_text()
