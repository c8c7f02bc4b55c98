"""Users: numbers, the file, and what the nodes are told."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kestrelpi.config import Config
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.paths import Paths
from kestrelpi.users import shared
from kestrelpi.users.registry import User, edit, emit, load, next_uid, path_of

ANNA = User("anna", 10000, "Anna Öller", "ssh-ed25519 AAAA anna")
BEN = User("ben", 10001)


def test_the_file_says_again_what_was_written(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert load(paths) == {}
    with edit(paths) as users:
        users["ben"] = BEN
        users["anna"] = ANNA
    assert load(paths) == {"anna": ANNA, "ben": BEN}
    assert path_of(paths).read_text().splitlines()[0].startswith("# The users of the cluster")


def test_an_error_changes_nothing(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    with pytest.raises(RuntimeError), edit(paths) as users:
        users["anna"] = ANNA
        raise RuntimeError
    assert load(paths) == {}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("users:\n  Anna: {uid: 10000}\n", 2, "can't be a user's name"),
        ("users:\n  anna: {uid: 1}\n", 2, "a user's uid lies between"),
        ("users:\n  a: {uid: 2000}\n  b: {uid: 2000}\n", 3, "b has the uid of a"),
        ("users:\n  a: {uid: 2000, comment: 'x:0:0'}\n", 2, "a colon"),
        ("users:\n  a: {uid: many}\n", 2, "users.a.uid is 'many'"),
        ("users:\n  a: {}\n", 2, "lacks uid"),
    ],
)
def test_nonsense_in_the_file_names_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    paths = Paths(tmp_path)
    path_of(paths).parent.mkdir(parents=True)
    path_of(paths).write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(paths)
    assert caught.value.where == f"{path_of(paths)}:{line}"


def test_the_next_uid_is_free_on_the_frontend_too() -> None:
    users = {"anna": ANNA, "ben": BEN}
    assert next_uid({}, 10000, set()) == 10000
    assert next_uid(users, 10000, {10002, 10003}) == 10004
    with pytest.raises(UserError, match="no uid is free"):
        next_uid({}, 59999, {59999})


def test_nodes_are_told_names_and_keys_but_no_password() -> None:
    files = shared.tables({"ben": BEN, "anna": ANNA}, Path("/home/cluster"))
    assert files["passwd"].splitlines() == [
        "anna:x:10000:10000:Anna Öller:/home/cluster/anna:/bin/bash",
        "ben:x:10001:10001::/home/cluster/ben:/bin/bash",
    ]
    assert files["group"] == "anna:x:10000:\nben:x:10001:\n"
    assert {line.split(":")[1] for line in files["shadow"].splitlines()} == {"*"}
    assert files["keys/anna"] == "ssh-ed25519 AAAA anna\n"
    assert "keys/ben" not in files


def test_publishing_writes_what_changed_and_forgets_who_left(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    with edit(paths) as users:
        users["anna"] = ANNA
    assert set(shared.publish(paths, Config(), [])) == {"passwd", "group", "shadow", "keys/anna", "known_hosts"}
    assert shared.publish(paths, Config(), []) == []
    folder = shared.folder(paths)
    assert stat.S_IMODE((folder / "shadow").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "passwd").stat().st_mode) == 0o644
    with edit(paths) as users:
        del users["anna"]
    assert "keys/anna" in shared.publish(paths, Config(), [])
    assert not (folder / "keys/anna").exists()
    assert (folder / "passwd").read_text() == ""


def test_emit_leaves_out_what_is_empty() -> None:
    assert emit({"ben": BEN}).endswith("users:\n  ben:\n    uid: 10001\n")
