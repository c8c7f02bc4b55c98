"""Packages of an image that must not be newer than one of the frontend, as a module's module.yaml says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from kestrelpi.errors import UserError
from kestrelpi.images.modules import Module
from kestrelpi.run import CommandFailed, run


def release(version: str) -> tuple[int, ...]:
    """The first two numbers of a Debian version's upstream part: 22.05.8-4+deb12u3 is (22, 5)."""
    upstream = version.partition(":")[2] or version
    return tuple(int(number) for number in re.findall(r"\d+", upstream.partition("-")[0])[:2])


def installed_here(package: str) -> str:
    """The version of a package on this machine; empty: it isn't installed."""
    try:
        return run(["dpkg-query", "--show", "--showformat=${Version}", package]).stdout.strip()
    except CommandFailed:
        return ""


def check(modules: Iterable[Module], packages: Mapping[str, str], here: Callable[[str], str] = installed_here) -> None:
    """Raise UserError when the image's `packages` (name → version) are too new for this frontend."""
    for module in modules:
        wanted = module.manifest.version_check
        if wanted is None or wanted.node not in packages:
            continue
        ours, theirs = here(wanted.frontend), packages[wanted.node]
        if ours and release(theirs) > release(ours):
            raise UserError(
                f"the image has {wanted.node} {theirs}, newer than the frontend's {wanted.frontend} {ours}",
                where=f"module {module.name}",
                detail=wanted.why,
                fix="give the image the frontend's Debian release (images.<name>.suite), or upgrade the frontend first",
            )
