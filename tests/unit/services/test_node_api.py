"""Who gets what from the node API: every refusal, and the one delivery a boot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from kestrelpi.config import Config, parse
from kestrelpi.images.store import Generation
from kestrelpi.nodes.boots import FOR_ROOT, BootLog, Kind, Stage
from kestrelpi.nodes.identity import Secrets
from kestrelpi.nodes.models import Identity
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.nodes.sightings import Sightings
from kestrelpi.paths import Paths
from kestrelpi.services.admission import ROOT_SHARE
from kestrelpi.services.directory import Directory
from kestrelpi.services.http import application
from kestrelpi.services.node_api import LATER, Client, NodeApi, Refused
from kestrelpi.services.turns import CARRIED, Turns

MAC = "dc:a6:32:00:00:01"
NODE = Node("rpi1", MAC, "rpi", IPv4Address("10.77.0.11"))
ROOT = Client("10.77.0.11", 700, MAC)
GENERATION = "20261122-000000-12345678"


class Runtime:
    """Stands for the renderer: the archive names the node."""

    def archive(self, node: Node) -> bytes:
        return f"files of {node.name}".encode()


@pytest.fixture
def api(tmp_path: Path) -> NodeApi:
    paths = Paths(tmp_path)
    folder = paths.images / "default/generations" / GENERATION
    folder.mkdir(parents=True)
    (paths.images / "default/current").symlink_to(f"generations/{GENERATION}")
    directory = Directory(paths, Config())
    directory.registry = Registry.of([NODE])
    return NodeApi(
        directory,
        BootLog(paths.boots),
        Sightings(paths.sightings),
        Secrets(paths),
        Runtime(),
        clock=lambda: 1_800_000_000.0,
    )


def token(api: NodeApi, client: Client = ROOT) -> str:
    answer = api.boot(client, Identity(), GENERATION)
    assert answer.startswith("boot ")
    return answer.removeprefix("boot ")


def test_a_node_gets_its_files_once_a_boot(api: NodeApi) -> None:
    api.arm(MAC)
    given = token(api)
    assert api.runtime_archive(ROOT, given) == b"files of rpi1"
    with pytest.raises(Refused, match="used"):
        api.runtime_archive(ROOT, given)
    with pytest.raises(Refused, match="once a boot"):
        api.boot(ROOT, Identity(), GENERATION)
    api.arm(MAC)
    assert api.runtime_archive(ROOT, token(api)) == b"files of rpi1"


def test_only_the_newest_token_counts(api: NodeApi) -> None:
    api.arm(MAC)
    old = token(api)
    api.secrets.token(MAC, 1_800_000_000.0)
    new = token(api)
    with pytest.raises(Refused, match="newer"):
        api.runtime_archive(ROOT, old)
    assert api.runtime_archive(ROOT, new)


def test_beside_another_dhcp_server_the_neighbour_tables_mac_is_enough_and_needed(api: NodeApi) -> None:
    api.directory.config = parse("services: {dhcp: {backend: proxy}}\n")
    met: list[tuple[str, str]] = []
    api.met = lambda mac, address: met.append((mac, address))
    api.arm(MAC)
    moved = Client("10.77.0.150", 700, MAC)
    assert api.runtime_archive(moved, token(api, moved)) == b"files of rpi1"
    assert met == [(MAC, "10.77.0.150")]
    api.arm(MAC)
    given = token(api)
    with pytest.raises(Refused, match="not on our wire"):
        api.runtime_archive(Client("10.77.0.11", 700, None), given)
    with pytest.raises(Refused, match="not registered"):
        api.runtime_archive(Client("10.77.0.11", 700, "dc:a6:32:00:00:66"), given)


def test_an_unknown_pi_waits_and_is_remembered(api: NodeApi) -> None:
    stranger = Client("10.77.0.200", 700, "dc:a6:32:00:00:99")
    said = Identity(serial="91cdf03d", memory_mb=1024, cpus=4)
    assert api.boot(stranger, said, GENERATION) == "wait"
    assert api.sightings["dc:a6:32:00:00:99"].serial == "91cdf03d"
    boot = api.boots.current("dc:a6:32:00:00:99")
    assert boot is not None and boot.current is Stage.WAITING


def test_another_generation_means_restart(api: NodeApi) -> None:
    assert api.boot(ROOT, Identity(), "20200101-000000-00000000") == "reboot"


def test_an_image_that_was_never_built_is_said(api: NodeApi) -> None:
    (api.directory.paths.images / "default/current").unlink()
    with pytest.raises(Refused, match="default of rpi1 has not been built"):
        api.boot(ROOT, Identity(), GENERATION)


@pytest.mark.parametrize(
    ("client", "why"),
    [
        (Client("10.77.0.11", 40000, MAC), "source port 40000"),
        (Client("10.77.0.12", 700, MAC), "its address is 10.77.0.11"),
        (Client("10.77.0.11", 700, "dc:a6:32:00:00:66"), "not registered"),
        (Client("10.77.0.66", 700, None), "neither on our wire"),
    ],
)
def test_the_wrong_asker_gets_no_files(api: NodeApi, client: Client, why: str) -> None:
    api.arm(MAC)
    given = token(api)
    with pytest.raises(Refused, match=why):
        api.runtime_archive(client, given)
    assert api.runtime_archive(ROOT, given), "a refusal must not use up the token"


def test_a_forged_token_is_refused(api: NodeApi) -> None:
    api.arm(MAC)
    forged = token(api)[:-4] + "0000"
    with pytest.raises(Refused, match="token of rpi1"):
        api.runtime_archive(ROOT, forged)


def test_a_restarted_daemon_lets_a_boot_go_on(api: NodeApi) -> None:
    api.boots.record(MAC, Stage.DISCOVER, 1_799_999_990.0)
    api.boots.record(MAC, Stage.KERNEL, 1_799_999_995.0)
    assert api.runtime_archive(ROOT, token(api))
    with pytest.raises(Refused, match="once a boot"):
        api.boot(ROOT, Identity(), GENERATION)


def test_stages_are_recorded_and_checked(api: NodeApi) -> None:
    api.stage(ROOT, "root", "")
    boot = api.boots.current(MAC)
    assert boot is not None and Stage.ROOT in boot.stages
    with pytest.raises(Refused, match="no stage"):
        api.stage(ROOT, "../../etc", "")


def test_the_store_is_the_real_one(api: NodeApi) -> None:
    found = api.directory.generation_for(NODE)
    assert isinstance(found, Generation) and found.id == GENERATION


def keeping(api: NodeApi) -> str:
    """Give the node's image a module that keeps something; returns the node's key."""
    module = api.directory.paths.etc / "modules/herd"
    module.mkdir(parents=True)
    (module / "module.yaml").write_text("name: herd\nkept: {own: {}}\n")
    api.directory.config = parse("images: {default: {modules: [herd]}}")
    return api.secrets.kept_key(MAC)


def test_a_node_leaves_something_and_has_it_back(api: NodeApi) -> None:
    key = keeping(api)
    assert api.kept(ROOT, key, "herd", "own") == b""
    api.keep(ROOT, key, "herd", "own", b"what it is")
    assert api.kept(ROOT, key, "herd", "own") == b"what it is"


def test_what_a_node_left_is_for_its_key_alone(api: NodeApi) -> None:
    key = keeping(api)
    for wrong in ("", key[:-1], api.secrets.kept_key("dc:a6:32:00:00:02")):
        with pytest.raises(Refused, match="not the key of rpi1"):
            api.kept(ROOT, wrong, "herd", "own")
        with pytest.raises(Refused, match="not the key of rpi1"):
            api.keep(ROOT, wrong, "herd", "own", b"x")
    with pytest.raises(Refused, match="no registered node"):
        api.kept(Client("10.77.0.99", 700, "dc:a6:32:00:00:99"), key, "herd", "own")
    with pytest.raises(Refused, match="keeps herd/other"):
        api.kept(ROOT, key, "herd", "other")


def test_a_node_waits_while_as_many_others_start_as_the_link_carries(api: NodeApi) -> None:
    clock = 1000.0
    api.turns = Turns(lambda: 1000 * CARRIED, lambda: clock)
    others = [f"dc:a6:33:00:00:{number:02x}" for number in range(int(1000 * CARRIED / ROOT_SHARE))]
    assert all(api.turns.root(mac) for mac in others)
    api.arm(MAC)
    assert api.boot(ROOT, Identity(), "another-generation") == "reboot", "it need not wait for that"
    assert api.boot(ROOT, Identity(), GENERATION) == LATER
    boot = api.boots.current(MAC)
    assert boot is None, "no boot of it is known, so there is nothing to note"
    for mac in others[:2]:
        api.turns.reached(mac, Stage.READY)
    given = token(api)
    assert api.runtime_archive(ROOT, given) == b"files of rpi1"


def test_a_stage_that_a_node_reports_frees_its_place(api: NodeApi) -> None:
    api.turns = Turns(lambda: 1000 * CARRIED, lambda: 1000.0)
    assert api.turns.root(MAC)
    api.stage(ROOT, "overlay", "")
    assert api.turns.standing.root == 1
    api.stage(ROOT, "ready", "")
    assert api.turns.standing.root == 0


def test_waiting_for_the_root_is_noted_in_its_boot(api: NodeApi) -> None:
    api.turns = Turns(lambda: 1000 * CARRIED, lambda: 1000.0)
    for number in range(int(1000 * CARRIED / ROOT_SHARE)):
        api.turns.root(f"dc:a6:33:00:00:{number:02x}")
    api.stage(ROOT, "time", "")
    api.arm(MAC)
    assert api.boot(ROOT, Identity(), GENERATION) == LATER
    boot = api.boots.current(MAC)
    assert boot is not None and boot.of(Kind.HELD) == [FOR_ROOT]


def asked(api: NodeApi, hold: float, meanwhile: Callable[[], None]) -> str:
    """What `GET /v1/boot` answers; `meanwhile` is called while it is held."""
    sent: list[MutableMapping[str, Any]] = []
    scope = {
        "type": "http", "method": "GET", "path": "/v1/boot", "query_string": f"generation={GENERATION}".encode(),
        "headers": [], "client": (ROOT.address, ROOT.port), "server": ("10.77.0.1", 8067), "scheme": "http",
        "http_version": "1.0",
    }  # fmt: skip

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def both() -> None:
        answering = asyncio.create_task(application(api, dict, str, hold)(scope, receive, send))
        await asyncio.sleep(hold / 2)
        meanwhile()
        await answering

    asyncio.run(both())
    return b"".join(one.get("body", b"") for one in sent).decode().strip()


def test_who_has_to_wait_is_told_so_late_and_may_get_its_turn_before(api: NodeApi) -> None:
    turns = api.turns = Turns(lambda: 1000 * CARRIED, lambda: 1000.0)
    others = [f"dc:a6:33:00:00:{number:02x}" for number in range(int(1000 * CARRIED / ROOT_SHARE))]
    assert all(map(turns.root, others))
    api.arm(MAC)
    assert asked(api, 0.02, lambda: None) == LATER
    assert asked(api, 0.02, lambda: turns.reached(others[0], Stage.READY)).startswith("boot ")
