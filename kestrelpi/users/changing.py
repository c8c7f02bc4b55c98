"""Adding and removing users: the registry, the home, the key, and the frontend's own account."""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import replace
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.nodes.identity import generate_key
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.run import run
from kestrelpi.users.registry import NAME, User, edit, next_uid
from kestrelpi.users.shared import publish


def home_of(paths: Paths, config: Config, name: str) -> Path:
    """The home of a user on this machine."""
    return paths.root / str(config.users.homes).lstrip("/") / name


def add(paths: Paths, config: Config, name: str, uid: int | None, comment: str, registry: Registry) -> User:
    """Make a user: everywhere the same uid, a home, a key that opens the nodes. Raises UserError.

    With the root `/` the frontend gets an account of that name too; its key opens the nodes, never the frontend.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} can't be a user's name", fix="use lower-case letters, digits, '-' and '_'")
    own = paths.root == Path("/")
    accounts = {one.pw_name: one.pw_uid for one in pwd.getpwall()} if own else {}
    with edit(paths) as users:
        if name in users:
            raise UserError(f"there is a user {name} already")
        if name in accounts:
            raise UserError(f"the frontend has a user {name} of its own", fix="take another name for the cluster's")
        taken = set(accounts.values())
        number = uid if uid is not None else next_uid(users, config.users.first_uid, taken)
        if number in taken | {user.uid for user in users.values()}:
            raise UserError(f"the uid {number} is taken")
        user = User(name, number, comment)
        if own:
            make_account(user, Path(config.users.homes / name))
        if not config.users.server:
            user = replace(user, key=make_home(user, home_of(paths, config, name)))
        users[name] = user
    publish(paths, config, registry)
    return user


def remove(paths: Paths, config: Config, name: str, with_home: bool, registry: Registry) -> User:
    """Take a user away; the home stays unless `with_home`. Raises UserError."""
    with edit(paths) as users:
        if name not in users:
            raise UserError(f"there is no user {name!r}", fix=f"users: {', '.join(users) or 'none'}")
        user = users.pop(name)
    publish(paths, config, registry)
    if paths.root == Path("/"):
        run(["userdel", name])
    home = home_of(paths, config, name)
    if with_home and home.is_dir() and not config.users.server:
        shutil.rmtree(home)
    return user


GROUP = "kestrelpi-users"
"""All users of the cluster on the frontend: its sshd treats them apart (modules/users/frontend)."""


def make_account(user: User, home: Path) -> None:
    """The frontend's own account: without a password, so that one enters by a key or by `su`."""
    run(["groupadd", "--system", "--force", GROUP])
    run(["groupadd", "--gid", str(user.uid), user.name])
    numbers = ["--uid", str(user.uid), "--gid", str(user.uid)]
    words = [
        "--home-dir",
        str(home),
        "--no-create-home",
        "--shell",
        "/bin/bash",
        "--comment",
        user.comment,
        "--groups",
        GROUP,
    ]
    run(["useradd", *numbers, *words, user.name])


def make_home(user: User, home: Path) -> str:
    """The home with a new SSH key; returns the public key.

    The key isn't among the home's authorized_keys, which the frontend's sshd would read as well: only the nodes know
    it. A home that is there already is taken only if it is this user's.
    """
    if home.exists():
        if home.stat().st_uid != user.uid:
            raise UserError("there is something else already", where=str(home), fix="move it away")
    else:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700)
    ssh = home / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    private = ssh / "id_ed25519"
    if not private.exists():
        generate_key(private, user.name)
    for path in (home, ssh, private, private.with_name("id_ed25519.pub")):
        os.chown(path, user.uid, user.uid, follow_symlinks=False)
    return private.with_name("id_ed25519.pub").read_text(encoding="ascii").strip()
