"""The modules that an initramfs needs, from depmod's indexes."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images import kmod

KERNEL = "6.12.1-arm64"
DEP = """kernel/net/phy.ko.xz:
kernel/net/usbnet.ko.xz: kernel/net/mii.ko.xz
kernel/net/mii.ko.xz:
kernel/net/smsc95xx.ko.xz: kernel/net/usbnet.ko.xz kernel/net/mii.ko.xz kernel/net/phy.ko.xz
kernel/net/rare.ko.xz:
kernel/net/bcm-unimac.ko.xz:
kernel/crypto/crc.ko.xz:
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "usr/lib/modules" / KERNEL
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text(DEP)
    (folder / "modules.softdep").write_text(
        "# Soft\nsoftdep smsc95xx pre: crc post: bcm_unimac none_such\nsoftdep rare pre: crc\n"
    )
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (folder / "modules.alias").write_text("alias usb:v0424p9500* smsc95xx\nalias pci:v1 rare\nalias mdio bcm_unimac\n")
    return tmp_path


def test_the_closure_has_dependencies_first_and_soft_ones_too(root: Path) -> None:
    paths, missing = kmod.load(root, KERNEL).closure(["smsc95xx"])
    names = [kmod.module_name(path) for path in paths]
    assert names[-1] == "smsc95xx"
    assert set(names) == {"phy", "mii", "usbnet", "crc", "bcm_unimac", "smsc95xx"}
    assert names.index("mii") < names.index("usbnet")
    assert missing == []


def test_dashes_are_underscores_and_built_in_modules_are_not_missing(root: Path) -> None:
    paths, missing = kmod.load(root, KERNEL).closure(["bcm-unimac", "ext4", "no-such"])
    assert paths == ["kernel/net/bcm-unimac.ko.xz"]
    assert missing == ["no_such"]


def test_the_indexes_hold_only_what_is_taken_under_plain_names(root: Path) -> None:
    index = kmod.load(root, KERNEL)
    paths, _ = index.closure(["smsc95xx"])
    texts = kmod.indexes(index, paths)
    assert "kernel/net/usbnet.ko: kernel/net/mii.ko\n" in texts["modules.dep"]
    assert "kernel/net/mii.ko:\n" in texts["modules.dep"]
    assert "rare" not in "".join(texts.values())
    assert texts["modules.alias"] == "alias usb:v0424p9500* smsc95xx\nalias mdio bcm_unimac\n"
    assert texts["modules.builtin"] == "kernel/fs/ext4/ext4.ko\n"


def test_compressed_modules_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"module"))
    (tmp_path / "b.ko.gz").write_bytes(gzip.compress(b"module"))
    (tmp_path / "c.ko").write_bytes(b"module")
    assert {kmod.read_module(path) for path in tmp_path.iterdir()} == {b"module"}


def test_a_root_without_that_kernel_is_an_error(root: Path) -> None:
    assert kmod.kernels(root) == [KERNEL]
    with pytest.raises(UserError, match="no modules of the kernel"):
        kmod.load(root, "6.1.0")
