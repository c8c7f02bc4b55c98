"""The bill of materials keeps the rules of SPDX 2.3, and licences are only said where they are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images import licences, sbom
from kestrelpi.images.lock import Package
from kestrelpi.images.manifest import BootFileInfo, Manifest

TREE = "ab" * 32
LIBC = {
    "Package": "libstdc++6",
    "Version": "1:12.2.0-14+deb12u1",
    "Architecture": "arm64",
    "Source": "gcc-12 (12.2.0-14+deb12u1)",
    "Archive": "debian",
    "Filename": "pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_arm64.deb",
    "SHA256": "cd" * 32,
}
MANIFEST = Manifest(
    *("20261122-013000-1a2b3c4d", "default", "bookworm", "2026-11-22T01:30:00+00:00", "6.1.0-56-arm64"),
    packages={"libstdc++6": LIBC["Version"]},
    boot={"vmlinuz": BootFileInfo(11, "ef" * 32)},
    keys=("0123", "4567"),
    modules=("openmp",),
    tree=TREE,
)
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: hello

Files: *
Copyright: 2020 Somebody
License: GPL-3+

Files: lib/*
Copyright: 2020 Somebody else
License: Expat or BSD-3-clause

License: GPL-3+
 This program is free software.
"""


def bill(names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom.text_of(MANIFEST, [(Package(LIBC), names)]))
    return found


def test_the_document_has_what_spdx_2_3_requires() -> None:
    document = bill(["GPL-3+"])
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["dataLicense"] == "CC0-1.0"
    assert document["SPDXID"] == "SPDXRef-DOCUMENT"
    assert document["documentNamespace"] == f"urn:kestrelpi:image:default:20261122-013000-1a2b3c4d:{TREE}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["creationInfo"]["created"])
    assert all(re.match(r"(Tool|Person|Organization): ", one) for one in document["creationInfo"]["creators"])
    ids = [one["SPDXID"] for one in document["packages"]]
    assert len(set(ids)) == len(ids) == 2
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", one) for one in ids)
    for one in document["packages"]:
        assert {"name", "downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText"} <= one.keys()
        assert one["filesAnalyzed"] is False
    for one in document["relationships"]:
        assert {one["spdxElementId"], one["relatedSpdxElement"]} <= {*ids, "SPDXRef-DOCUMENT"}
    assert document["documentDescribes"] == ["SPDXRef-image"]


def test_what_kestrelpi_notes_is_an_annotation_that_it_finds_among_others(tmp_path: Path) -> None:
    document = bill(["GPL-3+"])
    note = document["annotations"][0]
    assert note.keys() == {"annotationDate", "annotationType", "annotator", "comment"}
    assert (note["annotationType"], note["annotationDate"]) == ("OTHER", "2026-11-22T01:30:00Z")
    document["annotations"].insert(0, {**note, "annotator": "Person: Somebody", "comment": "looked at"})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document))
    assert Manifest.read(path) == MANIFEST


def test_a_manifest_of_an_older_kestrelpi_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"id": "20261122-013000-1a2b3c4d", "packages": {}}')
    with pytest.raises(UserError, match="an older kestrelpi") as caught:
        Manifest.read(path)
    assert f"remove the folder {tmp_path}" in str(caught.value)


def test_a_package_is_said_by_version_hash_source_and_purl() -> None:
    one = bill(["GPL-3+"])["packages"][1]
    assert one["versionInfo"] == "1:12.2.0-14+deb12u1"
    assert one["checksums"] == [{"algorithm": "SHA256", "checksumValue": "cd" * 32}]
    assert one["externalRefs"][0]["referenceLocator"] == (
        "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1?arch=arm64&distro=bookworm"
    )
    assert "gcc-12 12.2.0-14+deb12u1" in one["sourceInfo"]
    assert one["licenseDeclared"] == "GPL-3.0-or-later"


def test_a_licence_that_spdx_does_not_know_is_not_guessed() -> None:
    one = bill(["GPL-3+", "public-domain"])["packages"][1]
    assert one["licenseDeclared"] == "NOASSERTION"
    assert one["licenseComments"] == "debian/copyright names: GPL-3+, public-domain"
    assert "licenseComments" not in bill([])["packages"][1]


def test_licences_of_a_machine_readable_copyright_file() -> None:
    found = licences.names(COPYRIGHT)
    assert found == ["Expat or BSD-3-clause", "GPL-3+"]
    assert licences.expression(found) == "(BSD-3-Clause OR MIT) AND GPL-3.0-or-later"
    assert licences.names("This is free software.\n") == []
    assert licences.expression([]) == ""
    assert licences.expression(["LGPL-2.0+ and GPL-2.0"]) == "LGPL-2.0-or-later AND GPL-2.0-only"
    assert licences.expression(["Expat and GPL-2 or GPL-3"]) == "", "which binds first is not said"


def test_a_link_to_another_packages_documentation_is_followed_but_not_out_of_it(tmp_path: Path) -> None:
    docs = tmp_path / "usr/share/doc"
    (docs / "gcc-12-base").mkdir(parents=True)
    (docs / "gcc-12-base/copyright").write_text(COPYRIGHT)
    (docs / "libgcc-s1").symlink_to("gcc-12-base")
    (docs / "bad").mkdir()
    (docs / "bad/copyright").symlink_to("/etc/passwd")
    assert licences.read(tmp_path, "libgcc-s1") == licences.names(COPYRIGHT)
    assert licences.read(tmp_path, "bad") == []
    assert licences.read(tmp_path, "none") == []
