"""The check of k3s: every node has joined the server, under its own name, and is ready."""

from __future__ import annotations

import json
import time

from kestrelpi.verify.site import CheckFailed, Site

READY_WITHIN = 180.0
"""Seconds for nodes that have just booted: k3s unpacks its images first."""
POLL = 3.0


def k3s(site: Site) -> str:
    """Wait until each node is ready; raises CheckFailed with those that aren't, and k3s's reason."""
    names = {node.name for node in site.with_module("k3s")}
    kubectl = [f"{site.root}/usr/local/bin/k3s", "kubectl", "get", "nodes", "--output", "json"]
    deadline = time.monotonic() + READY_WITHIN
    while True:
        said = site.frontend(kubectl)
        bad = not_ready(said, names)
        if not bad:
            return f"{len(names)} nodes are ready, {', '.join(versions(said))}"
        if time.monotonic() > deadline:
            first = bad[0].partition(":")[0]
            raise CheckFailed("; ".join(bad), fix=f"kestrelpi nodes ssh {first} journalctl -u k3s-agent")
        time.sleep(POLL)


def not_ready(said: str, names: set[str]) -> list[str]:
    """`NAME: why` for each of `names` that isn't ready, by kubectl's list of nodes."""
    why = {one["metadata"]["name"]: _why(one["status"].get("conditions", [])) for one in json.loads(said)["items"]}
    return [f"{name}: {why.get(name, 'has not joined')}" for name in sorted(names) if why.get(name, "has not joined")]


def _why(conditions: list[dict[str, str]]) -> str:
    ready = next((one for one in conditions if one["type"] == "Ready"), {})
    if ready.get("status") == "True":
        return ""
    return ready.get("message") or ready.get("reason") or "is not ready"


def versions(said: str) -> list[str]:
    """The releases of k3s that the nodes run."""
    return sorted({one["status"]["nodeInfo"]["kubeletVersion"] for one in json.loads(said)["items"]})
