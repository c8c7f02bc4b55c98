"""`kestrelpi doctor`: gathers the facts, has them judged, and puts the worst first."""

from __future__ import annotations

import ctypes
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kestrelpi.config import Config, load
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.finding import Finding, Severity, worst, worst_first
from kestrelpi.frontend import checks, firewall, probes
from kestrelpi.frontend.machine import serving
from kestrelpi.images import binfmt
from kestrelpi.images.store import Store
from kestrelpi.nodes import boots, sightings
from kestrelpi.nodes.findings import diagnose, same_serial
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.nodes.seen import Seen
from kestrelpi.paths import Paths
from kestrelpi.run import run
from kestrelpi.services import nfs, wire_facts
from kestrelpi.services.control import status

TIME_ERROR = 5
"""What adjtimex(2) returns while the clock isn't synchronised."""
LATELY = 86400.0
"""Seconds for which a Pi counts that isn't registered."""


@dataclass
class Report:
    """What was looked at, and what was found."""

    checked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, what: str, findings: Iterable[Finding]) -> list[Finding]:
        """One check: what it found."""
        found = list(findings)
        self.checked.append(what)
        self.findings += found
        return found

    @property
    def worst(self) -> Severity:
        return worst(self.findings)

    def document(self) -> dict[str, object]:
        """For --json."""
        return {
            "status": int(self.worst),
            "checked": self.checked,
            "findings": [one.document() for one in worst_first(self.findings)],
        }


def examine(paths: Paths, config_path: Path) -> tuple[Report, Config, Registry]:
    """Look at the frontend. What can't be read is a finding; the rest is then judged by defaults."""
    report = Report()
    config, registry = Config(), Registry()
    try:
        config = load(config_path)
        report.checked.append("configuration")
    except UserError as error:
        cause = "a slip in a file that people edit" if isinstance(error, ConfigError) else "it was never made"
        report.add("configuration", [checks.of_error("bad-configuration", Severity.ERROR, error, cause)])
        return report, config, registry
    try:
        registry = Registry.load(paths.registry, config)
        report.checked.append("registry")
    except UserError as error:
        slip = "a slip in a file that people edit; the services go on with the last good one"
        report.add("registry", [checks.of_error("bad-registry", Severity.ERROR, error, slip)])
    _frontend(report, paths, config, registry)
    return report, config, registry


def _frontend(report: Report, paths: Paths, config: Config, registry: Registry) -> None:
    now = time.time()
    store = Store(paths)
    links = json.loads(run(["ip", "-j", "address", "show"]).stdout)
    unreachable = report.add("interface and address", checks.network(links, config))
    absent = any(one.name in ("no-interface", "no-address") for one in unreachable)
    report.add("services", _services(paths, config, absent))
    interface = config.network.interface or _interface(links, str(config.listen))
    filters = list(_filters())
    said = "firewall" if filters else "no firewall (neither nft nor iptables shows one)"
    report.add(said, checks.packet_filter(filters, config, interface))
    facts = _wire(paths, config, "" if absent else interface, now)
    report.add("other DHCP servers and spanning tree", checks.wire(facts, now))
    report.add("images", checks.images(store, config, registry))
    report.add("emulation of arm64", _binfmt())
    state = next(one for one in (paths.state, *paths.state.parents) if one.is_dir())
    report.add("disk", checks.disk(shutil.disk_usage(state).free, str(state)))
    newest = max((one.id for image in store.images() for one in store.generations(image)), default="")
    report.add("clock", checks.clock(now, newest, synchronised()))


def _interface(links: Iterable[dict[str, object]], address: str) -> str:
    for link in links:
        found = link.get("addr_info")
        if isinstance(found, list) and any(one.get("local") == address for one in found):
            return str(link["ifname"]).partition("@")[0]
    return ""


