"""What a boot proxy answers: where a Pi's boot files are, and never an address, which another server gives."""

from __future__ import annotations

from dataclasses import dataclass

from kestrelpi.nodes.boots import Kind as Sign
from kestrelpi.nodes.boots import Stage
from kestrelpi.services.dhcp.answer import Answer
from kestrelpi.services.dhcp.offer import proxy
from kestrelpi.services.dhcp.packet import NOWHERE, REPLIES, Kind, Message
from kestrelpi.services.dhcp.policy import Policy


@dataclass(eq=False)
class Proxy(Policy):
    """The rules beside another DHCP server. Only the DISCOVER of a Pi's boot loader is answered.

    The loader takes the address from one OFFER and the boot server from ours; no Pi was seen to ask at port 4011. The
    lease book isn't asked: it notes where Pis were met (`DhcpServer.met`).
    """

    def answer(self, asked: Message, now: float) -> Answer | None:
        """The reply to a message; None: none. `now` is Unix time."""
        self.counters[asked.kind.name.lower()] += 1
        if asked.op != 1 or asked.kind in REPLIES:
            self._overheard(asked)
            return None
        client = self._client(asked)
        if not client.pi:
            self.counters["ignored"] += 1
            return None
        if asked.kind is Kind.REQUEST and client.boot and (asked.pxe or self._boots(asked, now)):
            self.event(asked.mac, Stage.REQUEST, f"at {asked.server}" if asked.server else "")
        if asked.kind is not Kind.DISCOVER or not asked.pxe:
            return None
        self._look_at(asked, now)
        if not client.boot or (asked.giaddr != NOWHERE and asked.giaddr not in self.site.network):
            self.counters["ignored"] += 1
            return None
        return self.called(asked, now) if self._its_turn(asked, client.node is not None) else None

    def called(self, asked: Message, now: float) -> Answer | None:
        """The offer for a DISCOVER that may have been kept waiting."""
        self.event(asked.mac, Stage.OFFER, "as a proxy")
        return Answer(proxy(self.site, asked), NOWHERE, Kind.OFFER, self._delay(asked))

    def _overheard(self, said: Message) -> None:
        """A server of addresses is as it should be; a second proxy is not."""
        if said.kind is not Kind.OFFER or said.yiaddr != NOWHERE or said.server in (None, self.site.server):
            return
        self._foreign(said.server, proxy=True)
        if said.mac in self._seen:
            self.note(said.mac, Sign.FOREIGN, f"proxy {said.server}")
