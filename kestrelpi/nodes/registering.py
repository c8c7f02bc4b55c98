"""Registering: each new Pi with a lease becomes a node. Decides; the command line shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.nodes import leases, models, sightings
from kestrelpi.nodes.finding import find_group, find_image
from kestrelpi.nodes.leases import Lease
from kestrelpi.nodes.registry import Node, Registry, edit
from kestrelpi.nodes.sightings import Sighting
from kestrelpi.nodes.vacancies import Vacancies
from kestrelpi.paths import Paths

SERIAL_WAIT = 3.0
"""Seconds that a fresh lease waits for the initramfs to report the Pi's serial and model."""
POLL = 0.25
"""Seconds between two looks at the files."""


@dataclass(frozen=True)
class Clock:
    """The time, passed in so that a test has its own."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Seen:
    """A new Pi has a lease; it is registered as soon as its serial is known, or after SERIAL_WAIT."""

    mac: str
    address: IPv4Address
    serial: str
    model: str


@dataclass(frozen=True)
class Registered:
    """A Pi became a node."""

    node: Node
    warning: str = ""


@dataclass(frozen=True)
class Learned:
    """The serial or the model of a node that was registered without became known."""

    node: Node


Event = Seen | Registered | Learned


@dataclass(frozen=True)
class Candidate:
    """A Pi with a lease that isn't registered."""

    lease: Lease
    sighting: Sighting
    since: float
    """Unix time when it was first seen."""

    @property
    def ready(self) -> bool:
        return bool(self.sighting.serial)


