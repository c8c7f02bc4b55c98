"""Lock files: what they keep of an index, how they are read again, and what they refuse."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images import deb822, lock, pool
from kestrelpi.images.mirror import Mirror
from kestrelpi.run import CommandFailed

INDEX = """Package: hello
Version: 1:2.10-3
Essential: yes
Installed-Size: 284
Maintainer: Somebody <somebody@example.org>
Architecture: arm64
Depends: libc6 (>= 2.34),
 hostname
Description: a greeting
 that goes on
Source: hello-source (2.10-3)
Section: devel
Priority: optional
Filename: pool/main/h/hello/hello_2.10-3_arm64.deb
Size: 5
MD5sum: 0123
SHA256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824

Package: hello-traditional
Version: 2.10-6
Architecture: arm64
Provides: greeting (= 1), hi
Filename: pool/main/h/hello-traditional/hello-traditional_2.10-6_arm64.deb
Size: 1
SHA256: 0000000000000000000000000000000000000000000000000000000000000000
"""
MIRROR = Mirror("bookworm", "http://one.example/debian", "http://two.example/security")


def hello(archive: str = lock.DEBIAN) -> lock.Package:
    return lock.package(next(deb822.find(INDEX.encode(), {"hello"})), archive)


def a_lock() -> lock.Lock:
    upgraded = lock.Package({**hello().fields, "Version": "1:2.10-4", "Archive": "security"})
    parts = (lock.section("bootstrap", 1000, [hello()]), lock.section("packages", 2000, [upgraded]))
    return lock.Lock("bookworm", ("hello", "raspi-firmware:usr/lib"), {one.phase: one for one in parts})


def test_an_index_is_searched_by_whole_names() -> None:
    assert deb822.names(INDEX.encode()) == {"hello", "hello-traditional"}
    assert [one["Version"] for one in deb822.find(INDEX.encode(), {"hello"})] == ["1:2.10-3"]
    assert list(deb822.find(INDEX.encode(), {"hell"})) == []


def test_a_package_keeps_what_installing_it_takes() -> None:
    one = hello()
    assert one.fields["Depends"] == "libc6 (>= 2.34), hostname"
    assert not {"Description", "Maintainer", "MD5sum"} & one.fields.keys()
    assert one.source == ("hello-source", "2.10-3")
    assert one.file == "hello_1%3a2.10-3_arm64.deb"


def test_a_lock_file_reads_as_it_was_written() -> None:
    text = a_lock().to_text()
    again = lock.from_text(text, "x")
    assert again == a_lock()
    assert again.to_text() == text
    assert again.packages["hello"].version == "1:2.10-4"
    assert again.sections["bootstrap"].epoch == 1000


def test_a_lock_file_names_no_host() -> None:
    assert not re.search(r"://", a_lock().to_text())
    assert pool.role("http://one.example/debian/", MIRROR) == "debian"
    assert pool.role("http://two.example/security", MIRROR) == "security"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: "", "no lock file"),
        (lambda text: text.replace("Lock: 1", "Lock: 2"), "no lock file"),
        (lambda text: text.partition("Phase: packages")[0], "bootstrap and packages"),
        (lambda text: text.replace("Epoch: 2000", "Epoch: soon"), "damaged"),
        (lambda text: re.sub(r"SHA256: .*\n", "", text), "damaged at hello"),
    ],
)
def test_a_damaged_lock_file_is_refused(damage, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=said):
        lock.from_text(damage(a_lock().to_text()), "packages.lock")


def test_a_lock_that_does_not_fit_names_every_package() -> None:
    lock.check(a_lock(), "bookworm", ("raspi-firmware:usr/lib", "hello"), "x")
    with pytest.raises(UserError) as caught:
        lock.check(a_lock(), "bookworm", ("htop", "hello", "btop"), "x")
    assert "doesn't have: btop, htop" in str(caught.value)
    assert "no longer asked for: raspi-firmware:usr/lib" in str(caught.value)
    assert "--locked" in caught.value.fix
    with pytest.raises(UserError, match="for bookworm, the image for trixie"):
        lock.check(a_lock(), "trixie", a_lock().wanted, "x")


def test_a_section_survives_in_a_layer(tmp_path: Path) -> None:
    part = a_lock().sections["packages"]
    assert lock.read_section(tmp_path) is None
    lock.write_section(part, tmp_path)
    again = lock.read_section(tmp_path)
    assert again == part
    assert again is not None
    assert again.digest == part.digest


def test_an_archive_is_right_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / hello().file
    assert not pool.is_right(path, hello())
    path.write_text("hello")
    assert hashlib.sha256(b"hello").hexdigest() == hello().sha256
    assert pool.is_right(path, hello())
    path.write_text("jello")
    assert not pool.is_right(path, hello())


def test_where_a_package_is_fetched_from() -> None:
    assert pool.uri(hello(), MIRROR) == "http://one.example/debian/pool/main/h/hello/hello_2.10-3_arm64.deb"
    assert pool.uri(hello("security"), MIRROR).startswith("http://two.example/security/pool/")
    assert pool.uri(hello("https://three.example/apt"), MIRROR).startswith("https://three.example/apt/pool/")
    with pytest.raises(UserError, match="security archive"):
        pool.uri(hello("security"), Mirror("bookworm", "http://one.example/debian"))


def test_packages_that_are_gone_are_named() -> None:
    said = str(pool.gone([hello()], CommandFailed(["x"], 100, "404 Not Found", "a.log")))
    assert "hello 1:2.10-3" in said
    assert "404" in said
    assert "build.mirror" in said


def test_a_package_is_looked_up_by_name_version_and_architecture(tmp_path: Path) -> None:
    (tmp_path / "old").write_text(INDEX.replace("1:2.10-3", "1:2.10-2"))
    (tmp_path / "new").write_text(INDEX)
    indexes = [(tmp_path / "old", "debian"), (tmp_path / "new", "security")]
    found = pool.look_up([("hello", "1:2.10-3", "arm64")], indexes)
    assert found["hello"].archive == "security"
    with pytest.raises(UserError, match="hello 9"):
        pool.look_up([("hello", "9", "arm64")], indexes)


def test_when_indexes_were_published(tmp_path: Path) -> None:
    (tmp_path / "a_InRelease").write_text("Origin: x\nDate: Fri, 20 Nov 2026 00:12:41 UTC\n")
    (tmp_path / "b_Release").write_text("Origin: y\nDate: Sat, 01 Aug 2026 10:00:00 UTC\n")
    assert pool.published(sorted(tmp_path.iterdir())) == 1795133561
    assert pool.published([]) == 0


def test_repositories_of_a_lock_have_right_hashes(tmp_path: Path) -> None:
    section = a_lock().sections["bootstrap"]
    assert pool.debootstrap_mirror(section, "bookworm", tmp_path) == f"file://{tmp_path}"
    index = (tmp_path / "dists/bookworm/main/binary-arm64/Packages").read_bytes()
    release = (tmp_path / "dists/bookworm/Release").read_text()
    assert f" {hashlib.sha256(index).hexdigest()} {len(index)} main/binary-arm64/Packages" in release
    assert index.endswith(b"\n\n"), "debootstrap passes over a last package without an empty line"
    assert "Codename: bookworm" in release
    sources = pool.flat_repository(section.packages, tmp_path / "flat")
    assert f"URIs: copy:{tmp_path}/flat" in sources
    assert list(deb822.find((tmp_path / "flat/Packages").read_bytes(), {"hello"}))
