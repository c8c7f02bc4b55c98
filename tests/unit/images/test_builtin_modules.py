"""What comes with kestrelpi: modules that exclude each other, module files, what is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.config import load, parse
from kestrelpi.errors import ConfigError
from kestrelpi.images import fetched
from kestrelpi.images.modules import available, of_image
from kestrelpi.images.sources import overlay
from kestrelpi.paths import Paths

DIGEST = "0123456789abcdef" * 4


def files(tmp_path: Path, text: str) -> dict[str, fetched.Fetched]:
    config = parse(text)
    return fetched.of_modules(of_image(Paths(tmp_path), config, "default"), tmp_path, "amd64")


@pytest.mark.parametrize("order", ["environment-modules, lmod", "lmod, environment-modules"])
def test_the_two_module_commands_exclude_each_other(tmp_path: Path, order: str) -> None:
    with pytest.raises(ConfigError, match=r"the modules .* and .* can't be in one image") as caught:
        files(tmp_path, f"images: {{default: {{modules: [{order}]}}}}")
    assert "environment-modules" in caught.value.what
    assert "lmod" in caught.value.what


@pytest.mark.parametrize("command", ["environment-modules", "lmod"])
def test_module_files_come_with_what_they_are_for(tmp_path: Path, command: str) -> None:
    config = parse(f"images: {{default: {{modules: [{command}, openmpi]}}, small: {{modules: [{command}]}}}}")
    found = overlay(Paths(tmp_path), config, "default", "node")
    for name in ("fibo/1", "openmpi/debian"):
        path = found[f"usr/local/share/modulefiles/{name}"].path
        assert path.read_text().startswith("#%Module1.0\n")
    assert not any("modulefiles" in name for name in overlay(Paths(tmp_path), config, "small", "node"))


@pytest.mark.parametrize(
    ("command", "file"),
    [("environment-modules", "etc/environment-modules/initrc"), ("lmod", "etc/lmod/modulespath")],
)
def test_the_module_command_looks_where_they_lie(tmp_path: Path, command: str, file: str) -> None:
    config = parse(f"images: {{default: {{modules: [{command}]}}}}")
    assert "/usr/local/share/modulefiles" in overlay(Paths(tmp_path), config, "default", "node")[file].path.read_text()


def test_apptainer_is_a_package_whose_hash_the_user_says(tmp_path: Path) -> None:
    one = files(tmp_path, "images: {default: {modules: [apptainer]}}")["apptainer"]
    assert one.package
    assert one.url == "https://github.com/apptainer/apptainer/releases/download/v1.4.5/apptainer_1.4.5_arm64.deb"
    with pytest.raises(ConfigError, match="nobody has said what the SHA-256 of apptainer") as caught:
        one.required_sha256()
    assert "images.<image>.options.apptainer.sha256" in caught.value.fix
    text = (
        "images: {default: {modules: [apptainer], options: {apptainer: {url: 'http://10.77.0.1/a.deb', sha256: %s}}}}"
    )
    mine = files(tmp_path, text % DIGEST)["apptainer"]
    assert (mine.url, mine.file, mine.required_sha256()) == ("http://10.77.0.1/a.deb", "a.deb", DIGEST)


def test_the_default_k3s_can_be_fetched_without_a_setting(tmp_path: Path) -> None:
    found = files(tmp_path, "images: {default: {modules: [k3s]}}")
    assert set(found) == {"k3s-arm64", "k3s-amd64", "k3s-images"}
    for one in found.values():
        assert len(one.required_sha256()) == 64
        assert one.size > 50_000_000
    assert len({one.sha256 for one in found.values()}) == 3


def test_every_module_has_a_readme(tmp_path: Path) -> None:
    without = [m.name for m in available(Paths(tmp_path)).values() if not (m.folders[0] / "README.md").is_file()]
    assert without == []


def test_a_hash_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.etc.mkdir(parents=True)
    paths.config.write_text(
        "images:\n  default:\n    modules: [k3s]\n    options:\n      k3s:\n        sha256_arm64: 12345\n"
    )
    with pytest.raises(ConfigError, match="sha256_arm64 is '12345'") as caught:
        of_image(paths, load(paths.config), "default")
    assert caught.value.where.endswith("kestrelpi.yaml:6")
    assert caught.value.fix == "it must be 64 hexadecimal digits, or nothing"