def _services(paths: Paths, config: Config, absent: bool) -> Iterator[Finding]:
    """`absent`: our address isn't on this machine, so that no probe can reach it."""
    if serving(paths) is None:
        yield Finding(
            "not-serving",
            Severity.ERROR,
            "kestrelpi serve does not run",
            "it was never started, or it ended: a port is taken, or the configuration is wrong",
            "systemctl start kestrelpi, or kestrelpi serve; it says why it can't",
        )
        yield from checks.ports(probes.listeners(run(["ss", "-H", "-lntup"]).stdout), config)
        return
    answer = status(paths)
    yield from checks.modules(answer.get("modules", {}).get("failed", {}))
    if not absent:
        yield from checks.services(_answers(config))


def _answers(config: Config) -> dict[str, str]:
    """What is wrong with each service's answer to a packet of ours."""
    address, services = str(config.listen), config.services
    found = {"http": probes.web(address, services.http.port), "tftp": probes.tftp(address, services.tftp.port)}
    if services.dns.enabled:
        found["dns"] = probes.dns(address, services.dns.port, config.network.domain)
    if nfs.backend(services.nfs) != "none":
        found["nfs"] = probes.nfs(address, services.nfs.port, int(services.nfs.version[0]))
    return found


def _wire(paths: Paths, config: Config, interface: str, now: float) -> wire_facts.Facts:
    """What the daemon heard, and who answers now."""
    facts = wire_facts.read(paths.wire)
    if not interface or config.listen.is_loopback:
        return facts
    from kestrelpi.frontend.foreign import ask  # scapy is slow to import

    asked = {address: wire_facts.Heard(now, now, how) for address, how in ask(interface, config.listen).items()}
    return wire_facts.Facts({**facts.servers, **asked}, facts.bridges)


def _filters() -> Iterator[dict[str, firewall.Chain]]:
    """The rules of the firewall, by the tools that are installed. Without root there is nothing to see."""
    try:
        if shutil.which("nft"):
            yield firewall.nftables(json.loads(run(["nft", "-j", "list", "ruleset"]).stdout or "{}"))
        elif shutil.which("iptables"):
            yield firewall.iptables(run(["iptables", "-S"]).stdout)
    except UserError:
        return


def _binfmt() -> Iterator[Finding]:
    try:
        binfmt.check()
    except UserError as error:
        cause = "qemu-user-static isn't installed, or its registration is gone; images can't be built or entered"
        yield checks.of_error("no-binfmt", Severity.WARNING, error, cause)


def synchronised() -> bool:
    """Whether the kernel says that something keeps its clock (adjtimex(2))."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, modes 0: only asks
    state: int = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return state != TIME_ERROR


def examine_nodes(report: Report, paths: Paths, registry: Registry, only: Node | str = "") -> None:
    """Look at what was seen of each Pi: the registered ones, and others of the last day. `only`: a node, or a MAC."""
    now = time.time()
    known = sightings.read(paths.sightings)
    names = {node.mac: node.name for node in registry}
    macs = [only.mac if isinstance(only, Node) else only] if only else [*names, *_strangers(paths, names, now)]
    for mac in macs:
        node = registry.by_mac.get(mac)
        model = (node.model if node else "") or (known[mac].model if mac in known else "")
        seen = Seen(names.get(mac, mac), boots.read(paths.boots, mac), model, now)
        report.findings += diagnose(seen)
    report.checked.append(names.get(macs[0], macs[0]) if only else f"{len(macs)} Pis")
    wanted = {names.get(mac, mac) for mac in macs}
    report.findings += [one for one in same_serial(known, registry.by_mac) if one.node in wanted]


def _strangers(paths: Paths, names: dict[str, str], now: float) -> list[str]:
    """MACs without a node that were heard lately."""
    if not paths.boots.is_dir():
        return []
    files = [path for path in paths.boots.iterdir() if path.suffix == ".jsonl"]
    macs = [path.stem.replace("-", ":") for path in files if now - path.stat().st_mtime < LATELY]
    return sorted(mac for mac in macs if mac not in names)
