"""Which packages debootstrap will want."""

from __future__ import annotations

from kestrelpi.images.base_index import closure

INDEX = """Package: 0ad
Version: 1
Depends: dpkg
Priority: optional

Package: apt
Version: 2
Depends: libapt (>= 2), sqv (>= 1) | gpgv, gone
Priority: important

Package: base-files
Version: 12
Essential: yes
Pre-Depends: awk
Description: Priority: required
Priority: required

Package: dash
Version: 0.5
Depends: debianutils:any (>= 5)
Priority: required

Package: debianutils
Version: 5
Priority: optional

Package: gpgv
Version: 2
Priority: optional

Package: init-system-helpers
Version: 1
Essential: yes
Depends: usrmerge | usr-is-merged
Priority: optional

Package: libapt
Version: 2
Pre-Depends: apt, libc6
Priority: optional

Package: libc6
Version: 2.36
Priority: optional

Package: sqv
Version: 1
Priority: optional

Package: usr-is-merged
Version: 37
Priority: optional

Package: usrmerge
Version: 37
Depends: perl
Priority: optional

Package: zsh
Version: 5
Priority: optional
"""
FIELDS = "Architecture: arm64\nFilename: pool/x.deb\nSize: 1\nSHA256: 00\n"


def test_it_is_the_base_system_with_the_first_of_all_that_it_depends_on() -> None:
    index = INDEX.replace("Priority:", f"{FIELDS}Priority:").encode()
    found = closure(index, ("apt", "usr-is-merged", "ca-certificates"))
    base = {"base-files", "dash", "debianutils", "init-system-helpers", "usr-is-merged"}
    assert found.keys() == base | {"apt", "libapt", "sqv", "libc6"}
    assert found["libapt"].fields["Pre-Depends"] == "apt, libc6"
    assert found["libc6"].archive == "debian"


def test_the_last_package_of_an_index_counts() -> None:
    index = f"Package: a\nVersion: 1\n{FIELDS}\nPackage: b\nVersion: 1\n{FIELDS}Essential: yes\n"
    assert closure(index.encode(), ()).keys() == {"b"}
