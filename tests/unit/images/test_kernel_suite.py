"""A kernel from another suite: what the plan asks for, and what the image's apt is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import ConfigError
from kestrelpi.images import bootdir, scaffold
from kestrelpi.images.mirror import Mirror, parse_deb822, preferences
from kestrelpi.images.packages import read_lists
from kestrelpi.images.plan import BuildPlan, plan
from kestrelpi.paths import Paths

CONFIG = """
build: {{mirror: "http://mirror.example/debian"}}
images:
  default: {{suite: trixie, modules: [], {more}}}
"""


def planned(root: Path, more: str) -> BuildPlan:
    return plan(Paths(root), config.parse(CONFIG.format(more=more)), "default", "kestrelpi.yaml", apt=root / "etc/apt")


def test_without_a_setting_the_suites_own_kernel(tmp_path: Path) -> None:
    wanted = planned(tmp_path, "").wanted
    assert "linux-image-arm64" in wanted.names
    assert wanted.suites == ()
    assert wanted.parts == {"raspi-firmware": ("usr/lib/raspi-firmware",)}


def test_package_and_suite_are_settings(tmp_path: Path) -> None:
    wanted = planned(tmp_path, "kernel: {package: linux-image-rt-arm64, suite: trixie-backports}").wanted
    assert "linux-image-rt-arm64/trixie-backports" in wanted.names
    assert not any(name.startswith("linux-image-arm64") for name in wanted.names)
    assert wanted.suites == ("trixie-backports",)


def test_the_suite_changes_only_the_packages_phase_and_what_follows(tmp_path: Path) -> None:
    before = {step.name: step.key for step in planned(tmp_path, "").steps}
    after = {step.name: step.key for step in planned(tmp_path, "kernel: {suite: trixie-backports}").steps}
    assert [name for name in before if before[name] == after[name]] == ["debootstrap", "20-identity"]


def test_a_list_can_take_the_kernel_out_whatever_its_suite(tmp_path: Path) -> None:
    path = tmp_path / "etc/kestrelpi/node/packages.d/30-mine"
    path.parent.mkdir(parents=True)
    path.write_text("-linux-image-arm64\nlinux-image-mine\n")
    wanted = planned(tmp_path, "kernel: {suite: trixie-backports}").wanted
    assert [name for name in wanted.names if name.startswith("linux-image")] == ["linux-image-mine"]
    assert wanted.suites == ()


def test_apt_takes_nothing_else_from_the_other_suite() -> None:
    mirror = Mirror("trixie", "http://mirror.example/debian")
    wanted = read_lists([(Path("list"), "linux-image-arm64/trixie-backports\nxx/trixie-backports\nyy/sid\n")])
    (sources, sid) = parse_deb822(mirror.more_sources(wanted.suites))[::-1]
    assert (sources.suites, sid.suites) == (("trixie-backports",), ("sid",))
    assert sources.uri == "http://mirror.example/debian"
    assert preferences(wanted.suites) == (
        "Package: *\nPin: release n=sid\nPin-Priority: 100\n\n"
        "Package: *\nPin: release n=trixie-backports\nPin-Priority: 100\n"
    )
    assert mirror.more_sources([]) == ""


@pytest.mark.parametrize("suite", ["trixie backports", "../x", "Trixie", "-x"])
def test_what_is_no_suite_is_said(suite: str) -> None:
    with pytest.raises(ConfigError, match="no Debian suite") as caught:
        config.parse(CONFIG.format(more=f'kernel: {{suite: "{suite}"}}'))
    assert caught.value.where.endswith(":4")


def test_a_canary_is_a_group_that_boots_the_image() -> None:
    text = "images: {default: {canary: rpi}, other: {}}\ngroups: {rpi: {image: other}, a: {}}\n"
    with pytest.raises(ConfigError, match="no group 'rpi' boots default") as caught:
        config.parse(text)
    assert "groups: a" in caught.value.fix
    assert config.parse(text.replace("canary: rpi", "canary: a")).images["default"].canary == "a"


def test_kernels_lie_in_boot_or_beside_their_modules(tmp_path: Path) -> None:
    new = tmp_path / "usr/lib/modules/7.3.4-arm64"
    new.mkdir(parents=True)
    (new / "modules.dep").write_text("")
    (new / "vmlinuz").write_text("")
    assert bootdir.only_kernel(tmp_path) == "7.3.4-arm64"
    assert bootdir.kernel_image(tmp_path, "7.3.4-arm64") == new / "vmlinuz"
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-7.3.4-arm64").write_text("")
    assert bootdir.kernel_image(tmp_path, "7.3.4-arm64") == tmp_path / "boot/vmlinuz-7.3.4-arm64"


def test_a_program_that_differs_from_release_to_release_is_the_images_own() -> None:
    """A kernel of trixie's backports gives run-parts two folders; bookworm's takes one."""
    assert "run-parts" in scaffold.tools(own_release=True)
    assert "run-parts" not in scaffold.tools(own_release=False)
    assert set(scaffold.tools(own_release=True)) > set(scaffold.tools(own_release=False)) > {"sed", "sh", "dpkg-deb"}
