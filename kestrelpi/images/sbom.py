"""A generation's bill of materials, sbom.spdx.json.

Source: the SPDX Specification 2.3, JSON. Package URLs: the purl specification, type `deb`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from kestrelpi import __version__
from kestrelpi.images.licences import expression
from kestrelpi.images.lock import Package

NAME = "sbom.spdx.json"
NAMESPACE = "urn:kestrelpi:image"
"""Followed by the image's name, the generation's id and the tree hash: unique, and of no host."""
NONE = "NOASSERTION"


@dataclass(frozen=True)
class Contents:
    """What the bill is about."""

    image: str
    id: str
    suite: str
    created: str
    """ISO 8601, UTC, whole seconds, ending with Z."""
    tree: str
    packages: Sequence[tuple[Package, Sequence[str]]]
    """Each with the short names of its licences as Debian writes them."""


def text_of(contents: Contents) -> str:
    return json.dumps(document(contents), indent=1) + "\n"


def document(contents: Contents) -> dict[str, object]:
    """The SPDX document: the image, which contains each of its packages."""
    root = "SPDXRef-image"
    parts = [_package(one, names, contents.suite) for one, names in contents.packages]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{contents.image}-{contents.id}",
        "documentNamespace": f"{NAMESPACE}:{quote(contents.image)}:{contents.id}:{contents.tree}",
        "creationInfo": {"created": contents.created, "creators": [f"Tool: kestrelpi-{__version__}"]},
        "documentDescribes": [root],
        "packages": [_image(contents, root), *parts],
        "relationships": [_related("SPDXRef-DOCUMENT", "DESCRIBES", root), *_contained(root, parts)],
    }


def _image(contents: Contents, id: str) -> dict[str, object]:
    return {
        "SPDXID": id,
        "name": f"kestrelpi-image-{contents.image}",
        "versionInfo": contents.id,
        "primaryPackagePurpose": "OPERATING_SYSTEM",
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "comment": f"Debian {contents.suite} for arm64; tree hash {contents.tree}",
    }


def _package(one: Package, names: Sequence[str], suite: str) -> dict[str, object]:
    source, version = one.source
    found: dict[str, object] = {
        "SPDXID": f"SPDXRef-Package-{_id(one.name)}",
        "name": one.name,
        "versionInfo": one.version,
        "packageFileName": one.file,
        "supplier": "Organization: Debian" if not one.archive.count("/") else NONE,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": one.sha256}],
        "sourceInfo": f"built from the Debian source package {source} {version}",
        "licenseConcluded": NONE,
        "licenseDeclared": expression(names) or NONE,
        "copyrightText": NONE,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl(one, suite)}
        ],
    }
    if names:
        found["licenseComments"] = f"debian/copyright names: {', '.join(names)}"
    return found


def purl(one: Package, suite: str) -> str:
    """`pkg:deb/debian/curl@7.88.1-10%2Bdeb12u8?arch=arm64&distro=bookworm`."""
    version = quote(one.version, safe=":~.-_")
    return f"pkg:deb/debian/{quote(one.name, safe='.-_')}@{version}?arch={one.architecture}&distro={suite}"


def _id(name: str) -> str:
    """A package's name with what an SPDX identifier may hold: letters, digits, `.` and `-`."""
    return name.replace("+", ".plus.").replace("_", "-")


def _contained(root: str, parts: Iterable[dict[str, object]]) -> list[dict[str, str]]:
    return [_related(root, "CONTAINS", str(one["SPDXID"])) for one in parts]


def _related(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}
