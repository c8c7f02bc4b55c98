"""`services.dhcp.backend: dnsmasq`: what reconfigure renders, run by the dnsmasq that it is for."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import config, run
from kestrelpi.frontend.machine import Machine
from kestrelpi.nodes.registering import Registered, Registrar
from kestrelpi.paths import Paths, data_dir
from kestrelpi.reconfigure import Frontend, Selection, make_plan, stage
from kestrelpi.templates import render
from tests.integration.lab_dnsmasq import TFTP, dnsmasq
from tests.integration.test_lab_dnsmasq import Bench, bench
from tests.integration.test_reconfigure import NoImages

__all__ = ["bench"]

CONF, HOSTS = "/etc/dnsmasq.d/kestrelpi.conf", "/etc/kestrelpi/dnsmasq-hosts"
NODES = "nodes:\n  rpi1: {{mac: {mac}, group: rpi, address: 10.99.0.11}}\n"
MACHINE = Machine(systemd=False, nfs="none", program="/opt/kestrelpi", privileged=False)


def front(root: Path, dhcp: str, more: str = "dns: {enabled: false}", machine: Machine = MACHINE) -> Frontend:
    paths = Paths(root)
    paths.etc.mkdir(parents=True, exist_ok=True)
    paths.config.write_text(
        f"network: {{address: 10.99.0.1/24}}\nimages: {{default: {{modules: []}}}}\n"
        f"services: {{nfs: {{backend: none}}, dhcp: {{{dhcp}}}, {more}}}\n"
    )
    return Frontend(paths, config.load(paths.config), machine, None, NoImages())


def rendered(place: Frontend) -> dict[str, str]:
    """The files for dnsmasq."""
    found = stage(place, place.paths.log, lambda what, seconds: None)
    return {name: one.data.decode() for name, one in found.items() if "dnsmasq" in name}


@pytest.mark.parametrize("more", ["dns: {enabled: false}", "dns: {enabled: true}", "listen: 10.99.0.9"])
@pytest.mark.parametrize(
    "keys",
    [
        "",
        ", strangers: address",
        ", unregistered: address",
        ", unregistered: ignore",
        ", rom_delay: 0s, extra_ouis: ['02-00-AB']",
    ],
)
def test_dnsmasq_finds_no_fault(tmp_path: Path, keys: str, more: str) -> None:
    files = rendered(front(tmp_path, f"backend: dnsmasq{keys}", more))
    assert set(files) == {CONF, HOSTS}
    (tmp_path / "conf").write_text(files[CONF])
    run.run(["dnsmasq", "--test", f"--conf-file={tmp_path / 'conf'}"])
    assert ("port=0\n" in files[CONF]) == ("false" not in more)
    assert f"dhcp-hostsfile={tmp_path}/etc/kestrelpi/dnsmasq-hosts\n" in files[CONF]
    assert ("dhcp-mac=set:kestrelpi-pi,02:00:ab:*:*:*\n" in files[CONF]) == ("extra_ouis" in keys)


def test_another_backend_writes_nothing_and_a_change_reaches_dnsmasq(tmp_path: Path) -> None:
    systemd = Machine(systemd=True, nfs="none", program="/opt/kestrelpi", privileged=True)
    assert rendered(front(tmp_path, "backend: builtin")) == {}
    place = front(tmp_path, "backend: dnsmasq", machine=systemd)
    plan = make_plan(place, Selection(frontend=True, images=()), stage(place, place.paths.log, lambda what, s: None))
    assert ("systemctl", "try-restart", "dnsmasq.service") in [one.argv for one in plan.reloads]


def test_the_script_passes_shellcheck(tmp_path: Path) -> None:
    script = data_dir() / "phases/frontend/configure.d/50-dnsmasq.j2"
    place = front(tmp_path, "backend: dnsmasq")
    path = tmp_path / "50-dnsmasq"
    path.write_text(render(script, {"config": place.config, "ouis": ["b8:27:eb"]}))
    run.run(["shellcheck", path])


def test_every_model_boots_and_is_registered_from_dnsmasqs_leases(bench: Bench, tmp_path: Path) -> None:
    leases = tmp_path / "dnsmasq/leases"
    place = front(tmp_path / "root", f"backend: dnsmasq, dnsmasq_leases: {leases}")
    node = bench.pis["4"]
    place.paths.registry.parent.mkdir(parents=True)
    place.paths.registry.write_text(NODES.format(mac=node.mac))
    files = rendered(place)
    assert files[HOSTS] == f"{node.mac},set:kestrelpi,10.99.0.11,rpi1\n"
    (place.paths.root / HOSTS[1:]).write_text(files[HOSTS])
    bench.serve()
    # kestrelpi's TFTP has the same address and port.
    with dnsmasq(bench.network, tmp_path / "dnsmasq", files[CONF] + TFTP, {"tftp": bench.tftp}):
        reports = {model: bench.boot(bench.pis[model]) for model in ("3B", "3B+", "4", "4-old", "5")}
    for model, report in reports.items():
        assert (report.failure, report.kernel, report.server) == ("", "vmlinuz", "10.99.0.1"), model
    assert reports["4"].address == "10.99.0.11"
    assert IPv4Address(reports["5"].address) in place.config.pool
    assert reports["3B"].offer_after >= 2
    events = Registrar(place.paths, place.config, "rpi").poll()
    found = {event.node.mac for event in events if isinstance(event, Registered)}
    assert found == {bench.pis["4-old"].mac, bench.pis["5"].mac}, "a Pi 3's loader confirms no lease; Linux does"
