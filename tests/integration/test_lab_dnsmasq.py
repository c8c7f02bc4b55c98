"""Every simulated boot loader against a stock dnsmasq, over real sockets in network namespaces."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.lab.identity import PiSpec, pi_spec
from kestrelpi.lab.loader import LoaderReport
from kestrelpi.lab.network import BRIDGE, LabNetwork
from kestrelpi.lab.profiles import PROFILES
from kestrelpi.paths import Paths
from tests.integration import lab_dnsmasq
from tests.integration.lab_dnsmasq import dnsmasq

CONFIG = "arm_64bit=1\nkernel=vmlinuz\ninitramfs initramfs.img followkernel\ndtoverlay=disable-bt\n"
SIZES = {
    "bootcode.bin": 52_480,
    "start.elf": 300_000,
    "fixup.dat": 7_300,
    "start4.elf": 225_000,
    "fixup4.dat": 5_400,
    "vmlinuz": 1_468 * 400,  # whole blocks only: an empty one must end it
    "initramfs.img": 512 * 500,
    "overlays/disable-bt.dtbo": 1_000,
    **{profile.dtb: 30_000 for profile in PROFILES.values()},
}


class Bench:
    """One lab network with a Pi of each model, and a folder that dnsmasq serves."""

    def __init__(self, network: LabNetwork, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.paths = Paths(folder / "root")
        self.pis = {model: pi_spec(network.name, index, model) for index, model in enumerate(PROFILES, 1)}
        self.tftp = folder / "tftp"
        self.files = {name: os.urandom(size) for name, size in SIZES.items()}
        self.files |= {"config.txt": CONFIG.encode(), "cmdline.txt": b"console=ttyS1 root=x\n"}

    def serve(self, prefix: str = "", rom_folder: str = "") -> None:
        """Put all files below `prefix`, and what a Pi 3's ROM asks for, which knows no prefix, in `rom_folder`."""
        for name, content in self.files.items():
            path = self.tftp / (rom_folder if name == "bootcode.bin" else prefix) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def dnsmasq(self, config: str) -> AbstractContextManager[Path]:
        return dnsmasq(self.network, self.folder / "dnsmasq", config, {"tftp": self.tftp})

    @contextmanager
    def router(self, config: str = lab_dnsmasq.ROUTER) -> Iterator[Path]:
        """Another machine on the same wire: it gives addresses, or what `config` says."""
        namespace = f"{self.network.namespace}-router"
        run.run(["ip", "netns", "add", namespace])
        add = f"link add router type veth peer name eth0 netns {namespace}"
        try:
            run.run(["ip", "-n", self.network.namespace, *add.split()])
            run.run(["ip", "-n", self.network.namespace, *f"link set router up master {BRIDGE}".split()])
            run.run(["ip", "-n", namespace, "address", "add", "10.99.0.2/24", "dev", "eth0"])
            run.run(["ip", "-n", namespace, "link", "set", "eth0", "up"])
            folder = self.folder / "router"
            with dnsmasq(self.network, folder, config, {"tftp": folder}, namespace=namespace, interface="eth0") as log:
                yield log
        finally:
            run.run(["ip", "-n", self.network.namespace, "link", "delete", "router"])  # else it goes some time later
            run.run(["ip", "netns", "delete", namespace])

    def boot(self, pi: PiSpec, dhcp_timeout: float | None = None) -> LoaderReport:
        out = self.folder / pi.serial
        out.mkdir(exist_ok=True)
        self.network.connect(pi.index, "loader")
        argv: list[str | Path] = [
            sys.executable, "-m", "kestrelpi.lab.boot", "--model", pi.model, "--mac", pi.mac, "--serial", pi.serial,
            "--interface", "eth0", "--folder", out / "boot", "--report", out / "report.json",
        ]  # fmt: skip
        if dhcp_timeout is not None:
            argv += ["--dhcp-timeout", str(dhcp_timeout)]
        namespace = self.network.of(pi.index)
        try:
            run.run(self.network.enter(argv, namespace))
        except run.CommandFailed:
            assert (out / "report.json").exists(), run.run(self.network.enter(argv, namespace)).stdout
        return LoaderReport.from_json((out / "report.json").read_text())

    def downloaded(self, pi: PiSpec, name: str) -> bytes:
        return (self.folder / pi.serial / "boot" / name).read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    network = LabNetwork(f"t{os.getpid()}")
    network.remove()
    pis = [pi_spec(network.name, index, model) for index, model in enumerate(PROFILES, 1)]
    network.create(IPv4Interface("10.99.0.1/24"), pis)
    try:
        yield Bench(network, tmp_path)
    finally:
        network.remove()


def said(report: LoaderReport) -> list[str]:
    """The warnings, except the one that only says that this machine was too busy to answer a server in time."""
    return [warning for warning in report.warnings if "came twice" not in warning]


def check_whole_boot(bench: Bench, pi: PiSpec, report: LoaderReport, prefix: str) -> None:
    assert (report.failure, report.started, said(report)) == ("", True, [])
    assert (report.prefix, report.server, report.kernel) == (prefix, "10.99.0.1", "vmlinuz")
    assert report.cmdline == "console=ttyS1 root=x"
    for name in ("vmlinuz", "initramfs.img", pi.profile.dtb, "overlays/disable-bt.dtbo"):
        assert bench.downloaded(pi, name) == bench.files[name]
    check_order(report, prefix)
    stages = [one.stage for one in report.stages]
    assert ("request" in stages) == (pi.profile.family != 3)


