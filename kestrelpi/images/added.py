"""Packages that are asked for after the packages phase has run: a step of their own installs them over what is kept.

The packages phase is one step, or a chain: a first step with all packages of its day, over it steps that each added
some. A chain takes the place of a single step for the same packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kestrelpi.images import lock
from kestrelpi.images.keys import PREVIOUS
from kestrelpi.images.layers import LayerInfo

PHASE = "packages"
MOST = 4
"""So many steps add packages at most: the last of them is made anew with what it had and what is new."""
Links = tuple[LayerInfo, ...]
"""The layers of a chain, the lowest first."""


class DoesNotFit(Exception):
    """What is added doesn't go together with what is installed: all packages have to be installed anew."""


@dataclass(frozen=True)
class Found:
    """A chain that can be used."""

    links: Links
    names: tuple[str, ...] = ()
    """What is asked for besides: one more step has to install it."""


def field(name: str) -> str:
    """The field of a step's key that says that the package `name` is asked for."""
    return f"package {name}"


def names(fields: Mapping[str, str]) -> tuple[str, ...]:
    """The packages that a step with these fields is asked for."""
    return tuple(name.removeprefix(field("")) for name in fields if name.startswith(field("")))


def step_name(number: int) -> str:
    """The name of a chain's step; `number` counts from 1."""
    return "apt" if number == 1 else f"apt-{number}"


def asked(links: Sequence[LayerInfo]) -> dict[str, str]:
    """What a chain was asked for, as the fields of a single step; not, whether a lock file said which versions."""
    fields = {name: value for name, value in links[0].fields.items() if name != lock.FIELD}
    return fields | {field(name): one.fields[field(name)] for one in links[1:] for name in names(one.fields)}


def find(whole: Mapping[str, str], current: Links, others: Callable[[], Iterable[Links]]) -> Found | None:
    """The chain that does what a single step with the fields `whole` would do, or all of that but some packages.

    `current`: that of the current generation, the only one that more may be added to: its versions stay. `others`: all
    that are kept. None: there is no such chain.
    """
    if current and asked(current) == whole:
        return Found(current)
    for links in others():
        if asked(links) == whole and lock.FIELD not in links[0].fields:
            return Found(links)
    for length in range(min(len(current), MOST), 0, -1):
        more = _missing(asked(current[:length]), whole)
        if more:
            return Found(current[:length], more)
    return None


def _missing(there: Mapping[str, str], whole: Mapping[str, str]) -> tuple[str, ...]:
    """The packages that `whole` asks for and `there` doesn't, if nothing else differs; else nothing."""
    if any(whole.get(name) != value for name, value in there.items()):
        return ()
    more = {name: value for name, value in whole.items() if name not in there}
    plain = [name for name in names(more) if "/" not in name]  # another suite changes the root's sources too
    return tuple(plain) if len(plain) == len(more) else ()


def chains(infos: Iterable[LayerInfo], below: str) -> list[Links]:
    """All chains of packages steps over the layer with the key `below`, the shortest first."""
    over: dict[str, list[LayerInfo]] = {}
    for one in sorted(infos, key=lambda info: info.key):
        if one.phase == PHASE:
            over.setdefault(one.fields.get(PREVIOUS, ""), []).append(one)
    found: list[Links] = [(one,) for one in over.get(below, ())]
    for links in found:  # grows while it is read
        found += [(*links, one) for one in over.get(links[-1].key, ())]
    return found
