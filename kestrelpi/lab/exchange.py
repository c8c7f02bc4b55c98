"""One DHCP exchange of a boot stage: what is sent when, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address

from kestrelpi.lab import dhcp
from kestrelpi.lab.failure import BootFailure
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.ports import Host, Wire
from kestrelpi.lab.profiles import DhcpTraits

Note = Callable[[str, str], None]
"""Takes a stage (discover, offer, request, …) and what to say of it."""


@dataclass(frozen=True)
class Lease:
    """What the stage has after DHCP."""

    address: IPv4Address
    server: IPv4Address
    """TFTP."""
    server_from: str
    """`option 66` or `option 54`."""
    dhcp_server: IPv4Address | None
    discovers: int
    offer_after: float
    """Seconds from the last DISCOVER to the offer: a 3B's ROM can lock up on less than 2 (I)."""
    offer: dhcp.Reply
    """The offer that the address is from."""


class Exchange:
    """DISCOVER, OFFER and, where the stage sends one, REQUEST and ACK."""

    def __init__(self, pi: PiSpec, traits: DhcpTraits, xid: int, host: Host, note: Note) -> None:
        self.pi, self.traits, self.xid, self.host, self.note = pi, traits, xid, host, note
        self.discovers = 0
        self.offer_after = 0.0

    def run(self) -> Lease:
        """Get an address and set it; raises BootFailure when the timers have run out."""
        self.host.deconfigure()
        deadline = self.host.clock.now() + self.traits.timeout
        with closing(self.host.wire()) as wire:
            while True:
                offers = self._offers(wire, deadline)
                assert offers.address is not None
                assert offers.server is not None
                if not self.traits.sends_request or self._confirmed(wire, offers.address, deadline):
                    break
        offer = offers.address
        self.host.configure(dhcp.interface_address(self.traits, offer), dhcp.router(self.traits, offer))
        return Lease(
            offer.address, offers.server, offers.server_from, offer.server, self.discovers, self.offer_after, offer
        )

    def _offers(self, wire: Wire, deadline: float) -> dhcp.Offers:
        offers = dhcp.Offers(self.traits)
        clock = self.host.clock
        packet = dhcp.frame(self.pi, self.traits, dhcp.discover(self.pi, self.traits, self.xid))
        while clock.now() < deadline:
            sent = clock.now()
            wire.send(packet)
            self.discovers += 1
            self.note("discover", f"DISCOVER {self.discovers} from {self.pi.mac}, xid {self.xid:08x}")
            until = min(sent + self.traits.interval, deadline)
            while reply := self._reply(wire, until):
                if reply.kind != dhcp.OFFER:
                    continue
                self.offer_after = clock.now() - sent
                self.note("offer", f"OFFER of {reply.address} from {reply.server}: {offers.add(reply)}")
                if offers.complete:
                    return offers
        raise self._no_offer(offers)

    def _no_offer(self, offers: dhcp.Offers) -> BootFailure:
        if offers.boot is not None:
            return BootFailure("offer", f"a proxy named {offers.server}, but no server offered an address")
        if offers.ignored:
            return BootFailure("offer", "no offer fits: " + "; ".join(dict.fromkeys(offers.ignored)))
        return BootFailure("discover", f"no answer to {self.discovers} DISCOVERs in {self.traits.timeout:g} s")

    def _confirmed(self, wire: Wire, offer: dhcp.Reply, deadline: float) -> bool:
        """Whether an ACK came; False after a NAK: start again."""
        server = offer.server
        if server is None:
            raise BootFailure("request", f"the offer of {offer.address} has no server identifier (option 54)")
        packet = dhcp.frame(
            self.pi, self.traits, dhcp.request(self.pi, self.traits, self.xid, offer.address, server)
        )  # fmt: skip
        clock = self.host.clock
        while clock.now() < deadline:
            wire.send(packet)
            self.note("request", f"REQUEST of {offer.address} from {server}")
            until = min(clock.now() + self.traits.interval, deadline)
            while reply := self._reply(wire, until):
                if reply.kind == dhcp.ACK:
                    return True
                if reply.kind == dhcp.NAK:
                    self.note("request", f"NAK from {reply.server}")
                    return False
        raise BootFailure("request", f"{server} did not acknowledge {offer.address}")

    def _reply(self, wire: Wire, deadline: float) -> dhcp.Reply | None:
        while raw := wire.receive(deadline):
            reply = dhcp.parse(raw, self.pi.mac_bytes)
            if reply is not None and reply.xid == self.xid:
                return reply
        return None
