"""kestrelpi.yaml: defaults, and every mistake with its file, line and the line itself."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from kestrelpi.config import AddressRange, Config, Duration, load, parse, parse_mac
from kestrelpi.errors import ConfigError, ExitStatus
from kestrelpi.paths import data_dir

DEFAULT_FILE = data_dir() / "etc/kestrelpi.yaml"


def test_an_empty_file_has_every_default() -> None:
    config = parse("")
    assert config == Config()
    assert config.network.address == IPv4Interface("10.77.0.1/24")
    assert config.listen == IPv4Address("10.77.0.1")
    assert str(config.pool) == "10.77.0.128-10.77.0.254"
    assert str(config.node_addresses) == "10.77.0.11-10.77.0.127"
    assert config.prefix("rpi") == "rpi"


def test_values() -> None:
    config = parse(
        """
cluster: school
network: {address: 192.168.7.5/22, pool: 192.168.6.1 - 192.168.6.99, gateway: 192.168.4.1}
services:
  listen: 127.0.0.1
  dhcp: {port: 6067, lease: 90m, rom_delay: 0}
  nfs: {version: 4.1}
images: {default: {suite: trixie, packages: [htop, tmux]}}
groups: {rpi: {prefix: node-, cmdline: a b}}
"""
    )
    assert config.listen == IPv4Address("127.0.0.1")
    assert config.pool == AddressRange(IPv4Address("192.168.6.1"), IPv4Address("192.168.6.99"))
    assert (config.services.dhcp.lease, config.services.dhcp.rom_delay) == (5400, 0)
    assert config.services.nfs.version == "4.1"
    assert config.images["default"].packages == ("htop", "tmux")
    assert config.prefix("rpi") == "node-"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("netwrok: {}\n", 1, "unknown key netwrok"),
        ("network:\n  adress: 10.77.0.1/24\n", 2, "unknown key network.adress"),
        ("network:\n  address: 10.77.0.1/240\n", 2, "network.address is '10.77.0.1/240'"),
        ("network:\n  address: here\n", 2, "network.address is 'here'"),
        ("network:\n  address: 10.77.0.1/30\n", 2, "a /30 has no room for nodes"),
        ("network:\n  address: 10.77.0.0/24\n", 2, "the network's own or its broadcast address"),
        ("network:\n  pool: 10.77.0.200\n", 2, "network.pool is '10.77.0.200'"),
        ("network:\n  pool: 10.77.0.200-10.77.0.100\n", 2, "network.pool is"),
        ("network:\n  pool: 10.78.0.2-10.78.0.9\n", 2, "10.78.0.2 is no host address of 10.77.0.0/24"),
        ("network:\n  pool: 10.77.0.1-10.77.0.9\n", 2, "holds the frontend's own address 10.77.0.1"),
        (
            "network:\n  pool: 10.77.0.100-10.77.0.200\n  nodes: 10.77.0.20-10.77.0.100\n",
            2,
            "network.pool (10.77.0.100-10.77.0.200) and network.nodes (10.77.0.20-10.77.0.100) overlap",
        ),
        ("network:\n  nodes: 10.77.0.20-10.77.0.200\n", 2, "overlap"),
        ("network: [1]\n", 1, "network must be a mapping of keys to values"),
        ("cluster: a\n# b\ncluster: c\n", 3, "cluster stands here a second time"),
        ("services:\n  dhcp:\n    port: http\n", 3, "services.dhcp.port is 'http'"),
        ("services:\n  dhcp:\n    port: 70000\n", 3, "port 70000 is not between 1 and 65535"),
        ("services:\n  dhcp:\n    lease: soon\n", 3, "services.dhcp.lease is 'soon'"),
        ("services:\n  dhcp:\n    unregistered: maybe\n", 3, "services.dhcp.unregistered is 'maybe'"),
        ("services:\n  dns:\n    enabled: perhaps\n", 3, "services.dns.enabled is 'perhaps'"),
        ("services:\n  http:\n    port: 53\n", 3, "http and dns share a port"),
        ("services:\n  tftp:\n    workers: 0\n", 3, "there must be at least one worker"),
        ("images:\n  default:\n    suite: woody\n", 3, "images.default.suite is 'woody'"),
        ("images:\n  default:\n    packages: htop\n", 3, "images.default.packages must be a list"),
        ("images:\n  Default: {}\n", 2, "'Default' can't be a name"),
        ("groups:\n  rpi:\n    image: gone\n", 3, "there is no image 'gone'"),
        ("groups:\n  rpi:\n    prefix: 9x\n", 3, "'9x' can't start a host name"),
        ("groups:\n  a: {prefix: x}\n  b: {prefix: x}\n", 3, "the groups a and b share the prefix 'x'"),
        ("cluster: [\n", 1, "this is not YAML"),
        ("cluster: a\n  b: c\n", 2, "this is not YAML"),
        ("? [a]\n: b\n", 1, "a key must be plain text"),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/kestrelpi/kestrelpi.yaml")
    error = caught.value
    assert said in error.what
    assert error.where == f"/etc/kestrelpi/kestrelpi.yaml:{line}"
    assert error.detail == text.splitlines()[line - 1]
    assert error.status is ExitStatus.BAD_CONFIGURATION


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("network:\n  adress: 10.77.0.1/24\n", "k.yaml")
    assert str(caught.value) == (
        "k.yaml:2: unknown key network.adress\n      adress: 10.77.0.1/24\n  did you mean address?"
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration") as caught:
        load(tmp_path / "none.yaml")
    assert "--init" in caught.value.fix
    (tmp_path / "latin").write_bytes(b"cluster: \xe9cole\n")
    with pytest.raises(ConfigError, match="byte 9 is not UTF-8"):
        load(tmp_path / "latin")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_ranges() -> None:
    one = AddressRange.parse("10.0.0.1-10.0.0.3")
    assert len(one) == 3
    assert [str(address) for address in one] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert IPv4Address("10.0.0.3") in one
    assert IPv4Address("10.0.0.4") not in one
    assert one.overlaps(AddressRange.parse("10.0.0.3-10.0.0.9"))
    assert not one.overlaps(AddressRange.parse("10.0.0.4-10.0.0.9"))


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("7d", 604800)])
def test_durations(text: str, seconds: int) -> None:
    assert Duration.parse(text) == seconds


def test_macs() -> None:
    assert parse_mac(" DC-A6-32-01-02-03 ") == "dc:a6:32:01:02:03"
    for text in ("dc:a6:32:01:02", "dc:a6:32:01:02:03:04", "dca632010203", "dc:a6:32:01:02:0g", ""):
        with pytest.raises(ValueError, match="expected a MAC"):
            parse_mac(text)


def uncommented(text: str) -> str:
    """The default file with every option in force: `#key: value` without a space after `#`."""
    return re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)


def test_the_default_file_says_the_defaults() -> None:
    assert load(DEFAULT_FILE) == Config()


def test_the_default_file_shows_every_option_with_its_default_or_an_example() -> None:
    text = DEFAULT_FILE.read_text()
    shown = parse(uncommented(text), "etc/kestrelpi.yaml")
    for path, kind, default in options(Config):
        value = pick(shown, path)
        key = path[-1]
        assert re.search(rf"^ *#?{key}:", text, re.MULTILINE), f"{'.'.join(path)} is not in the default file"
        comment = comment_above(text, key, len(path) - 1)
        if "Example" not in comment and "Default" not in comment:
            assert value == default, f"{'.'.join(path)} ({kind}) shows {value!r}, its default is {default!r}"


def options(kind: type[typing.Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Every leaf option: its path (`*` for a name of the user's), type and default."""
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        default = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint not in (AddressRange,):
            yield from options(hint, (*path, one.name))
        elif typing.get_origin(hint) is Mapping and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            yield from options(typing.get_args(hint)[1], (*path, one.name, "*"))
        else:
            yield (*path, one.name), hint, default


