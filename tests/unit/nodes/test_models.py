"""Option 97 and board revisions, with bytes from published captures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrelpi.nodes.models import FOURCCS, Identity, Model, board, identify, is_pi, revision

PI4 = bytes.fromhex("00 34695052 1431d000 010902f7 3df0cd91")
"""A Pi 4, from a published dnsmasq log."""
PI4_OTHER_ORDER = bytes.fromhex("00 52506934 1431d000 010902f7 3df0cd91")
PI5 = bytes.fromhex("00 35695052 7041d000 aabbccdd 78563412")
PI3B_ROM = bytes.fromhex("00" + "44" * 16)
PI3BP_ROM = bytes.fromhex("00" + "164c6cb6" * 4)


def test_pi_4_tells_everything() -> None:
    expected = Identity("91cdf03d", "4B", 0xD03114, 8192, 4)
    assert identify(PI4, "e4:5f:01:09:02:f7") == expected
    assert identify(PI4_OTHER_ORDER, "e4:5f:01:09:02:f7") == expected


def test_pi_5() -> None:
    assert identify(PI5, "d8:3a:dd:bb:cc:dd") == Identity("12345678", "5", 0xD04170, 8192, 4)


def test_3b_rom_has_no_serial() -> None:
    assert identify(PI3B_ROM, "b8:27:eb:01:02:03") == Identity(model="3B", memory_mb=1024, cpus=4)


def test_3b_plus_rom_repeats_its_serial() -> None:
    assert identify(PI3BP_ROM, "b8:27:eb:6c:4c:16") == Identity(serial="b66c4c16")
    assert identify(PI3BP_ROM, "00:11:22:33:44:55") == Identity(), "a PC's GUID may look so by accident"
    assert identify(PI3BP_ROM, "02:00:00:33:44:55", ["02-00-00"]) == Identity(serial="b66c4c16")


def test_unknown_board_still_has_a_serial() -> None:
    option = bytes.fromhex("00 35695052 f04fd000 aabbccdd 78563412")
    assert identify(option, "d8:3a:dd:bb:cc:dd") == Identity("12345678", "", 0xD04FF0)


@given(st.binary(max_size=40))
def test_hostile_bytes_raise_nothing(option: bytes) -> None:
    found = identify(option, "dc:a6:32:00:00:01")
    assert found.serial == "" or len(found.serial) == 8


@pytest.mark.parametrize(
    ("code", "model"),
    [
        (0xA02082, Model("3B", 1024)),
        (0xA020D3, Model("3B+", 1024)),
        (0xA03111, Model("4B", 1024)),
        (0xC03115, Model("4B", 4096)),
        (0xC03130, Model("400", 4096)),
        (0xB03140, Model("CM4", 2048)),
        (0xD04170, Model("5", 8192)),
        (0xE04171, Model("5", 16384)),
        (0xD04190, Model("500", 8192)),
        (0xB04180, Model("CM5", 2048)),
        (0xB041A0, Model("CM5 Lite", 2048)),
        (0x2A02082, Model("3B", 1024)),  # bit 25: the warranty of an overclocked board
        (0x000E, None),
        (0, None),
    ],
)
def test_revision_codes(code: int, model: Model | None) -> None:
    assert revision(code) == model


def test_is_pi() -> None:
    assert is_pi("b8:27:eb:01:02:03")
    assert is_pi("00:11:22:33:44:55", PI4), "a Pi with a MAC of its owner's"
    assert all(is_pi("00:11:22:33:44:55", b"\0" + fourcc) for fourcc in FOURCCS)
    assert not is_pi("00:11:22:33:44:55", b"\0" * 17)
    assert is_pi("02:00:00:33:44:55", extra_ouis=("02:00:00",))
    assert not is_pi("02:00:01:33:44:55", extra_ouis=("02:00:00",))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", "4B"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "3B+"),
        ("Raspberry Pi 3 Model B Rev 1.2", "3B"),
        ("Raspberry Pi 400 Rev 1.0", "400"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "CM4"),
        ("Raspberry Pi 5 Model B Rev 1.0", "5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "CM5"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "Zero 2 W"),
        ("linux,dummy-virt", ""),
    ],
)
def test_the_device_trees_model(text: str, name: str) -> None:
    assert board(text) == name
