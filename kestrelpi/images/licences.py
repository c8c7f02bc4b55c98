"""Licences of a package, out of its debian/copyright (machine-readable format 1.0), by SPDX's names if it has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kestrelpi.images.deb822 import parse

FORMAT = "copyright-format/1.0"
SPDX = {
    "afl-2.1": "AFL-2.1",
    "apache-2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "bsd-4-clause-uc": "BSD-4-Clause-UC",
    "bsl-1.0": "BSL-1.0",
    "cc0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
    "curl": "curl",
    "expat": "MIT",
    "gfdl-1.2+": "GFDL-1.2-or-later",
    "gfdl-1.3": "GFDL-1.3-only",
    "gfdl-1.3+": "GFDL-1.3-or-later",
    "gpl-1+": "GPL-1.0-or-later",
    "gpl-2": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-3": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later",
    "isc": "ISC",
    "lgpl-2": "LGPL-2.0-only",
    "lgpl-2+": "LGPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "lgpl-3": "LGPL-3.0-only",
    "lgpl-3+": "LGPL-3.0-or-later",
    "mit": "MIT",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "openssl": "OpenSSL",
    "unicode": "Unicode-DFS-2016",
    "x11": "X11",
    "zlib": "Zlib",
}
"""Debian's short names (lower case) whose meaning is SPDX's; a name that means something else from package to package
(`BSD`, `public-domain`, `permissive`) is not here."""


def names(copyright: str) -> list[str]:
    """What the License fields of a copyright file say, each once (`GPL-2+`, `Expat or BSD-3-clause`), sorted.

    Empty when it isn't in the format.
    """
    stanzas = list(parse(re.sub(r"\n\s*\n+", "\n\n", copyright)))
    if not stanzas or FORMAT not in stanzas[0].get("Format", ""):
        return []
    lines = (stanza.get("License", "").partition("\n")[0].strip() for stanza in stanzas)
    return sorted({line for line in lines if line})


def expression(found: Iterable[str]) -> str:
    """The SPDX expression of a package with files under all of these; empty when SPDX has no name for one."""
    terms = {_term(line) for line in found}
    return " AND ".join(sorted(terms)) if terms and all(terms) else ""


def _term(line: str) -> str:
    """One License field as an SPDX expression; empty when it can't be one for sure."""
    either, both = re.split(r"\s+or\s+", line), re.split(r"\s+and\s+", line)
    if len(either) > 1 and len(both) > 1:
        return ""
    words = [SPDX.get(_normal(word), "") for word in (either if len(either) > 1 else both)]
    if not all(words):
        return ""
    return f"({' OR '.join(sorted(words))})" if len(either) > 1 else " AND ".join(words)


def _normal(name: str) -> str:
    """Debian's short name without `.0`, which some write and some don't."""
    return re.sub(r"^(l?gpl-[123])\.0", r"\1", name.strip().lower())


def read(root: Path, package: str) -> list[str]:
    """The short names for a package of `root`; a link that leads out of its documentation is not followed."""
    docs = root / "usr/share/doc"
    folder = docs / package
    for _ in range(4):
        if not folder.is_symlink():
            break
        folder = docs / folder.readlink().name
    path = folder / "copyright"
    if path.is_symlink() or not path.is_file():
        return []
    return names(path.read_text(encoding="utf-8", errors="replace"))
