"""Rules of nftables and iptables: what surely drops a node's packet, and what doesn't."""

from __future__ import annotations

from typing import Any

import pytest

from kestrelpi.config import parse
from kestrelpi.frontend import checks
from kestrelpi.frontend.firewall import Packet, dropped, iptables, nftables

DHCP = Packet("udp", 67, "eth1")
HTTP = Packet("tcp", 8067, "eth1")


@pytest.mark.parametrize(
    ("rules", "dhcp", "http"),
    [
        ("-P INPUT ACCEPT", False, False),
        ("-P INPUT DROP", True, True),
        ("-P INPUT DROP\n-A INPUT -i eth1 -j ACCEPT", False, False),
        ("-P INPUT DROP\n-A INPUT -i eth0 -j ACCEPT", True, True),
        ("-P INPUT DROP\n-A INPUT -i eth+ -j ACCEPT", False, False),
        ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 67:69 -j ACCEPT", False, True),
        ("-P INPUT DROP\n-A INPUT -p tcp -m multiport --dports 22,8067 -j ACCEPT", True, False),
        ("-P INPUT DROP\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", True, True),
        ("-P INPUT ACCEPT\n-A INPUT -m conntrack --ctstate INVALID -j DROP", False, False),
        ("-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 67 -j REJECT --reject-with tcp-reset", True, False),
        ("-P INPUT ACCEPT\n-A INPUT -s 192.0.2.0/24 -j DROP", False, False),
        ("-P INPUT DROP\n-A INPUT -s 10.77.0.0/24 -j ACCEPT", False, False),
        ("-P INPUT ACCEPT\n-A INPUT ! -i lo -p udp -j DROP", False, False),
        ("-P INPUT DROP\n-N lan\n-A INPUT -i eth1 -j lan\n-A lan -p udp -j ACCEPT", False, True),
        ("-P INPUT ACCEPT\n-N lan\n-A INPUT -j lan\n-A lan -p udp -j RETURN\n-A lan -j DROP", False, True),
        ("-P INPUT DROP\n-A INPUT -m comment --comment \"the Pis' wire\" -i eth1 -j ACCEPT", False, False),
        ("-P FORWARD DROP\n-P INPUT ACCEPT", False, False),
        ("-P INPUT DROP\n-N a\n-A INPUT -j a\n-A a -j a", False, False),
        ('-P INPUT DROP\n-A INPUT -j LOG --log-prefix "[in] "', True, True),
        ("-P INPUT DROP\n-A INPUT -j NFQUEUE --queue-num 0", False, False),
    ],
)  # fmt: skip
def test_iptables(rules: str, dhcp: bool, http: bool) -> None:
    chains = iptables(rules)
    assert (dropped(chains, DHCP), dropped(chains, HTTP)) == (dhcp, http)


def ruleset(*rules: list[dict[str, Any]], policy: str = "drop", family: str = "inet") -> dict[str, Any]:
    """What `nft -j list ruleset` prints for one input chain, and a chain `lan` that accepts UDP."""
    where = {"family": family, "table": "filter"}
    chain = {**where, "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": policy}
    lan = {"rule": {**where, "chain": "lan", "expr": [match("meta", "l4proto", "udp"), {"accept": None}]}}
    return {
        "nftables": [
            {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"table": {"family": family, "name": "filter", "handle": 1}},
            {"chain": chain},
            {"chain": {**where, "name": "lan", "handle": 2}},
            *({"rule": {**where, "chain": "input", "handle": 9, "expr": expr}} for expr in rules),
            lan,
        ]
    }


def match(kind: str, key: str, right: object, op: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": kind, "field": key}} if kind in ("udp", "tcp", "th") else {kind: {"key": key}}
    return {"match": {"op": op, "left": left, "right": right}}


ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}


@pytest.mark.parametrize(
    ("document", "dhcp", "http"),
    [
        ({}, False, False),
        (ruleset(), True, True),
        (ruleset(policy="accept"), False, False),
        (ruleset(family="ip6"), False, False),
        (ruleset([match("meta", "iifname", "eth1"), ACCEPT]), False, False),
        (ruleset([match("meta", "iifname", "lo"), ACCEPT]), True, True),
        (ruleset([match("udp", "dport", {"set": [53, {"range": [67, 69]}]}), ACCEPT]), False, True),
        (ruleset([match("tcp", "dport", 8067), {"counter": {"packets": 0, "bytes": 0}}, ACCEPT]), True, False),
        (ruleset([match("ct", "state", ["established", "related"], "in"), ACCEPT]), True, True),
        (ruleset([match("udp", "dport", 67), DROP], policy="accept"), True, False),
        (ruleset([match("udp", "dport", 67, "!="), DROP], policy="accept"), False, False),
        (ruleset([match("meta", "iifname", "eth1"), {"jump": {"target": "lan"}}]), False, True),
        (ruleset([{"xt": None}, ACCEPT]), False, False),
    ],
)
def test_nftables(document: dict[str, Any], dhcp: bool, http: bool) -> None:
    chains = nftables(document)
    assert (dropped(chains, DHCP), dropped(chains, HTTP)) == (dhcp, http)


def test_the_finding_names_the_port_and_what_it_is_for() -> None:
    config = parse("network: {address: 10.77.0.1/24}\nservices: {dns: {enabled: false}, nfs: {backend: none}}\n")
    rules = "-P INPUT DROP\n-A INPUT -p udp -m multiport --dports 67,69 -j ACCEPT"
    (finding,) = checks.packet_filter([iptables(rules)], config, "eth1")
    assert finding.name == "firewall"
    assert "tcp port 8067 (http) on eth1" in finding.what
