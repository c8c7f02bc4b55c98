"""The mirror is the one that the frontend's apt uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images.mirror import KEYRING, Mirror, Source, find, own_suite, parse_deb822, parse_list, read_sources

DEB822 = """# a comment
Types: deb deb-src
URIs: http://mirror.example/debian/
# a comment inside
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/some.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://key.example/debian
Suites: stable
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""


def test_deb822() -> None:
    assert parse_deb822(DEB822) == [
        Source(
            "http://mirror.example/debian",
            ("bookworm", "bookworm-updates"),
            ("main", "contrib"),
            "/usr/share/keyrings/some.gpg",
        ),
        Source("http://mirror.example/debian-security", ("bookworm-security",), ("main",)),
        Source("http://key.example/debian", ("stable",), ("main",)),
    ]


def test_one_line_format() -> None:
    text = """
    # deb http://no.example/debian bookworm main
    deb [arch=amd64 signed-by=/a.gpg] https://mirror.example/debian/ bookworm main non-free-firmware # comment
    deb-src http://mirror.example/debian bookworm main
    deb http://flat.example ./
    deb
    """
    assert parse_list(text) == [
        Source("https://mirror.example/debian", ("bookworm",), ("main", "non-free-firmware"), "/a.gpg"),
        Source("http://flat.example", ("./",), ()),
    ]


def test_only_files_that_apt_reads(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    (parts / "b.sources").write_text("Types: deb\nURIs: http://b.example/debian\nSuites: sid\nComponents: main\n")
    (parts / "c.list.save").write_text("deb http://c.example/debian bookworm main\n")
    assert [one.uri for one in read_sources(tmp_path)] == ["http://a.example/debian", "http://b.example/debian"]


def test_a_frontend_with_bookworm_builds_trixie_from_the_same_uri() -> None:
    found = find("trixie", "", parse_deb822(DEB822))
    assert found == Mirror(
        "trixie",
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
        Path("/usr/share/keyrings/some.gpg"),
    )
    assert "Suites: trixie trixie-updates\n" in found.sources()
    assert "URIs: http://mirror.example/debian-security\nSuites: trixie-security\n" in found.sources()
    assert "non-free-firmware" in found.sources()


def test_a_source_of_the_suite_goes_first() -> None:
    sources = [
        Source("http://a.example/d", ("bookworm",), ("main",)),
        Source("http://b.example/d", ("trixie",), ("main",)),
    ]
    assert find("trixie", "", sources).uri == "http://b.example/d"
    assert find("bookworm", "", sources).uri == "http://a.example/d"


def test_the_configuration_wins() -> None:
    found = find("bookworm", "http://mine.example/debian/", parse_deb822(DEB822))
    assert found.uri == "http://mine.example/debian"


def test_no_mirror_is_an_error_that_says_what_to_do() -> None:
    others = [Source("https://packages.example/apt", ("nodistro",), ("main",))]
    with pytest.raises(UserError, match="no Debian mirror"):
        find("bookworm", "", others)


def test_without_security_the_stanza_is_left_out() -> None:
    found = find("bookworm", "", [Source("http://a.example/debian", ("bookworm",), ("main",))])
    assert found.keyring == KEYRING
    assert "security" not in found.sources()


def test_own_suite(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=debian\nVERSION_CODENAME="trixie"\n')
    assert own_suite(release) == "trixie"
    release.write_text("ID=other\nVERSION_CODENAME=noble\n")
    with pytest.raises(UserError, match="noble"):
        own_suite(release)
