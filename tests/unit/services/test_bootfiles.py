"""Which bytes a Pi gets for a path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kestrelpi.paths import Paths, data_dir
from kestrelpi.services import bootfiles
from kestrelpi.services.bootfiles import LOADING, BootFiles
from kestrelpi.services.tftp.source import BootFile, PathRefused

OLD, NEW = "20261121-000000-00000001", "20261122-000000-00000002"
CONFIG = """\
network: {address: 10.77.0.1/24}
images: {default: {modules: []}, other: {modules: []}}
groups:
  rpi: {cmdline: rpi.option}
  five: {image: other, config_txt: ["dtparam=x"]}
"""
REGISTRY = f"""\
nodes:
  rpi1: {{mac: "dc:a6:32:00:00:01", serial: 91cdf03d, model: 4B, group: rpi, address: 10.77.0.11}}
  rpi2: {{mac: "dc:a6:32:00:00:02", group: rpi, address: 10.77.0.12, pin: {OLD}}}
  five1: {{mac: "d8:3a:dd:00:00:01", model: "5", group: five, address: 10.77.0.13}}
"""


@pytest.fixture
def files(tmp_path: Path) -> BootFiles:
    paths = Paths(tmp_path)
    paths.etc.mkdir(parents=True)
    paths.config.write_text(CONFIG)
    paths.registry.parent.mkdir(parents=True)
    paths.registry.write_text(REGISTRY)
    for generation in (OLD, NEW):
        boot = paths.images / "default/generations" / generation / "boot"
        boot.mkdir(parents=True)
        (boot / "vmlinuz").write_text(f"kernel {generation}")
        (boot / "overlays").mkdir()
        (boot / "overlays/x.dtbo").write_text("overlay")
    (paths.images / "default/current").symlink_to(f"generations/{NEW}")
    return BootFiles(paths, paths.config)


def content(found: BootFile | None) -> str:
    assert found is not None
    data = found.open if isinstance(found.open, bytes) else found.open.read_bytes()
    assert len(data) == found.size
    return data.decode("ascii")


@pytest.mark.parametrize(
    "path",
    ["91cdf03d/vmlinuz", "91CDF03D//vmlinuz", "/91cdf03d/vmlinuz", "dc-a6-32-00-00-01/vmlinuz", "vmlinuz", "./vmlinuz"],
)
def test_every_prefix_leads_to_the_nodes_generation(files: BootFiles, path: str) -> None:
    assert content(files.find(path, "10.77.0.11")) == f"kernel {NEW}"


def test_beside_another_dhcp_server_the_mac_tells_whose_files_they_are(files: BootFiles) -> None:
    files.config_path.write_text(CONFIG + "services: {dhcp: {backend: proxy}}\n")
    files.mac_of = {"10.77.0.150": "dc:a6:32:00:00:02", "10.77.0.12": "dc:a6:32:00:00:99"}.get
    files.reload()
    assert content(files.find("vmlinuz", "10.77.0.150")) == f"kernel {OLD}"
    assert content(files.find("deadbeef/vmlinuz", "10.77.0.150")) == f"kernel {OLD}"
    assert content(files.find("91cdf03d/vmlinuz", "10.77.0.150")) == f"kernel {NEW}"
    assert content(files.find("vmlinuz", "10.77.0.12")) == f"kernel {NEW}", "rpi2's address is another's now"


def test_a_pinned_node_boots_its_pin(files: BootFiles) -> None:
    assert content(files.find("vmlinuz", "10.77.0.12")) == f"kernel {OLD}"
    assert OLD in content(files.find("cmdline.txt", "10.77.0.12"))


def publish(files: BootFiles, generation: str) -> None:
    link = files.paths.images / "default/current"
    link.unlink()
    link.symlink_to(f"generations/{generation}")


@pytest.mark.parametrize("first", ["config.txt", "bootcode.bin", "91cdf03d/start4cd.elf"])
def test_what_is_published_while_a_pi_loads_its_files_waits_for_its_next_boot(files: BootFiles, first: str) -> None:
    files.find(first, "10.77.0.11")
    publish(files, OLD)
    assert files.find("config.txt", "10.77.0.11"), "a Pi 4 reads it again between initramfs and kernel"
    for name in ("cmdline.txt", "91cdf03d/vmlinuz"):
        assert NEW in content(files.find(name, "10.77.0.11"))
    files.find(first, "10.77.0.11")
    for name in ("cmdline.txt", "vmlinuz"):
        assert OLD in content(files.find(name, "10.77.0.11"))


def test_who_only_asks_for_one_file_gets_the_newest(files: BootFiles) -> None:
    assert NEW in content(files.find("cmdline.txt", "10.77.0.11"))
    publish(files, OLD)
    assert OLD in content(files.find("cmdline.txt", "10.77.0.11"))


def test_one_client_can_ask_for_the_files_of_several_nodes(files: BootFiles) -> None:
    for first in ("config.txt", "cmdline.txt"):
        assert files.find(f"dc-a6-32-00-00-01/{first}", "10.77.0.200")
        assert files.find(f"dc-a6-32-00-00-02/{first}", "10.77.0.200")
    assert content(files.find("dc-a6-32-00-00-01/vmlinuz", "10.77.0.200")) == f"kernel {NEW}"
    assert content(files.find("dc-a6-32-00-00-02/vmlinuz", "10.77.0.200")) == f"kernel {OLD}"


def test_a_pi_that_never_came_to_its_kernel_begins_anew_after_a_while(files: BootFiles) -> None:
    now = [0.0]
    files.clock = lambda: now[0]
    for seconds, wanted in ((0.0, NEW), (LOADING, NEW), (LOADING + 1, OLD)):
        now[0] = seconds
        files.find("config.txt", "10.77.0.11")
        assert wanted in content(files.find("cmdline.txt", "10.77.0.11"))
        publish(files, OLD)


def test_a_generation_that_was_removed_meanwhile_is_not_looked_for(files: BootFiles) -> None:
    assert files.find("config.txt", "10.77.0.11")
    publish(files, OLD)
    shutil.rmtree(files.paths.images / "default/generations" / NEW)
    assert OLD in content(files.find("vmlinuz", "10.77.0.11"))


def test_so_many_boots_are_remembered_at_most(files: BootFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootfiles, "REMEMBERED", 2)
    for last in (11, 20, 21):
        assert files.find("config.txt", f"10.77.0.{last}")
    publish(files, OLD)
    assert OLD in content(files.find("vmlinuz", "10.77.0.11")), "forgotten: the oldest"
    assert NEW in content(files.find("vmlinuz", "10.77.0.21"))


def test_serials_of_others_lead_to_others(files: BootFiles) -> None:
    assert "rpi1" in content(files.find("91cdf03d/config.txt", "10.77.0.250"))


def test_a_pi_that_nobody_registered_waits_in_the_current_generation(files: BootFiles) -> None:
    assert content(files.find("deadbeef/vmlinuz", "10.77.0.200")) == f"kernel {NEW}"
    assert f"kestrelpi.generation={NEW}" in content(files.find("deadbeef/cmdline.txt", "10.77.0.200"))


def test_or_gets_nothing(files: BootFiles) -> None:
    files.config_path.write_text(CONFIG + "services: {dhcp: {unregistered: address}}\n")
    files.reload()
    assert files.find("deadbeef/vmlinuz", "10.77.0.200") is None
    assert files.find("vmlinuz", "10.77.0.11") is not None


def test_an_image_that_was_not_built_has_no_files(files: BootFiles) -> None:
    assert files.find("vmlinuz", "10.77.0.13") is None


@pytest.mark.parametrize("path", ["no-such-file", "91cdf03d", "", "/", "overlays", "overlays/none.dtbo", "a\0b"])
def test_what_is_not_there(files: BootFiles, path: str) -> None:
    assert files.find(path, "10.77.0.11") is None


@pytest.mark.parametrize("path", ["../x", "91cdf03d/../../manifest.json", "overlays/../../../x"])
def test_paths_do_not_leave_the_tree(files: BootFiles, path: str) -> None:
    with pytest.raises(PathRefused):
        files.find(path, "10.77.0.11")


def test_links_do_not_leave_the_tree(files: BootFiles, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (files.paths.images / "default/current/boot/leak").symlink_to(tmp_path / "secret")
    with pytest.raises(PathRefused):
        files.find("leak", "10.77.0.11")


def test_the_command_line_is_one_line_with_all_that_the_initramfs_needs(files: BootFiles) -> None:
    line = content(files.find("91cdf03d/cmdline.txt", "10.77.0.11"))
    assert line.count("\n") == 1 and line.endswith("\n")
    words = line.split()
    root = files.paths.images / "default/generations" / NEW / "root"
    for word in (
        "cgroup_enable=memory",
        "kestrelpi.server=10.77.0.1",
        "kestrelpi.http=8067",
        "kestrelpi.image=default",
        f"kestrelpi.generation={NEW}",
        f"kestrelpi.root=10.77.0.1:{root}",
        "kestrelpi.nfs=vers=4.1,port=2049",
        "console=ttyS1,115200",
        "rpi.option",
    ):
        assert word in words


def test_a_root_that_was_packed_is_named_beside_the_folder(files: BootFiles) -> None:
    """A cmdline.txt.j2 of the user's from before it was known still gives a root."""
    assert "kestrelpi.squashfs" not in content(files.find("91cdf03d/cmdline.txt", "10.77.0.11"))
    packed = files.paths.images / "default/generations" / NEW / "squashfs"
    packed.mkdir()
    words = content(files.find("91cdf03d/cmdline.txt", "10.77.0.11")).split()
    assert f"kestrelpi.squashfs=10.77.0.1:{packed}" in words
    assert f"kestrelpi.root=10.77.0.1:{packed.parent / 'root'}" in words
    assert "kestrelpi.squashfs" not in content(files.find("cmdline.txt", "10.77.0.12")), "its pin has none"


