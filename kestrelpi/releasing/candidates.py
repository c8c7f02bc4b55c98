"""Whether a model could boot a generation: its boot loader reads the folder, and Linux needs a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kestrelpi.images import bootdir
from kestrelpi.lab import configtxt
from kestrelpi.releasing.coherence import has
from kestrelpi.releasing.flaw import Flaw
from kestrelpi.releasing.reading import Reading, read, spec_of
from kestrelpi.releasing.subject import Candidate, Subject

CMDLINE_LIMIT = 1024
"""Bytes of cmdline.txt: the kernel takes 2,048 (arm64's COMMAND_LINE_SIZE), and the firmware adds words of its own."""


def check_candidate(subject: Subject, one: Candidate) -> Iterator[Flaw]:
    """Whether this model could boot: config.txt, files, their lengths, device tree, Ethernet."""
    for flaw in (*check_texts(one), *check_boot(subject, one)):
        yield replace(flaw, about=one.board.model)


def check_boot(subject: Subject, one: Candidate) -> Iterator[Flaw]:
    """What its boot loader finds, and whether Linux would have its Ethernet."""
    fix = one.board.remedy
    reading = read(one.board.profile, subject.boot, one.rendered)
    for name, limit in reading.truncated.items():
        size = (subject.boot / name.lstrip("/")).stat().st_size
        yield Flaw(
            "size",
            f"{name} has {size} bytes; a Pi {one.board.model} loads no more than {limit - 1} by TFTP",
            str(subject.boot / name.lstrip("/")),
            "leave out what makes it so long, such as modules in overlays/initramfs/etc/hardware",
        )
    problems = [reading.failure] if reading.failure else _missing(reading)
    for problem in problems if not reading.truncated else ():
        yield Flaw("boot", f"a Pi {one.board.model} ({one.who}) could not boot: {problem}", str(subject.boot), fix)
    lacking = [name for name in one.board.drivers if not has(subject, name)]
    if lacking:
        what = f"a Pi {one.board.model} ({one.who}) would have no network: no driver {', '.join(lacking)}"
        yield Flaw("network", what, str(subject.boot / bootdir.INITRAMFS), fix)
    tree = subject.boot / reading.loaded.dtb
    if one.board.ethernet and reading.loaded.dtb and one.board.ethernet.encode() not in tree.read_bytes():
        what = f"a Pi {one.board.model} ({one.who}) would have no network: its device tree knows no Ethernet"
        yield Flaw("network", what, str(tree), fix)


def _missing(reading: Reading) -> list[str]:
    """What a boot loader goes on without and Linux can't: the rest is told by check_texts."""
    loaded = reading.loaded
    found = [] if loaded.dtb else ["no device tree"]
    found += [] if loaded.initramfs else ["no initramfs"]
    found += [one for one in loaded.warnings if one.startswith("fixup") or ".dtbo is not there" in one]
    return found


def check_texts(one: Candidate) -> Iterator[Flaw]:
    """config.txt and cmdline.txt: ASCII, and no longer than what is read of them."""
    where = f"groups.{one.group}.config_txt, overlays/boot/config.txt"
    config = one.rendered["config.txt"]
    parsed = configtxt.parse(config, spec_of(one.board.profile))
    for warning in parsed.warnings:
        yield Flaw("config.txt", warning, where, "shorten it; ASCII only")
    where = f"groups.{one.group}.cmdline, overlays/boot/cmdline.txt"
    line = one.rendered["cmdline.txt"].rstrip(b"\n")
    if not line.isascii():
        yield Flaw("cmdline.txt", "it has a byte that isn't ASCII", where, "ASCII only")
    if b"\n" in line:
        yield Flaw("cmdline.txt", "it has more than one line, and only the first counts", where, "one line")
    if len(line) > CMDLINE_LIMIT:
        yield Flaw("cmdline.txt", f"it has {len(line)} bytes, more than {CMDLINE_LIMIT}", where, "shorten it")
