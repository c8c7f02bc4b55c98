"""Package lists, and the configuration for the frontend's apt."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images.manifest import installed_packages
from kestrelpi.images.packages import apt_config, read_lists


def test_lists_are_merged_each_name_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("# comment\nhtop\nlibc6 # needed\n\nlinux-image-arm64/trixie-backports\n")
    (tmp_path / "b").write_text("htop\nraspi-firmware: /usr/lib/raspi-firmware/ usr/share/x\n")
    wanted = read_lists([(path, path.read_text()) for path in (tmp_path / "a", tmp_path / "b")], ["g++"])
    assert wanted.names == ("g++", "htop", "libc6", "linux-image-arm64/trixie-backports")
    assert wanted.parts == {"raspi-firmware": ("usr/lib/raspi-firmware", "usr/share/x")}
    assert wanted.fields == {
        "package g++": "wanted",
        "package htop": "wanted",
        "package libc6": "wanted",
        "package linux-image-arm64/trixie-backports": "wanted",
        "files of raspi-firmware": "usr/lib/raspi-firmware usr/share/x",
    }


@pytest.mark.parametrize("line", ["Htop", "two words", "-o=x", "a;rm", "../x"])
def test_a_line_that_is_no_package_is_said_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list"
    with pytest.raises(UserError) as caught:
        read_lists([(path, f"# first\n{line}\n")])
    assert caught.value.where == f"{path}:2"


def test_a_bad_name_in_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="-o"):
        read_lists([], ["-o"])


def test_apts_configuration() -> None:
    text = apt_config(Path("/build/root"), ['Acquire::http::Proxy "http://proxy.example:3128";'], "/usr/sbin:/usr/bin")
    assert 'Dir "/build/root/";\n' in text
    assert 'DPkg::Chroot-Directory "/build/root";\n' in text
    assert 'APT::Architectures { "arm64"; };\n' in text
    assert 'DPkg::Options:: "--force-confold";\n' in text
    assert text.endswith('Acquire::http::Proxy "http://proxy.example:3128";\n')


def test_installed_packages_of_dpkgs_status() -> None:
    status = """Package: b
Status: install ok installed
Version: 2:1.0-1
Description: one
 Version: not this

Package: a
Status: deinstall ok config-files
Version: 1

Package: aa
Status: hold ok installed
Version: 3
"""
    assert installed_packages(status) == {"aa": "3", "b": "2:1.0-1"}
