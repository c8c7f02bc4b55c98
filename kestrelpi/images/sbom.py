"""A generation's bill of materials, manifest.json.

Source: the SPDX Specification 2.3, JSON. Package URLs: the purl specification, type `deb`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from kestrelpi import __version__
from kestrelpi.images.licences import expression
from kestrelpi.images.lock import Package
from kestrelpi.images.manifest import ANNOTATOR, Manifest

NAMESPACE = "urn:kestrelpi:image"
"""Followed by the image's name, the generation's id and the tree hash: unique, and of no host."""
NONE = "NOASSERTION"
Licensed = tuple[Package, Sequence[str]]
"""A package, and the short names of its licences as Debian writes them."""


def text_of(manifest: Manifest, packages: Iterable[Licensed] = ()) -> str:
    """manifest.json."""
    return json.dumps(document(manifest, packages), indent=1) + "\n"


def document(manifest: Manifest, packages: Iterable[Licensed]) -> dict[str, object]:
    """The SPDX document: the image, which contains each of its packages; and the manifest as an annotation."""
    root, tool = "SPDXRef-image", f"{ANNOTATOR}-{__version__}"
    created = manifest.created.replace("+00:00", "Z")
    parts = [_package(one, names, manifest.suite) for one, names in packages]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{manifest.image}-{manifest.id}",
        "documentNamespace": f"{NAMESPACE}:{quote(manifest.image)}:{manifest.id}:{manifest.tree}",
        "creationInfo": {"created": created, "creators": [tool]},
        "documentDescribes": [root],
        "packages": [_image(manifest, root), *parts],
        "relationships": [_related("SPDXRef-DOCUMENT", "DESCRIBES", root), *_contained(root, parts)],
        "annotations": [
            {"annotationDate": created, "annotationType": "OTHER", "annotator": tool, "comment": manifest.to_json()}
        ],
    }


def _image(manifest: Manifest, id: str) -> dict[str, object]:
    return {
        "SPDXID": id,
        "name": f"kestrelpi-image-{manifest.image}",
        "versionInfo": manifest.id,
        "primaryPackagePurpose": "OPERATING_SYSTEM",
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "comment": f"Debian {manifest.suite} for arm64; tree hash {manifest.tree}",
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