def pick(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        value = next(iter(typing.cast("Mapping[str, object]", value).values())) if name == "*" else getattr(value, name)
    return value


def comment_above(text: str, key: str, depth: int) -> str:
    """The comment lines right above the first line of `key` at that depth of indentation."""
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if re.match(rf"^ {{{2 * depth}}}#?{key}:", line))
    above = []
    while at and re.match(r" *# ", lines[at - 1]):
        at -= 1
        above.append(lines[at])
    return " ".join(above)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('{BOOT_ORDER: "0xf41"}', "would not boot from the network"),
        ("{BOOT_ORDER: network}", "would not boot from the network"),
        ('{MAC_ADDRESS: "dc:a6:32:00:00:01"}', "a board's own"),
        ("{SIGNED_BOOT: 1}", "a board's own"),
        ("{boot_order: 0xf21}", "no setting of a boot loader"),
        ("{TFTP_PREFIX: 1}", "by serial"),
        ('{PXE_OPTION43: "a\\nb"}', "can't be a value"),
        ('{BOOT_UART: ""}', "can't be a value"),
    ],
)
def test_settings_of_a_boot_loader_that_would_do_harm_are_refused(settings: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        parse(f"eeprom:\n  settings: {settings}\n")
    assert "kestrelpi.yaml:2" in told.value.where


def test_settings_of_a_boot_loader_are_text_as_it_stands() -> None:
    assert parse("eeprom: {settings: {BOOT_ORDER: 0xf21}}\n").eeprom.settings == {"BOOT_ORDER": "0xf21"}
