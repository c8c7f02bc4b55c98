"""What the server answers to a message: the rules, without sockets, clock or files."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from kestrelpi.config import Config
from kestrelpi.nodes.boots import FOR_OFFER, Stage
from kestrelpi.nodes.boots import Kind as Sign
from kestrelpi.nodes.models import FOURCCS, Identity, identify, is_pi
from kestrelpi.services.admission import BOOTCODE, EEPROM, ROM, Patience
from kestrelpi.services.dhcp.answer import Answer, Client, Directory, Seen, Turns
from kestrelpi.services.dhcp.book import LeaseBook
from kestrelpi.services.dhcp.notices import Notices
from kestrelpi.services.dhcp.offer import Grant, Site, grant, inform, nak
from kestrelpi.services.dhcp.packet import NOWHERE, REPLIES, Kind, Message

ROM_OUI = "b8:27:eb"
ROM_WANTS = 12
"""How many options the Pi 3B's ROM asks for in option 55; bootcode.bin, the next stage, asks for 14."""
FOUR_AND_LATER = frozenset(("dc:a6:32", "e4:5f:01", "28:cd:c1", "d8:3a:dd", "2c:cf:67", "88:a2:9e"))
"""MAC prefixes of boards with an EEPROM; a Pi 3 has another (b8:27:eb) and always sends only its serial."""
HOLD = 60
"""Seconds for which an offer is held for a client that will send a REQUEST (that is: not for a Pi)."""
BOOTING = 120.0
"""Seconds for which a client's DISCOVER is remembered."""
EVERYBODYS = 32
"""Addresses of the pool that one MAC may be found to use: one that has more answers for others, as routers can."""
REMEMBERED = 16384
"""Clients that are remembered at most."""


