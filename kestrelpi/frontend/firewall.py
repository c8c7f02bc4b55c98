"""Whether this machine's firewall lets nodes in: the input rules of nftables or iptables, walked as the kernel does.

Only what is surely dropped is a finding: a rule that isn't understood may let the packet through.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

FINAL = {"ACCEPT": True, "DROP": False, "REJECT": False}
GO_ON = ("", "LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", "AUDIT", "SET")
"""Targets of iptables after which the next rule is looked at (iptables-extensions(8))."""
DEEPEST = 16
"""Chains that are followed into each other."""


@dataclass(frozen=True)
class Rule:
    """One rule; None: it doesn't look at that."""

    verdict: str = ""
    """ACCEPT, DROP, REJECT, RETURN, the name of a chain, or empty: goes on."""
    protocol: str | None = None
    ports: tuple[tuple[int, int], ...] | None = None
    interface: str | None = None
    established: bool = False
    """It only holds for packets of connections that exist."""
    understood: bool = True

    def matches(self, packet: Packet) -> bool | None:
        """None: perhaps."""
        if self.established or (self.protocol or packet.protocol) != packet.protocol:
            return False
        if self.ports is not None and not any(first <= packet.port <= last for first, last in self.ports):
            return False
        if self.interface is not None and not _same(self.interface, packet.interface):
            return False
        return True if self.understood else None


@dataclass(frozen=True)
class Packet:
    """The first packet of a node to us."""

    protocol: str
    port: int
    interface: str


@dataclass
class Chain:
    rules: list[Rule] = field(default_factory=list)
    policy: str = ""
    hooked: bool = False
    """The kernel sends what comes in through it."""


def dropped(chains: Mapping[str, Chain], packet: Packet) -> bool:
    """Whether the packet is surely dropped: one hooked chain that does it is enough."""
    return any(_walk(chains, chain, packet, DEEPEST) is False for chain in chains.values() if chain.hooked)


def _walk(chains: Mapping[str, Chain], chain: Chain, packet: Packet, depth: int) -> bool | None:
    """True: accepted or perhaps; False: dropped; None: the chain's end was reached, and it has no policy."""
    for rule in chain.rules:
        matches = rule.matches(packet)
        if matches is False or rule.verdict in GO_ON:
            continue
        if rule.verdict == "RETURN":
            if matches is None:
                return True
            break
        verdict = FINAL.get(rule.verdict)
        if verdict is None and rule.verdict in chains and depth:
            verdict = _walk(chains, chains[rule.verdict], packet, depth - 1)
            if verdict is None:
                continue
        if verdict is False and matches is None:
            continue  # perhaps dropped is not surely
        return verdict is not False
    return FINAL.get(chain.policy)


def _same(wanted: str, interface: str) -> bool:
    if wanted.endswith(("+", "*")):
        return interface.startswith(wanted[:-1])
    return wanted == interface


def iptables(text: str) -> dict[str, Chain]:
    """The chains in the output of `iptables -S`."""
    chains: dict[str, Chain] = {}
    for line in text.splitlines():
        words = shlex.split(line)
        if len(words) < 2:
            continue
        chain = chains.setdefault(words[1], Chain())
        if words[0] == "-P":
            chain.policy, chain.hooked = words[2], words[1] == "INPUT"
        elif words[0] == "-A":
            chain.rules.append(_iptables_rule(words[2:]))
    return chains


def _iptables_rule(words: Sequence[str]) -> Rule:
    rule = Rule()
    at = 0
    while at < len(words):
        word, value = words[at], words[at + 1] if at + 1 < len(words) else ""
        at += 2
        match word:
            case "-p":
                rule = replace(rule, protocol=value)
            case "-i":
                rule = replace(rule, interface=value)
            case "--dport" | "--dports":
                rule = replace(rule, ports=tuple(map(_range, value.split(","))))
            case "--ctstate" | "--state":
                rule = replace(rule, established="NEW" not in value.split(","))
            case "-j" | "-g":
                rule = replace(rule, verdict=value)
            case "-m" | "--comment":
                continue
            case "--reject-with":
                continue
            case _:
                rule = replace(rule, understood=False)
                at -= 1  # an option may have no value
    return rule


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    return int(first), int(last or first)


def nftables(document: Mapping[str, Any]) -> dict[str, Chain]:
    """The chains of the families ip and inet in the output of `nft -j list ruleset` (libnftables-json(5))."""
    chains: dict[str, Chain] = {}
    for item in document.get("nftables", ()):
        if said := item.get("chain"):
            chain = chains.setdefault(_name(said, said["name"]), Chain())
            chain.hooked = said.get("hook") == "input" and said["family"] in ("ip", "inet")
            chain.policy = str(said.get("policy", "")).upper()
        elif said := item.get("rule"):
            chains.setdefault(_name(said, said["chain"]), Chain()).rules.append(_nftables_rule(said))
    return chains


def _name(said: Mapping[str, Any], chain: str) -> str:
    return f"{said['family']} {said['table']} {chain}"


def _nftables_rule(said: Mapping[str, Any]) -> Rule:
    rule = Rule()
    for expression in said.get("expr", ()):
        kind, value = next(iter(expression.items()))
        match kind:
            case "match":
                rule = _nftables_match(rule, value)
            case "accept" | "drop" | "reject" | "return":
                rule = replace(rule, verdict=kind.upper())
            case "jump" | "goto":
                rule = replace(rule, verdict=_name(said, value["target"]))
            case "counter" | "log" | "comment":
                continue
            case _:
                rule = replace(rule, understood=False)
    return rule


def _nftables_match(rule: Rule, value: Mapping[str, Any]) -> Rule:
    left, right = value["left"], value["right"]
    if value.get("op") not in ("==", "in"):
        return replace(rule, understood=False)
    payload, meta = left.get("payload", {}), left.get("meta", {}).get("key", "")
    if payload.get("field") == "dport":
        protocol = payload["protocol"]
        return replace(rule, protocol=None if protocol == "th" else protocol, ports=tuple(_ports(right)))
    if meta in ("iifname", "iif") and isinstance(right, str):
        return replace(rule, interface=right)
    if meta == "l4proto" and isinstance(right, str):
        return replace(rule, protocol=right)
    if left.get("ct", {}).get("key") == "state":
        states = right if isinstance(right, list) else [right]
        return replace(rule, established="new" not in states)
    return replace(rule, understood=False)


def _ports(right: Any) -> Iterable[tuple[int, int]]:
    for one in right.get("set", [right]) if isinstance(right, dict) else [right]:
        if isinstance(one, dict) and "range" in one:
            first, last = one["range"]
            yield int(first), int(last)
        elif isinstance(one, int):
            yield one, one
