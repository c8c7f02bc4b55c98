"""The check of k3s, with what kubectl prints of nodes (fields of the API's v1 NodeList)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.verify import kubernetes
from kestrelpi.verify.checks import CHECKS, carry_out
from kestrelpi.verify.site import CheckFailed
from tests.unit.verify.test_verify_checks import told


def nodes(**ready: str) -> str:
    items = [
        {
            "metadata": {"name": name},
            "status": {
                "conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": "True" if not why else "False", "message": why},
                ],
                "nodeInfo": {"kubeletVersion": "v1.36.4+k3s1"},
            },
        }
        for name, why in ready.items()
    ]
    return json.dumps({"kind": "NodeList", "items": items})


def test_all_nodes_are_ready(tmp_path: Path) -> None:
    site = told(tmp_path, {"kubectl get nodes": nodes(rpi1="", rpi2="")}, "k3s")
    assert kubernetes.k3s(site) == "2 nodes are ready, v1.36.4+k3s1"
    assert site.asked == [f"frontend: {tmp_path}/usr/local/bin/k3s kubectl get nodes --output json"]


def test_a_node_that_is_not_ready_or_has_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "READY_WITHIN", -1.0)
    site = told(tmp_path, {"kubectl": nodes(rpi1="network plugin not ready")}, "k3s")
    with pytest.raises(CheckFailed, match="rpi1: network plugin not ready; rpi2: has not joined") as caught:
        kubernetes.k3s(site)
    assert caught.value.fix == "kestrelpi nodes ssh rpi1 journalctl -u k3s-agent"


def test_it_waits_for_nodes_that_have_just_booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = told(tmp_path, {"kubectl": nodes(rpi1="")}, "k3s")
    monkeypatch.setattr(
        "kestrelpi.verify.kubernetes.time.sleep", lambda _: site.answers.update({"kubectl": nodes(rpi1="", rpi2="")})
    )
    assert kubernetes.k3s(site).startswith("2 nodes are ready")
    assert len(site.asked) == 2


def test_k3s_that_was_not_fetched_is_the_reason(tmp_path: Path) -> None:
    check = next(one for one in CHECKS if one.name == "k3s")
    site = told(tmp_path, {"kubectl": "FAIL"}, "k3s")
    with pytest.raises(UserError):
        check.run(site)
    (result,) = carry_out((check,), site)
    assert (result.ok, result.skipped) == (False, False)
    (without,) = carry_out((check,), told(tmp_path, {}, "slurm"))
    assert without.skipped
    assert without.detail == "no node's image has the module k3s"