@dataclass
class Registrar:
    """Watches the leases and the sightings for one group."""

    paths: Paths
    config: Config
    group: str
    image: str = ""
    clock: Clock = field(default_factory=Clock)
    strangers: set[str] = field(default_factory=set)
    """MACs with a lease that are no Pis."""
    _since: dict[str, float] = field(default_factory=dict)
    _polls: int = 0
    _stamp: tuple[object, ...] = ()
    """Tells whether a file is another one than at the last look."""
    _waiting: bool = False
    """Somebody's time may come without a change of a file."""

    def __post_init__(self) -> None:
        find_group(self.config, self.group)
        if self.image:
            find_image(self.config, self.image)

    @property
    def leases(self) -> Path:
        return leases.of_backend(self.paths, self.config)

    def poll(self, most: int = 0) -> list[Event]:
        """Look once, and register whoever is ready, in the order in which they were first seen; at most `most`."""
        stamp = tuple(_stamp(path) for path in (self.leases, self.paths.sightings, self.paths.registry))
        if stamp == self._stamp and not self._waiting:
            return []
        self._stamp = stamp
        held = leases.read(self.leases)
        known = sightings.read(self.paths.sightings)
        registry = Registry.load(self.paths.registry, self.config)
        candidates = self._candidates(held, known, registry)
        events: list[Event] = [self._seen(one) for one in candidates if one.lease.mac not in self._since]
        self._since.update({one.lease.mac: one.since for one in candidates if one.lease.mac not in self._since})
        self._polls += 1
        ready = self._ready(candidates)[: most or None]
        self._waiting = len(ready) < len(candidates)
        if ready or learn(registry, known) is not registry:
            events += self._write(ready, held, known)
        return events

    def _candidates(
        self, held: Mapping[str, Lease], known: Mapping[str, Sighting], registry: Registry
    ) -> list[Candidate]:
        now = self.clock.now()
        found = []
        for mac, lease in held.items():
            if lease.expired(now) or mac in registry.by_mac:
                continue
            sighting = known.get(mac, Sighting(mac))
            if not self._is_pi(sighting):
                self.strangers.add(mac)
                continue
            since = self._since.get(mac, sighting.first or (now if self._polls else 0.0))
            found.append(Candidate(lease, sighting, since))
        return sorted(found, key=lambda one: (one.since, one.lease.expires, one.lease.address))

    def _is_pi(self, sighting: Sighting) -> bool:
        extra = self.config.services.dhcp.extra_ouis
        return bool(sighting.serial or sighting.model) or models.is_pi(sighting.mac, extra_ouis=extra)

    def _seen(self, one: Candidate) -> Seen:
        return Seen(one.lease.mac, one.lease.address, one.sighting.serial, one.sighting.model)

    def _ready(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those whose turn it is: nobody overtakes an earlier Pi, so that names follow the order of switching on."""
        ready: list[Candidate] = []
        for one in candidates:
            if not one.ready and self.clock.now() - one.since < SERIAL_WAIT:
                break
            ready.append(one)
        return ready

    def _write(self, ready: list[Candidate], held: Mapping[str, Lease], known: Mapping[str, Sighting]) -> list[Event]:
        events: list[Event] = []
        with edit(self.paths, self.config) as change:
            before = change.registry
            change.registry = learn(before, known)
            events += [Learned(node) for node in change.registry if node != before.by_name[node.name]]
            vacant = Vacancies(change.registry, self.config, self.config.prefix(self.group), held)
            for one in ready:
                if one.lease.mac in change.registry.by_mac:
                    continue  # another command was quicker
                registered = admit(change.registry, self.config, self.group, self.image, one, vacant)
                change.registry = change.registry.with_node(registered.node)
                events.append(registered)
        return events


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)


def admit(registry: Registry, config: Config, group: str, image: str, one: Candidate, vacant: Vacancies) -> Registered:
    """The node that a Pi becomes: the group's first free name, the first free address."""
    serial, warning = one.sighting.serial, ""
    if serial and serial in registry.by_serial:
        other = registry.by_serial[serial]
        warning = f"it says that its serial is {serial}, which is {other.name}'s ({other.mac}): registered without"
        serial = ""
    own = one.lease.address
    if config.services.dhcp.proxy and own in registry.by_address:
        other = registry.by_address[own]
        raise UserError(
            f"{one.lease.mac} has the address {own}, which was that of {other.name} ({other.mac})",
            fix=f"switch {other.name} on, so that its new address is learned, or remove it: "
            f"kestrelpi nodes remove {other.name}",
        )
    node = Node(
        name=vacant.name(),
        mac=one.lease.mac,
        group=group,
        address=own if config.services.dhcp.proxy else vacant.address(own),
        serial=serial,
        model=one.sighting.model,
        image="" if image == config.groups[group].image else image,
    )
    return Registered(node, warning)


def learn(registry: Registry, known: Mapping[str, Sighting]) -> Registry:
    """`registry` with the serials and models that were not known when their nodes were registered.

    A serial that is already another node's isn't taken over: two Pis can't have one.
    """
    changed: dict[str, Node] = {}
    taken = set(registry.by_serial)
    for node in registry:
        sighting = known.get(node.mac)
        if sighting is None or (node.serial and node.model):
            continue
        serial = "" if sighting.serial in taken else sighting.serial
        new = replace(node, serial=node.serial or serial, model=node.model or sighting.model)
        if new != node:
            changed[node.name] = new
            taken.add(new.serial)
    return Registry(tuple(changed.get(node.name, node) for node in registry)) if changed else registry


def learn_all(paths: Paths, config: Config) -> list[Node]:
    """Write to the registry what the sightings add to it; returns the nodes that changed. For the daemon's timer."""
    known = sightings.read(paths.sightings)
    registry = Registry.load(paths.registry, config)
    if learn(registry, known) is registry:
        return []
    with edit(paths, config) as change:
        before = change.registry
        change.registry = learn(before, known)
        return [node for node in change.registry if node != before.by_name[node.name]]


def watch(
    registrar: Registrar, count: int = 0, timeout: float = 0.0, ended: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """Events until `count` Pis are registered, `timeout` seconds have passed (0: no limit), or `ended` says so.

    A Pi that was written to the registry is always told.
    """
    clock = registrar.clock
    end = clock.monotonic() + timeout if timeout else None
    done = 0
    while True:
        for event in registrar.poll(count - done if count else 0):
            done += isinstance(event, Registered)
            yield event
        if (count and done >= count) or (end is not None and clock.monotonic() >= end) or ended():
            return
        clock.sleep(POLL)


def nothing_found(registrar: Registrar, found: int, wanted: int) -> UserError:
    """Why `register` may have found fewer Pis than it was asked for, and what to check."""
    held = leases.read(registrar.leases)
    registry = Registry.load(registrar.paths.registry, registrar.config)
    what = f"{found} of {wanted} new Pis appeared" if wanted else "no new Pi appeared"
    detail = []
    if registered := sum(mac in registry.by_mac for mac in held):
        detail.append(f"{registered} Pis with a lease are registered already: kestrelpi nodes list")
    if registrar.strangers:
        some = ", ".join(sorted(registrar.strangers)[:5])
        detail.append(f"other devices have a lease ({some}): if they are Pis, add to services.dhcp.extra_ouis")
    if not held:
        server = "dnsmasq" if registrar.config.services.dhcp.backend == "dnsmasq" else "kestrelpi serve"
        detail.append(f"nobody has a lease in {registrar.leases}: is {server} running?")
    fix = (
        "check each Pi: power, cable, its boot order (network: BOOT_ORDER 0xf21), and that its switch port "
        "doesn't wait for spanning tree"
    )
    return UserError(what, detail="\n".join(detail), fix=fix)
