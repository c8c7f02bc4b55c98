"""The users of the cluster: users.yaml, which has each with one uid for all machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from kestrelpi.config.schema import read
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.files import locked, write_whole
from kestrelpi.paths import Paths

NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
"""As useradd(8) takes it everywhere."""
LAST_UID = 59999
"""Debian gives the numbers above to packages (policy section 9.2.2)."""
HEADER = "# The users of the cluster. Change them with: kestrelpi users add|remove\n"


@dataclass(frozen=True)
class Entry:
    """A user in the file."""

    uid: int
    comment: str = ""
    key: str = ""
    """The public key that opens the nodes for this user; made with the user."""


@dataclass(frozen=True)
class File:
    """users.yaml."""

    users: Mapping[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class User:
    """One user; the group has the same name and number."""

    name: str
    uid: int
    comment: str = ""
    key: str = ""


def path_of(paths: Paths) -> Path:
    return paths.state / "users.yaml"


def load(paths: Paths) -> dict[str, User]:
    """All users by name; raises ConfigError with file:line."""
    path = path_of(paths)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    found, document = read(text, str(path), File)
    uids: dict[int, str] = {}
    for name, entry in found.users.items():
        if not NAME.fullmatch(name):
            document.fail(("users", name), f"{name!r} can't be a user's name")
        if entry.uid in uids:
            document.fail(("users", name, "uid"), f"{name} has the uid of {uids[entry.uid]}")
        if not 1000 <= entry.uid <= LAST_UID:
            document.fail(("users", name, "uid"), f"a user's uid lies between 1000 and {LAST_UID}")
        if any(mark in entry.comment + entry.key for mark in ":\n"):
            document.fail(("users", name), "neither a colon nor a line break can stand in an entry of passwd(5)")
        uids[entry.uid] = name
    return {name: User(name, entry.uid, entry.comment, entry.key) for name, entry in found.users.items()}


@contextmanager
def edit(paths: Paths) -> Iterator[dict[str, User]]:
    """The users, to change in place; saved whole at the end, unless an error is raised."""
    with locked(paths.state / "users.lock", "the list of users"):
        users = load(paths)
        yield users
        write_whole(path_of(paths), emit(users))


def emit(users: Mapping[str, User]) -> str:
    """The text of users.yaml."""
    entries = {}
    for name, user in sorted(users.items()):
        more = {"comment": user.comment, "key": user.key}
        entries[name] = {"uid": user.uid, **{key: value for key, value in more.items() if value}}
    return HEADER + yaml.safe_dump({"users": entries}, sort_keys=False, allow_unicode=True, width=1000)


def next_uid(users: Mapping[str, User], first: int, taken: set[int]) -> int:
    """The lowest free uid from `first` on; `taken` are those of the frontend itself. Raises UserError."""
    used = {user.uid for user in users.values()} | taken
    for uid in range(first, LAST_UID + 1):
        if uid not in used:
            return uid
    raise UserError(f"no uid is free between {first} and {LAST_UID}", where="users.first_uid")
