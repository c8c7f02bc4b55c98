"""A mirror of just the packages that debootstrap will want.

debootstrap reads the whole index of Debian, 50 MB, a dozen times with perl, and asks for one package after the other.
The frontend's apt has fetched and verified that index a moment before; what is in it of the base system takes a second
to find, and apt fetches all of it at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.images import deb822, packages, pool
from kestrelpi.images.indexes import Apt, lists_folder, nothing
from kestrelpi.images.lock import DEBIAN, Package, Section, package, section
from kestrelpi.images.workshop import Workshop
from kestrelpi.sandbox import CHROOT_PATH, Sandbox

BASE = re.compile(rb"^(?:Essential: yes|Priority: required)$", re.MULTILINE)
ALSO, EXCEPT = ("apt", "usr-is-merged"), ("usrmerge",)
"""What debootstrap's scripts (debian-common) take and leave out by name, if the suite has it."""
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def base_section(shop: Workshop, scratch: Path, log: Path, also: Iterable[str] = ()) -> Section:
    """What debootstrap will want for its minimal root, of the newest index.

    `also`: packages besides. Raises UserError when the mirror has no index of the suite, CommandFailed when apt can't
    fetch it.
    """
    index, release = newest_index(shop, scratch, log)
    found = closure(index.read_bytes(), (*ALSO, *also))
    return section("bootstrap", pool.published([release]), found.values())


def newest_index(shop: Workshop, scratch: Path, log: Path) -> tuple[Path, Path]:
    """The index of the suite's component main and the suite's InRelease, fetched and verified by the frontend's apt."""
    plan, root = shop.plan, scratch / "apt"
    lists = lists_folder(shop)
    for folder in (lists / "partial", root / "etc/apt/sources.list.d", root / "var/lib/dpkg", root / "var/cache/apt"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "etc/apt/sources.list.d/debian.sources").write_text(plan.mirror.sources())
    config = scratch / "base.conf"
    text = packages.apt_config(root, packages.frontend_acquire(), CHROOT_PATH)
    config.write_text(f'{text}Dir::State::lists "{lists}";\n')
    apt = Apt(shop, Sandbox(), config, (lists, scratch), log)
    wanted = [plan.suite, "main", plan.mirror.uri]
    for *about, name in apt.update("$(RELEASE) $(COMPONENT) $(REPO_URI) $(FILENAME)", nothing):
        if [word.rstrip("/") for word in about] == wanted:
            index = lists / Path(name).name
            return index, index.with_name(f"{index.name.partition('_main_')[0]}_InRelease")
    raise UserError(f"the mirror has no index of {plan.suite}", where=plan.mirror.uri)


def closure(index: bytes, also: Iterable[str]) -> dict[str, Package]:
    """The base system's packages, those of `also` that there are, and what they depend on: by name.

    Of alternatives the first one counts, as with debootstrap.
    """
    places = {name: start for start, name in deb822.starts(index)}
    found: dict[str, Package] = {}
    todo = [*base_names(index, places), *also]
    while todo:
        name = todo.pop()
        if name in places and name not in found and name not in EXCEPT:
            stanza = next(deb822.find(index[places[name] : _end(index, places[name])], {name}))
            found[name] = package(stanza, DEBIAN)
            for one in ("Pre-Depends", "Depends"):
                alternatives = (words.partition("|")[0] for words in stanza.get(one, "").split(","))
                todo += [match[0] for words in alternatives if (match := NAME.match(words.strip()))]
    return found


def base_names(index: bytes, places: Mapping[str, int]) -> list[str]:
    """The packages that every system has."""
    starts = sorted((start, name) for name, start in places.items())
    names, number = [], 0
    for match in BASE.finditer(index):
        while number + 1 < len(starts) and starts[number + 1][0] <= match.start():
            number += 1
        names.append(starts[number][1])
    return names


def _end(index: bytes, start: int) -> int:
    end = index.find(b"\n\n", start)
    return end if end >= 0 else len(index)
