"""Why a package is in an image: which installed packages need it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kestrelpi.images import deb822

RELATION = re.compile(r"[a-z0-9][a-z0-9+.-]+")
BASE = ("required",)
"""Priorities of what debootstrap installs before any list is read."""


@dataclass(frozen=True)
class Installed:
    """One package of dpkg's status file."""

    name: str
    needs: tuple[frozenset[str], ...]
    """Of each set one must be there: alternatives."""
    provides: frozenset[str]
    base: bool


def read(status: str) -> dict[str, Installed]:
    """The installed packages by name."""
    stanzas = deb822.parse(status)
    return {one["Package"]: _installed(one) for one in stanzas if one.get("Status", "").endswith(" installed")}


def _installed(stanza: Mapping[str, str]) -> Installed:
    relations = ", ".join(stanza[field] for field in ("Pre-Depends", "Depends") if stanza.get(field))
    groups = [frozenset(_names(group.split("|"))) for group in relations.split(",") if group.strip()]
    base = stanza.get("Essential") == "yes" or stanza.get("Priority") in BASE or stanza["Package"] == "apt"
    return Installed(stanza["Package"], tuple(groups), frozenset(_names(stanza.get("Provides", "").split(","))), base)


def _names(relations: Iterable[str]) -> list[str]:
    found = (RELATION.match(one.strip()) for one in relations)
    return [match.group() for match in found if match]


def needed_by(name: str, packages: Mapping[str, Installed], wanted: Iterable[str]) -> list[str]:
    """The packages that stay, because a list or Debian's base wants them, and that can't do without `name`."""
    by_name: dict[str, set[str]] = {}
    for one in packages.values():
        for word in (one.name, *one.provides):
            by_name.setdefault(word, set()).add(one.name)
    roots = {there for word in wanted for there in by_name.get(word, ())} | {
        one.name for one in packages.values() if one.base
    }
    stays: set[str] = set()
    todo = sorted(roots - {name})
    while todo:
        one = packages[todo.pop()]
        if one.name in stays:
            continue
        stays.add(one.name)
        todo += [there for group in one.needs for word in group for there in by_name.get(word, ()) if there != name]
    return sorted(one for one in stays if any(_only(name, group, by_name) for group in packages[one].needs))


def _only(name: str, group: frozenset[str], by_name: Mapping[str, set[str]]) -> bool:
    """Whether nothing but `name` meets this need."""
    return set().union(*(by_name.get(word, set()) for word in group)) == {name}
