"""What is kept packed, and what of it goes."""

from __future__ import annotations

import os
from pathlib import Path

from kestrelpi.images import kept


def put(data: bytes, out: Path) -> None:
    out.write_bytes(data[::-1])


def test_packed_once(tmp_path: Path) -> None:
    first = kept.kept(b"abc", "x", tmp_path / "cache", put)
    assert first.read_bytes() == b"cba"
    first.write_bytes(b"as it was")
    assert kept.kept(b"abc", "x", tmp_path / "cache", put).read_bytes() == b"as it was"


def test_what_a_generation_has_and_the_last_few_stay(tmp_path: Path) -> None:
    made = [kept.kept(bytes([number]), "x", tmp_path, put) for number in range(kept.SPARE + 3)]
    for number, path in enumerate(made):
        os.utime(path, (number, number))
    os.link(made[0], tmp_path / ".a generation's")
    half = tmp_path / ".new-1-half.x"
    half.touch()
    assert kept.unused(tmp_path) == [half, made[1], made[2]]
