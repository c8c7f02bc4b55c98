"""What can be wrong with the frontend: each check judges facts that it is given, and says what, why and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.finding import Finding, Severity
from kestrelpi.frontend import firewall, probes
from kestrelpi.images.store import Store
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.wire_facts import Facts

RECENT = 86400.0
"""Seconds for which what was heard on the wire counts."""
FULL = 200 << 20
"""Bytes: with less free space leases and boot logs can't be written for long."""
SCARCE = 3 << 30
"""Bytes: a build of one image needs about this."""
ADRIFT = 86400.0
"""Seconds that the clock may lie before the newest generation's time."""


def of_error(name: str, severity: Severity, error: UserError, cause: str) -> Finding:
    """A user's mistake as a finding."""
    what = f"{error.where}: {error.what}" if error.where else error.what
    return Finding(name, severity, what, cause, error.fix or "see docs/reference")


def needed_ports(config: Config) -> dict[str, tuple[str, int]]:
    """Protocol and port of each service that nodes must reach, by name."""
    services = config.services
    found = {"tftp": ("udp", services.tftp.port), "http": ("tcp", services.http.port)}
    if services.dhcp.listens:
        found["dhcp"] = ("udp", services.dhcp.port)
    if services.dns.enabled:
        found["dns"] = ("udp", services.dns.port)
    if services.nfs.backend != "none":
        found["nfs"] = ("tcp", services.nfs.port)
    return found


def network(links: Sequence[Mapping[str, Any]], config: Config) -> Iterator[Finding]:
    """`links`: what `ip -j address show` says."""
    wanted, address = config.network.interface, str(config.listen)
    by_name = {str(one["ifname"]).partition("@")[0]: one for one in links}
    holder = next(
        (name for name, one in by_name.items() if any(a.get("local") == address for a in one.get("addr_info", ()))), ""
    )
    if wanted and wanted not in by_name:
        yield Finding(
            "no-interface",
            Severity.ERROR,
            f"there is no interface {wanted}",
            "network.interface names another machine's, or its adapter is unplugged",
            f"set network.interface to one of: {', '.join(by_name)}",
        )
        return
    if not holder:
        yield Finding(
            "no-address",
            Severity.ERROR,
            f"no interface here has the address {address}",
            "the nodes' interface isn't set up, network.address is another machine's, or the services run in the lab",
            f"ip address add {config.network.address} dev {wanted or 'INTERFACE'}; in the lab: kestrelpi lab exec "
            "kestrelpi doctor",
        )
        return
    if wanted and holder != wanted:
        yield Finding(
            "no-address",
            Severity.ERROR,
            f"{address} is the address of {holder}, not of {wanted}",
            "network.interface and network.address don't belong together",
            f"set network.interface: {holder}, or give {wanted} the address",
        )
    link = by_name[wanted or holder]
    if link.get("operstate") == "DOWN" or "NO-CARRIER" in link.get("flags", ()):
        yield Finding(
            "no-link",
            Severity.ERROR,
            f"{wanted or holder} has no link",
            "its cable or the switch is unplugged or off, or the interface is down",
            f"ip link set {wanted or holder} up; look at the cable",
        )


def ports(listening: Sequence[probes.Listener], config: Config) -> Iterator[Finding]:
    """Who is in our way, while we don't serve."""
    for name, (protocol, port) in needed_ports(config).items():
        other = probes.in_the_way(listening, protocol, str(config.listen), port)
        if other and name != "nfs":
            yield Finding(
                "port-taken",
                Severity.ERROR,
                f"{other.program or 'somebody'} has {protocol} port {port}, which {name} needs",
                "another server of this kind runs on this machine",
                f"end it, or set services.{name}.port",
            )


def services(answers: Mapping[str, str]) -> Iterator[Finding]:
    """`answers`: what is wrong with the answer of each service; empty: nothing."""
    for name, wrong in answers.items():
        if wrong:
            yield Finding(
                f"{name}-silent",
                Severity.ERROR,
                f"{name} does not answer as it should: {wrong}",
                {
                    "nfs": "the NFS server doesn't run, or doesn't listen on the nodes' address",
                }.get(name, "kestrelpi serve hangs or is overloaded, or a firewall is between"),
                {
                    "nfs": "systemctl status nfs-server, exportfs -v; with ganesha: /var/log/kestrelpi/ganesha.log",
                }.get(name, "the log of kestrelpi serve: journalctl -u kestrelpi; start it again"),
            )


