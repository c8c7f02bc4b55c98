"""Machine ids, boot tokens, and what lies in the folder of secrets. Keys are made by ssh-keygen: not here."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.identity import TOKEN_LIFE, Secrets, TokenRefused, machine_id
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths

MAC, OTHER = "dc:a6:32:00:00:01", "dc:a6:32:00:00:02"
NODE = Node("rpi1", MAC, "rpi", IPv4Address("10.77.0.11"))


def fake_keys(paths: Paths) -> None:
    """Key files as ssh-keygen makes them, with other bytes."""
    for folder, name, text in (
        ("ssh", "id_ed25519", "ssh-ed25519 AAAACLUSTER kestrelpi"),
        (f"hosts/{MAC.replace(':', '-')}", "ssh_host_ed25519_key", f"ssh-ed25519 AAAAHOST {MAC}"),
    ):
        path = paths.secrets / folder
        path.mkdir(parents=True)
        (path / name).write_text("PRIVATE\n")
        (path / f"{name}.pub").write_text(f"{text}\n")


def test_machine_id_is_stable_and_a_version_4_uuid() -> None:
    assert machine_id(MAC, "kestrelpi") == "372fe2ae5d1640ecb1d1f75c127f3742"
    assert machine_id(OTHER, "kestrelpi") != machine_id(MAC, "kestrelpi")
    assert machine_id(MAC, "other") != machine_id(MAC, "kestrelpi")
    one = machine_id(OTHER, "x")
    assert len(one) == 32
    assert one[12] == "4"
    assert one[16] in "89ab"


def test_token_is_good_for_its_mac_and_its_time(tmp_path: Path) -> None:
    secrets = Secrets(Paths(tmp_path))
    token = secrets.token(MAC, 1000.7, "00ff")
    assert token.startswith("3e8-00ff-")
    assert len(token.rpartition("-")[2]) == 32
    found = Secrets(Paths(tmp_path)).verify(token, MAC, 1000.7)
    assert (found.mac, found.issued, found.nonce, found.expires) == (MAC, 1000, "00ff", 1000 + TOKEN_LIFE)
    secrets.verify(token, MAC, 1000 + TOKEN_LIFE)
    with pytest.raises(TokenRefused, match="901 s old"):
        secrets.verify(token, MAC, 1001 + TOKEN_LIFE)
    with pytest.raises(TokenRefused, match="s old"):
        secrets.verify(token, MAC, 900)
    with pytest.raises(TokenRefused, match=f"not one for {OTHER}"):
        secrets.verify(token, OTHER, 1000)


def test_two_tokens_differ(tmp_path: Path) -> None:
    secrets = Secrets(Paths(tmp_path))
    assert secrets.token(MAC, 1000) != secrets.token(MAC, 1000)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_forged_tokens_are_refused(tmp_path: Path, part: int) -> None:
    secrets = Secrets(Paths(tmp_path))
    parts = secrets.token(MAC, 1000).split("-")
    parts[part] = "f" + parts[part][1:] if parts[part][0] != "f" else "e" + parts[part][1:]
    with pytest.raises(TokenRefused, match="not one for"):
        secrets.verify("-".join(parts), MAC, 1000)


@pytest.mark.parametrize("token", ["", "-", "a-b", "a-b-c-d", "x" * 5000, "3e8-é-ff", "--"])
def test_malformed_tokens_are_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(TokenRefused):
        Secrets(Paths(tmp_path)).verify(token, MAC, 1000)


def test_another_cluster_has_another_key(tmp_path: Path) -> None:
    token = Secrets(Paths(tmp_path / "a")).token(MAC, 1000)
    with pytest.raises(TokenRefused):
        Secrets(Paths(tmp_path / "b")).verify(token, MAC, 1000)


def test_secrets_are_for_root_only(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    Secrets(paths).token(MAC, 1000)
    assert paths.secrets.stat().st_mode & 0o777 == 0o700
    assert (paths.secrets / "token.key").stat().st_mode & 0o777 == 0o600


def test_ssh_trusts_exactly_the_key_that_we_gave_the_node(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    fake_keys(paths)
    argv = ssh_command(paths, config.parse(""), NODE, ["uname", "-a"])
    assert argv[0] == "ssh"
    assert argv[-3:] == ["root@10.77.0.11", "uname", "-a"]
    assert "StrictHostKeyChecking=yes" in argv
    assert argv[argv.index("-i") + 1] == str(paths.secrets / "ssh/id_ed25519")
    (option,) = (word for word in argv if word.startswith("UserKnownHostsFile="))
    known = Path(option.partition("=")[2])
    assert known.read_text() == "rpi1,rpi1.cluster.internal,10.77.0.11 ssh-ed25519 AAAAHOST\n"