def check_order(report: LoaderReport, prefix: str) -> None:
    """What every published log agrees on."""
    names = [one.name.replace("//", "/").removeprefix(prefix).lstrip("/") for one in report.files]
    blksizes = {one.name.rpartition("/")[2]: one.blksize for one in report.files if one.result == "got"}
    assert names.index("config.txt") < names.index("vmlinuz")
    assert names.index("cmdline.txt") < len(names) - 1 - names[::-1].index("vmlinuz")
    match PROFILES[report.model].family:
        case 3:
            assert names[:2] == ["bootcode.bin", "bootsig.bin"]
            assert "pieeprom.sig" not in names
            assert set(blksizes.values()) == {512}
        case 4:
            start = len(names) - 1 - names[::-1].index("start4.elf")
            assert names.index("config.txt") < names.index("pieeprom.sig") < start < names.index("dt-blob.bin")
            assert blksizes["start4.elf"] == (1024 if report.model == "4-old" else 1468)
            assert blksizes["vmlinuz"] == 1024
        case 5:
            assert not [name for name in names if name.startswith(("start", "fixup", "bootcode"))]
            assert set(blksizes.values()) == {1468}


def test_every_model_boots_from_the_root_folder(bench: Bench) -> None:
    bench.serve()
    with bench.dnsmasq(lab_dnsmasq.LTSP):
        reports = {model: bench.boot(pi) for model, pi in bench.pis.items()}
    for model, report in reports.items():
        check_whole_boot(bench, bench.pis[model], report, "")
        assert report.server_from == "option 54"
    # A Pi 3 takes its offer without a REQUEST: dnsmasq makes no lease of it, and may offer the address again.
    leased = [report.address for report in reports.values() if PROFILES[report.model].family != 3]
    assert len(set(leased)) == len(leased) > 1


def test_every_model_boots_from_the_folder_of_its_serial(bench: Bench) -> None:
    for pi in bench.pis.values():
        bench.serve(f"{pi.serial}/")
    with bench.dnsmasq(lab_dnsmasq.LTSP):
        for pi in bench.pis.values():
            check_whole_boot(bench, pi, bench.boot(pi), f"{pi.serial}/")


def test_piserver_as_a_proxy_beside_a_router(bench: Bench) -> None:
    """The address from the router's offer, the boot server from the proxy's; one address in all exchanges."""
    for pi in bench.pis.values():
        folder = f"{pi.mac.replace(':', '-')}/"
        bench.serve(folder, rom_folder=folder)
    with bench.router() as router, bench.dnsmasq(lab_dnsmasq.PISERVER) as proxy:
        for model in ("3B+", "4", "4-old", "400", "CM4", "5", "CM5"):
            pi = bench.pis[model]
            report = bench.boot(pi)
            check_whole_boot(bench, pi, report, "")
            assert {line.split()[-2] for line in offers(router, pi)} == {report.address}
    assert "DHCPREQUEST" not in proxy.read_text()


def offers(log: Path, pi: PiSpec) -> list[str]:
    return [line for line in log.read_text().splitlines() if "DHCPOFFER" in line and pi.mac in line]


def test_the_rom_of_a_3b_wants_three_spaces(bench: Bench) -> None:
    bench.serve()
    with bench.dnsmasq(lab_dnsmasq.NO_SPACES) as log:
        rom = bench.boot(bench.pis["3B"])
        plus = bench.boot(bench.pis["3B+"])
    check_whole_boot(bench, bench.pis["3B+"], plus, "")
    assert (rom.started, rom.failed_stage, rom.discovers, rom.files) == (False, "offer", 5, [])
    assert "option 43 lacks b'Raspberry Pi Boot   '" in rom.failure
    assert len(offers(log, bench.pis["3B"])) == 5


@pytest.mark.parametrize("model", ["4", "5"])
def test_an_address_as_text_is_enough_for_an_eeprom(bench: Bench, model: str) -> None:
    bench.serve()
    with bench.dnsmasq(lab_dnsmasq.OPTION_66):
        report = bench.boot(bench.pis[model])
    check_whole_boot(bench, bench.pis[model], report, "")
    assert report.server_from == "option 66 with a NUL at its end"


@pytest.mark.parametrize(
    ("config", "reason"),
    [(lab_dnsmasq.BINARY_66, "not an address as text"), (lab_dnsmasq.NEXT_SERVER, "option 66 is missing")],
)
def test_what_is_no_offer_for_an_eeprom(bench: Bench, config: str, reason: str) -> None:
    bench.serve()
    with bench.dnsmasq(config):
        report = bench.boot(bench.pis["4"], dhcp_timeout=7)  # a second DISCOVER after 4 s, a third after 8
    assert (report.started, report.failed_stage, report.discovers) == (False, "offer", 2)
    assert reason in report.failure


def test_the_wire_carries_the_published_bytes(bench: Bench) -> None:
    """dnsmasq's own log of what it read."""
    bench.serve()
    with bench.dnsmasq(lab_dnsmasq.LTSP) as log:
        bench.boot(bench.pis["3B"])
        bench.boot(bench.pis["4"])
        text = log.read_text()
    assert text.count("653460281 vendor class: PXEClient:Arch:00000:UNDI:002001") == 2  # ROM, bootcode.bin
    assert "653460281 DHCPREQUEST" not in text
    assert f"DHCPREQUEST({BRIDGE})" in text