def packet_filter(chains: Iterable[Mapping[str, firewall.Chain]], config: Config, interface: str) -> Iterator[Finding]:
    """What the firewall drops that nodes send."""
    for tables in chains:
        for name, (protocol, port) in needed_ports(config).items():
            if firewall.dropped(tables, firewall.Packet(protocol, port, interface)):
                yield Finding(
                    "firewall",
                    Severity.ERROR,
                    f"the firewall drops {protocol} port {port} ({name}) on {interface}",
                    "no rule lets the nodes in",
                    f"nft add rule inet filter input iifname {interface} accept; or: ufw allow in on {interface}",
                )


def wire(facts: Facts, now: float) -> Iterator[Finding]:
    """Other servers and switches."""
    for address, heard in facts.servers.items():
        if now - heard.last < RECENT:
            proxy = heard.how == "proxy"
            yield Finding(
                "foreign-proxy" if proxy else "foreign-dhcp",
                Severity.WARNING,
                f"{'a boot proxy' if proxy else 'another DHCP server'}, {address}, speaks on the nodes' network "
                f"({heard.times} times)",
                "a router, another frontend or a piserver is on this network; Pis take the first offer they like",
                "switch it off here, or see docs/how-to/beside-another-dhcp-server.md",
                at=heard.last,
            )
    recent = {mac: heard for mac, heard in facts.bridges.items() if now - heard.last < RECENT}
    for mac, heard in recent.items():
        yield Finding(
            "stp-seen",
            Severity.HINT,
            f"the switch {mac} speaks spanning tree ({heard.how})",
            "it holds a port back for 30 s after link-up unless the port is an edge port; a Pi 3 gives up after 25 s",
            "make the Pis' ports edge ports (portfast)",
            at=heard.last,
        )


def images(store: Store, config: Config, registry: Registry) -> Iterator[Finding]:
    """What nodes shall boot and isn't there."""
    used = {node.image_of(config) for node in registry if not node.pin}
    wanted = used | {group.image for group in config.groups.values()}
    built = {image for image in wanted if store.current(image)}
    for image in sorted(wanted - built):
        yield Finding(
            "image-not-built",
            Severity.ERROR if image in used or not built else Severity.WARNING,
            f"the image {image} has not been built",
            "images build was never run for it, or failed",
            f"kestrelpi images build {image}",
        )
    for node in registry:
        try:
            if node.pin:
                store.generation(node.image_of(config), node.pin)
        except UserError as error:
            yield Finding(
                "pin-gone",
                Severity.ERROR,
                f"it is pinned to {node.pin}: {error.what}",
                "that generation was removed",
                f"kestrelpi nodes set {node.name} --pin ''",
                node.name,
            )


def disk(free: int, path: str) -> Iterator[Finding]:
    """`free`: bytes."""
    if free < SCARCE:
        yield Finding(
            "disk-full",
            Severity.ERROR if free < FULL else Severity.WARNING,
            f"{free / 1e9:.1f} GB are free below {path}",
            "old generations, kept results of builds, or logs",
            "kestrelpi images gc",
        )


def clock(now: float, newest: str, synchronised: bool) -> Iterator[Finding]:
    """`newest`: the id of the newest generation, which begins with its time; empty: none."""
    built = datetime.strptime(newest[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp() if newest else 0.0
    if now < built - ADRIFT:
        yield Finding(
            "clock-wrong",
            Severity.ERROR,
            f"it is {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC here, before the newest image was built",
            "this machine lost its time: a Pi without a battery, or an empty one",
            "timedatectl set-time, or set up NTP: nodes take their time from here",
        )
    elif not synchronised:
        yield Finding(
            "clock-unsynchronised",
            Severity.WARNING,
            "this machine's clock is not kept by NTP",
            "no NTP client runs, or its servers don't answer; nodes take their time from here",
            "timedatectl set-ntp true, or apt-get install chrony",
        )


def modules(failed: Mapping[str, str]) -> Iterator[Finding]:
    """Services of modules that `kestrelpi serve` could not start: name to reason."""
    for name, why in failed.items():
        yield Finding(
            "service-failed",
            Severity.WARNING,
            f"{name} does not run: {why.splitlines()[0] if why else 'no reason was given'}",
            "its configuration or its package on this machine",
            "the log of kestrelpi serve: journalctl -u kestrelpi",
        )