@dataclass(eq=False)
class Policy:
    """The rules. `event` hears of the stages of a Pi's boot loader, `sighted` of what it says of itself, `note` of what
    is odd about it."""

    config: Config
    site: Site
    directory: Directory
    book: LeaseBook
    event: Callable[[str, Stage, str], None]
    sighted: Callable[[str, Identity], None]
    notices: Notices
    note: Callable[[str, Sign, str], None] = lambda mac, sign, detail: None
    turns: Turns | None = None
    """Whose turn it is to load; None: everybody's at once."""
    counters: Counter[str] = field(default_factory=Counter)
    _users: Counter[str] = field(default_factory=Counter)
    """How many addresses of the pool a MAC was found to use."""
    _seen: OrderedDict[str, Seen] = field(default_factory=OrderedDict)

    def answer(self, asked: Message, now: float) -> Answer | None:
        """The reply to a message; None: none. `now` is Unix time."""
        self.counters[asked.kind.name.lower()] += 1
        if asked.op != 1 or asked.kind in REPLIES:
            self._overheard(asked)
            return None
        if asked.giaddr != NOWHERE and asked.giaddr not in self.site.network:
            self.notices.warn("relay", f"the DHCP relay {asked.giaddr} is outside of {self.site.network}: not served")
            return None
        client = self._client(asked)
        match asked.kind:
            case Kind.DISCOVER:
                return self._discover(asked, client, now)
            case Kind.REQUEST:
                return self._request(asked, client, now)
            case Kind.DECLINE:
                self._decline(asked, client, now)
            case Kind.RELEASE:
                self.book.release(asked.mac, asked.ciaddr)
            case Kind.INFORM if client.served and asked.ciaddr in self.site.network:
                return Answer(inform(self.site, asked), asked.ciaddr, Kind.ACK)
        return None

    def _client(self, asked: Message) -> Client:
        dhcp = self.config.services.dhcp
        node = self.directory.node_by_mac(asked.mac)
        if node:
            return Client(node, True, True, True)
        if is_pi(asked.mac, asked.guid, dhcp.extra_ouis):
            return Client(None, True, dhcp.unregistered != "ignore", dhcp.unregistered == "wait")
        return Client(None, False, dhcp.strangers == "address", False)

    def _discover(self, asked: Message, client: Client, now: float) -> Answer | None:
        if client.pi and asked.pxe:
            self._look_at(asked, now)
        if not client.served:
            self.counters["ignored"] += 1
            return None
        if client.boot and asked.pxe and not self._its_turn(asked, client.node is not None):
            return None
        return self._offer(asked, client, now)

    def _its_turn(self, asked: Message, registered: bool) -> bool:
        """Whether a boot loader may load now; if not, `called` makes its offer when it may."""
        if self.turns is None or self.turns.ask(asked.mac, self._patience(asked), asked.xid, registered):
            return True
        self.counters["held"] += 1
        self.note(asked.mac, Sign.HELD, FOR_OFFER)
        return False

    def _patience(self, asked: Message) -> Patience:
        """The time that a boot loader gives us; that of a Pi 3, which is short and final, where we can't be sure."""
        if asked.mac[:8] in FOUR_AND_LATER or asked.guid[1:5] in FOURCCS:
            return EEPROM
        if len(asked.wanted) != ROM_WANTS:
            return BOOTCODE
        return replace(ROM, answering=float(self.config.services.dhcp.rom_delay))

    def called(self, asked: Message, now: float) -> Answer | None:
        """The offer for a DISCOVER that was kept waiting."""
        return self._offer(asked, self._client(asked), now)

    def _offer(self, asked: Message, client: Client, now: float) -> Answer | None:
        held = self.book.get(asked.mac)
        address = self._address(asked, client, asked.requested, now)
        if address is None:
            return None
        fresh = client.node is None and (held is None or held.address != address)
        # A Pi 3 never sends a REQUEST: for a Pi the offer is the lease.
        lasts = self.site.lease if client.pi else HOLD
        self._promise(asked, client, address, now + lasts)
        boot = client.boot and asked.pxe
        packet = grant(self.site, Kind.OFFER, asked, Grant(address, boot, _hostname(client)))
        if client.pi and asked.pxe:
            self.event(asked.mac, Stage.OFFER, str(address))
        return Answer(packet, address, Kind.OFFER, self._delay(asked), fresh)

    def taken(self, asked: Message, answer: Answer, by: str, now: float) -> Answer | None:
        """What to offer instead, when the MAC `by` was found to use the address of `answer`."""
        self.counters["in_use"] += 1
        if len(self._users) >= REMEMBERED:
            self._users.clear()
        self._users[by] += 1
        if self._users[by] > EVERYBODYS:
            self.notices.warn(
                f"arp {by}", f"{by} answers ARP for every address (proxy ARP?): it is not believed any more"
            )
            return replace(answer, probe=False)
        self.notices.warn(
            f"in use {answer.address}",
            f"{answer.address} is in use by {by}, which has no lease for it: not given out for a while; take it out of "
            "network.pool, or find that device",
        )
        self.book.in_use(asked.mac, answer.address, now)
        return self._offer(asked, self._client(asked), now)

    def _look_at(self, asked: Message, now: float) -> None:
        """Remember a Pi's boot loader, and tell of it."""
        said = identify(asked.guid, asked.mac, self.config.services.dhcp.extra_ouis)
        before = self._seen.pop(asked.mac, None)
        self._seen[asked.mac] = Seen(now, asked.xid, True, said.serial)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        detail = ""
        if before and now - before.at < BOOTING and said.serial and before.serial and said.serial != before.serial:
            detail = f"two Pis use this MAC: serials {before.serial} and {said.serial}"
            self.counters["duplicate_mac"] += 1
            self.notices.warn(f"mac {asked.mac}", f"{asked.mac}: {detail}; change MAC_ADDRESS in the EEPROM of one")
            self.note(asked.mac, Sign.SAME_MAC, f"serials {before.serial} and {said.serial}")
        self.event(asked.mac, Stage.DISCOVER, detail)
        self.sighted(asked.mac, said)
        if said.serial and not said.revision and asked.mac[:8] in FOUR_AND_LATER:
            self.note(asked.mac, Sign.OLD_EEPROM, "option 97 has only the serial, as before 2020-03")

    def _address(self, asked: Message, client: Client, wish: IPv4Address | None, now: float) -> IPv4Address | None:
        if client.node:
            return client.node.address
        address = self.book.choose(asked.mac, wish, now)
        if address is None:
            pool = self.config.pool
            self.counters["pool_full"] += 1
            self.notices.warn(
                "pool",
                f"no address is left for {asked.mac} in network.pool ({pool}, {len(pool)} addresses): "
                "widen it, shorten services.dhcp.lease, or register the Pis",
            )
            if client.pi and asked.pxe:
                self.note(asked.mac, Sign.NO_ADDRESS, f"{pool}")
        return address

    def _promise(self, asked: Message, client: Client, address: IPv4Address, expires: float) -> None:
        name = client.node.name if client.node else _clean(asked.text("hostname"))
        client_id = asked.text("client_id").hex(":")
        held = self.book.get(asked.mac)
        if held and held.address == address:
            expires = max(expires, held.expires)  # a stranger's DISCOVER doesn't shorten his lease
            name, client_id = name or held.hostname, client_id or held.client_id
        self.book.grant(asked.mac, address, expires, name, client_id)

    def _delay(self, asked: Message) -> float:
        rom = asked.pxe and asked.mac.startswith(ROM_OUI) and len(asked.wanted) == ROM_WANTS
        return float(self.config.services.dhcp.rom_delay) if rom else 0.0

    def _request(self, asked: Message, client: Client, now: float) -> Answer | None:
        if asked.server is not None and asked.server != self.site.server:
            self._foreign(asked.server)
            if asked.pxe or self._boots(asked, now):
                self.note(asked.mac, Sign.FOREIGN, f"taken {asked.server}")
            if not client.pi:
                self.book.expire_now(asked.mac, now)
            return None
        if not client.served:
            self.counters["ignored"] += 1
            return None
        wish = asked.requested or (asked.ciaddr if asked.ciaddr != NOWHERE else None)
        if wish is None:
            self.counters["malformed"] += 1
            return None
        if client.node:
            allowed, why = client.node.address == wish, f"your address is {client.node.address}"
        else:
            # Its lease, or free: our file may have been lost.
            allowed, why = self.book.free_for(asked.mac, wish, now), f"{wish} is not yours"
        if not allowed:
            self.counters["refused"] += 1
            return Answer(nak(self.site, asked, why), NOWHERE, Kind.NAK)
        self._promise(asked, client, wish, now + self.site.lease)
        boot = client.boot and (asked.pxe or self._boots(asked, now))
        if boot:
            self.event(asked.mac, Stage.REQUEST, str(wish))
            if not asked.pxe:
                self.note(asked.mac, Sign.OLD_EEPROM, "a REQUEST without option 60, as in 2020-01")
        return Answer(grant(self.site, Kind.ACK, asked, Grant(wish, boot, _hostname(client))), wish, Kind.ACK)

    def _boots(self, asked: Message, now: float) -> bool:
        """Whether this REQUEST belongs to a boot loader's DISCOVER: firmware of 2020 leaves option 60 out of it."""
        seen = self._seen.get(asked.mac)
        return seen is not None and seen.xid == asked.xid and now - seen.at < BOOTING

    def _decline(self, asked: Message, client: Client, now: float) -> None:
        address = asked.requested
        if address is None:
            return
        if self.book.decline(asked.mac, address, now):
            what = f"{asked.mac} found {address} in use by somebody else"
            fix = "find that device, or give the node another address: kestrelpi nodes set" if client.node else ""
            self.notices.warn(f"declined {address}", f"{what}; {fix}" if fix else f"{what}: not given out for a while")

    def _overheard(self, said: Message) -> None:
        """Another server speaks to a client."""
        if said.server is None or said.server == self.site.server:
            return
        proxy = said.kind is Kind.OFFER and said.yiaddr == NOWHERE
        self._foreign(said.server, proxy)
        if said.kind is Kind.OFFER and said.mac in self._seen:
            self.note(said.mac, Sign.FOREIGN, f"{'proxy' if proxy else 'dhcp'} {said.server}")

    def _foreign(self, server: IPv4Address | None, proxy: bool = False) -> None:
        """Another DHCP server speaks on this network; `proxy`: it gives no addresses, only a boot server."""
        if server is None or server == self.site.server:
            return
        self.counters["foreign"] += 1
        self.notices.foreign(server, proxy)


def _hostname(client: Client) -> str:
    return client.node.name if client.node else ""


def _clean(name: bytes) -> str:
    """A host name for the leases file: letters, digits and dashes; a client must not break the file's format."""
    kept = "".join(letter for letter in name[:63].decode("ascii", "ignore") if letter.isalnum() or letter == "-")
    return kept.strip("-").lower()