def test_config_txt_is_golden(files: BootFiles) -> None:
    text = content(files.find("91cdf03d/config.txt", "10.77.0.11"))
    assert len(text) < 4096
    lines = text.splitlines()
    for line in ("arm_64bit=1", "kernel=vmlinuz", "initramfs initramfs.img followkernel", "bootloader_update=0"):
        assert line in lines


def test_the_owners_template_wins(files: BootFiles) -> None:
    own = files.paths.etc / "overlays/boot"
    own.mkdir(parents=True)
    shutil.copy(data_dir() / "overlays/boot/config.txt.j2", own / "config.txt.j2")
    with (own / "config.txt.j2").open("a") as out:
        out.write("dtoverlay=é-{{ name }}\n")
    assert content(files.find("config.txt", "10.77.0.11")).endswith("dtoverlay=?-rpi1\n")
    (own / "config.txt.j2").write_text("{{ no_such_name }}")
    assert files.find("config.txt", "10.77.0.11") is None, "a broken template is no file, and no traceback"


def test_a_broken_registry_leaves_the_last_good_one(files: BootFiles) -> None:
    files.paths.registry.write_text("nodes: [this is not a mapping")
    files.reload()
    assert content(files.find("91cdf03d/vmlinuz", "10.77.0.11")) == f"kernel {NEW}"
