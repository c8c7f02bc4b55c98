"""What goes wrong while a Pi's boot loader has the say: DHCP and files. Each rule is pure.

The timers are those of the boot loaders: a Pi 3's ROM asks five times in 25 s and is then dead until its power is cut;
an EEPROM gives DHCP 45 s and a file 30 s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kestrelpi.finding import Finding, Severity
from kestrelpi.nodes.boots import FOR_OFFER, Kind, Stage
from kestrelpi.nodes.seen import Seen

TRIES = 3
"""So many DISCOVERs after offers of ours are no lost packet any more."""
RESTING = 5.0
"""Seconds after which a file that wasn't found isn't about to be asked for under another name."""
MANDATORY = {
    "bootcode.bin": r"bootcode\.bin",
    "start*.elf": r"start\w*\.elf",
    "fixup*.dat": r"fixup\w*\.dat",
    "config.txt": r"config\.txt",
    "cmdline.txt": r"cmdline\.txt",
    "device tree": r"bcm2[78]\w+[-\w]*\.dtb",
    "kernel": r"vmlinuz|kernel[-\w]*\.img",
    "initramfs.img": r"initramfs\.img",
}
"""What a boot can't do without. One file of each is enough: a Pi tries several names, and has only one kernel."""
PATTERNS = {group: re.compile(pattern) for group, pattern in MANDATORY.items()}


def mandatory(name: str) -> str:
    """The group of MANDATORY that a file belongs to; empty: a boot goes on without it."""
    return next((group for group, pattern in PATTERNS.items() if pattern.fullmatch(name)), "")


def missing(seen: Seen) -> Iterator[Finding]:
    boot = seen.last
    if boot.current.rank >= Stage.INITRAMFS.rank or seen.now - boot.last < RESTING:
        return
    got = {mandatory(name) for name in boot.of(Kind.FILE)}
    absent: dict[str, str] = {}
    for name in boot.of(Kind.MISSING):
        group = mandatory(name)
        if group and group not in got:
            absent.setdefault(group, name)
    if not absent:
        return
    names = ", ".join(absent.values())
    if not got:
        cause = "it gets no files at all: its image isn't built, or services.dhcp.unregistered isn't `wait`"
    elif "kernel" in absent and absent["kernel"].startswith("kernel"):
        cause = "it asks for the default kernel's name, so it did not take our config.txt"
    else:
        cause = "the generation that it boots lacks it, or an empty file of this name in /etc/kestrelpi removes it"
    fix = "kestrelpi images list; kestrelpi images build --force-from configure; see also overlays/boot"
    yield seen.finding("missing-file", Severity.ERROR, f"it asked for {names}, which is not there", cause, fix)


def unanswered(seen: Seen) -> Iterator[Finding]:
    boot = seen.last
    if boot.current is not Stage.DISCOVER:
        return
    if boot.of(Kind.GAVE_UP):
        yield seen.finding(
            "gave-up",
            Severity.ERROR,
            "it asked for an address, was kept waiting while others loaded, and has stopped asking",
            "more Pis were switched on at once than the link lets boot within the time that a boot loader asks; its "
            "BOOT_ORDER doesn't begin again (no f at its front), or its power was cut",
            "switch it off and on; next time in groups (power.stagger), or over a faster link; BOOT_ORDER=0xf2",
        )
        return
    if FOR_OFFER in boot.of(Kind.HELD):
        return
    if boot.of(Kind.NO_ADDRESS):
        yield seen.finding(
            "pool-full",
            Severity.ERROR,
            "it asked for an address and there was none left",
            "network.pool is smaller than the number of Pis that aren't registered",
            "widen network.pool, shorten services.dhcp.lease, or register the Pis: kestrelpi nodes register GROUP",
        )
    elif seen.now - boot.last >= RESTING:
        yield seen.finding(
            "no-offer",
            Severity.ERROR,
            "it asked for an address and was not answered",
            "it isn't registered and services.dhcp.unregistered is `ignore`",
            "register it, or set services.dhcp.unregistered: wait",
        )


def offer(seen: Seen) -> Iterator[Finding]:
    """An offer that wasn't taken: asked again and again, in one boot or in boots that have nothing else."""
    if seen.last.current is not Stage.OFFER:
        return
    tries = 0
    foreign: list[str] = []
    for boot in reversed(seen.boots):
        if boot.current is not Stage.OFFER:
            break
        tries += 1 + len(boot.of(Kind.AGAIN))
        foreign += boot.of(Kind.FOREIGN)
    if tries < TRIES:
        return
    what = f"it asked {tries} times for an address and took none of our offers"
    if foreign:
        cause = f"another server answers it: {foreign[0].rpartition(' ')[2]}"
        fix = "switch that DHCP server off here; see docs/how-to/beside-another-dhcp-server.md"
    elif seen.model.startswith("3") and not seen.model.startswith("3B+"):
        cause = "the ROM of a 3B locks up on a quick answer and needs the server on its own network, with no relay"
        fix = "raise services.dhcp.rom_delay; or give it an SD card with nothing but bootcode.bin"
    else:
        cause = (
            "its EEPROM wants another boot string (PXE_OPTION43), a TFTP server of its own (TFTP_IP), or it doesn't "
            "get our answers: a switch or firewall between drops them"
        )
        fix = "rpi-eeprom-config on a booted Pi: remove PXE_OPTION43; tcpdump on the frontend: port 67 or port 68"
    yield seen.finding("offer-ignored", Severity.ERROR, what, cause, fix)


def foreign(seen: Seen) -> Iterator[Finding]:
    said = [one.split(" ") for boot in seen.boots[-2:] for one in boot.of(Kind.FOREIGN)]
    taken = [address for how, address in said if how == "taken"]
    proxies = [address for how, address in said if how == "proxy"]
    if taken:
        yield seen.finding(
            "foreign-dhcp",
            Severity.ERROR,
            f"it took its address from another DHCP server, {taken[-1]}",
            "two DHCP servers answer on this network, and the Pi takes whom it likes",
            "switch that one off here, or see docs/how-to/beside-another-dhcp-server.md",
        )
    elif said:
        name = "foreign-proxy" if proxies else "foreign-dhcp"
        yield seen.finding(
            name,
            Severity.WARNING,
            f"{said[-1][1]} made it an offer too" + (" (a boot proxy: no address, only a boot server)" * bool(proxies)),
            "another DHCP server, router or piserver is on this network",
            "switch it off here, or see docs/how-to/beside-another-dhcp-server.md",
        )


def eeprom(seen: Seen) -> Iterator[Finding]:
    signs = [one for boot in seen.boots for one in boot.of(Kind.OLD_EEPROM)]
    if signs:
        yield seen.finding(
            "old-eeprom",
            Severity.WARNING,
            f"its boot loader is old: {', '.join(dict.fromkeys(signs))}",
            "the EEPROM was never brought up to date; those before 2022-10 load slowly and no file over 67 MB",
            f"kestrelpi nodes eeprom {seen.name} shows it; a card from Raspberry Pi Imager (Bootloader) renews it",
        )


def same_mac(seen: Seen) -> Iterator[Finding]:
    said = [one for boot in seen.boots for one in boot.of(Kind.SAME_MAC)]
    if said:
        yield seen.finding(
            "same-mac",
            Severity.ERROR,
            f"two boards speak with its MAC: {said[-1]}",
            "MAC_ADDRESS or MAC_ADDRESS_OTP was copied from one board to another with its EEPROM configuration",
            "rpi-eeprom-config --edit on one of them: remove MAC_ADDRESS",
        )


RULES = (missing, same_mac, unanswered, offer, foreign, eeprom)
