"""DHCP messages of every model against the published captures, to the byte."""

from __future__ import annotations

import pytest

from kestrelpi.lab import dhcp
from kestrelpi.lab.identity import PiSpec, guid, pi_spec
from kestrelpi.lab.profiles import BOOTCODE, PI3_XID, PROFILES, Guid
from tests.unit.lab.fakes import ADDRESS, PI3, PI3_PLUS, PI4, PI5, SERVER

CLASS = "3c20" + b"PXEClient:Arch:00000:UNDI:002001".hex()
HEAD = "01010600{xid}00000000" + "00" * 16
"""op htype hlen hops, xid, secs, flags, four addresses."""
ROM_LIST = "370c2b3c43808182838485868742"
BOOTCODE_LIST = "370e2b3c438081828384858687420103"
EEPROM_LIST = "370e01032b3c42438081828384858687"


def expected(pi: PiSpec, xid: str, wanted: str, option97: str) -> bytes:
    head = HEAD.format(xid=xid) + pi.mac.replace(":", "").ljust(32, "0") + "00" * 192 + "63825363"
    return bytes.fromhex(head + "350101" + wanted + "5d020000" + "5e03010201" + "6111" + option97 + CLASS + "ff")


def test_rom_of_the_3b() -> None:
    sent = dhcp.discover(PI3, PI3.profile.dhcp, PI3_XID)
    assert sent == expected(PI3, "26f30339", ROM_LIST, "00" + "44" * 16)
    assert len(sent) == 320


def test_bootcode_of_the_3b() -> None:
    pi = PiSpec(1, "3B", "b8:27:eb:86:96:f5", "8d8696f5")
    sent = dhcp.discover(pi, BOOTCODE, PI3_XID)
    assert sent == expected(pi, "26f30339", BOOTCODE_LIST, "00" + "f596868d" * 4)
    assert len(sent) == 322
    assert PROFILES["3B"].second_dhcp is PROFILES["3B+"].second_dhcp is BOOTCODE


def test_rom_of_the_3b_plus_tells_its_serial() -> None:
    sent = dhcp.discover(PI3_PLUS, PI3_PLUS.profile.dhcp, PI3_XID)
    assert sent == expected(PI3_PLUS, "26f30339", ROM_LIST, "00" + "164c6cb6" * 4)


def test_eeprom_of_the_4() -> None:
    sent = dhcp.discover(PI4, PI4.profile.dhcp, 0x12345678)
    assert sent == expected(PI4, "12345678", EEPROM_LIST, "00346950521431d000010902f73df0cd91")
    assert len(sent) == 322
    assert len(dhcp.frame(PI4, PI4.profile.dhcp, sent)) == 364


def test_eeprom_of_a_4_before_march_2020() -> None:
    pi = PiSpec(1, "4-old", PI4.mac, PI4.serial)
    sent = dhcp.discover(pi, pi.profile.dhcp, 0x12345678)
    assert sent == expected(pi, "12345678", EEPROM_LIST, "00" + "3df0cd91" * 4)


def test_eeprom_of_the_5() -> None:
    sent = dhcp.discover(PI5, PI5.profile.dhcp, 0x12345678)
    assert sent == expected(PI5, "12345678", EEPROM_LIST, "00356950527041d00067010203798ff17b")


@pytest.mark.parametrize(("model", "fourcc"), [("400", b"4iPR"), ("CM4", b"4iPR"), ("CM5", b"5iPR")])
def test_option_97_of_the_others(model: str, fourcc: bytes) -> None:
    pi = pi_spec("lab", 1, model)
    traits = pi.profile.dhcp
    value = guid(pi, traits.guid, traits.fourcc)
    assert (traits.guid, value[:5], len(value)) == (Guid.BOARD, b"\0" + fourcc, 17)
    assert value[5:9] == pi.profile.revision.to_bytes(4, "little")
    assert traits.requested == PI4.profile.dhcp.requested


def test_frame_of_the_rom() -> None:
    frame = dhcp.frame(PI3, PI3.profile.dhcp, dhcp.discover(PI3, PI3.profile.dhcp, PI3_XID))
    assert frame[:14].hex() == "ffffffffffffb827eb6c4c160800"
    identification, ttl, protocol = frame[18:20], frame[22], frame[23]
    assert (identification, ttl, protocol) == (b"\0\0", 128, 17)
    assert frame[26:34].hex() == "00000000ffffffff"
    assert frame[34:42].hex() == "0044004301480000"  # ports 68 and 67, 8 + 320 bytes, no checksum


def test_frame_of_an_eeprom_has_a_checksum() -> None:
    frame = dhcp.frame(PI4, PI4.profile.dhcp, dhcp.discover(PI4, PI4.profile.dhcp, 1))
    assert frame[40:42] != b"\0\0"


def test_request_names_address_and_server() -> None:
    sent = dhcp.request(PI4, PI4.profile.dhcp, 7, ADDRESS, SERVER)
    assert sent[240:] == bytes.fromhex("35010332040a63006436040a630001" + CLASS + "ff")


def test_request_of_early_2020_lacks_the_vendor_class() -> None:
    pi = PiSpec(1, "4-old", PI4.mac, PI4.serial)
    assert b"PXEClient" not in dhcp.request(pi, pi.profile.dhcp, 7, ADDRESS, SERVER)


@pytest.mark.parametrize("model", PROFILES)
def test_who_a_pi_is_follows_from_lab_and_number(model: str) -> None:
    pi = pi_spec("lab", 3, model)
    assert pi == pi_spec("lab", 3, model)
    assert pi.mac != pi_spec("lab", 4, model).mac
    assert pi.mac != pi_spec("other", 3, model).mac
    assert pi.mac.startswith(PROFILES[model].oui)
    assert len(pi.serial) == 8
    if PROFILES[model].family == 3:
        assert pi.mac.replace(":", "").endswith(pi.serial[2:])
