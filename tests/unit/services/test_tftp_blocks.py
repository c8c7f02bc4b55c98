"""Prepared packets: shared, bounded, and the same bytes whichever way they are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.services.tftp.blocks import BlockCache, Cut, cost, packet
from kestrelpi.services.tftp.source import BootFile, FolderSource, PathRefused, normalise


def boot_file(folder: Path, name: str, content: bytes) -> BootFile:
    (folder / name).write_bytes(content)
    return BootFile(name, len(content), folder / name)


def test_transfers_share_one_set_of_packets(tmp_path: Path) -> None:
    file = boot_file(tmp_path, "kernel", bytes(5000))
    cache = BlockCache()
    first = cache.acquire(file, 1468)
    (tmp_path / "kernel").unlink()
    assert cache.acquire(file, 1468) is first
    assert cache.held == cost(5000, 1468)
    assert first.users == 2


@pytest.mark.parametrize("block", [8, 511, 512, 1024, 1468])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4096, 14_680])
def test_packets_carry_the_file(tmp_path: Path, block: int, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    for budget in (0, 1 << 20):
        for file in (boot_file(tmp_path, "f", content), BootFile("b", size, content)):
            prepared = BlockCache(budget).acquire(file, block)
            packets = [packet(prepared.blocks, index) for index in range(size // block + 1)]
            assert b"".join(packet[4:] for packet in packets) == content
            assert [int.from_bytes(packet[2:4], "big") for packet in packets] == list(range(1, len(packets) + 1))
            assert all(len(packet) == block + 4 for packet in packets[:-1])
            assert len(packets[-1]) < block + 4


def test_memory_stays_within_the_budget(tmp_path: Path) -> None:
    budget = 3 * cost(10_000, 512)
    cache = BlockCache(budget)
    files = [boot_file(tmp_path, f"f{number}", bytes(10_000)) for number in range(10)]
    in_use = [cache.acquire(file, 512) for file in files]
    assert cache.held == budget, "the first three are kept, the rest read from the file"
    assert sum(isinstance(prepared.blocks, Cut) for prepared in in_use) == 3
    for prepared in in_use:
        cache.release(prepared)
    assert isinstance(cache.acquire(files[9], 512).blocks, Cut), "what nobody uses makes room"
    assert cache.held == budget
    assert not isinstance(cache.acquire(files[8], 9).blocks, Cut), "tiny blocks are never prepared"


def test_the_least_recently_used_leaves_first(tmp_path: Path) -> None:
    cache = BlockCache(2 * cost(1000, 512))
    old, middle, new = (boot_file(tmp_path, name, bytes(1000)) for name in ("old", "middle", "new"))
    kept = cache.acquire(old, 512)
    cache.release(kept)
    cache.release(cache.acquire(middle, 512))
    cache.release(cache.acquire(old, 512))
    cache.release(cache.acquire(new, 512))
    assert cache.acquire(old, 512) is kept


def test_a_file_that_changed_since_it_was_found_is_served_as_it_is(tmp_path: Path) -> None:
    file = boot_file(tmp_path, "f", bytes(100))
    (tmp_path / "f").write_bytes(bytes(2000))
    assert BlockCache().acquire(file, 512).size == 2000


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("S//config.txt", "S/config.txt"),
        ("/a", "a"),
        ("//a/./b/", "a/b"),
        ("a/../b", "b"),
        ("", ""),
        ("a/b/../../c", "c"),
    ],
)
def test_paths_are_made_plain(path: str, plain: str) -> None:
    assert normalise(path) == plain


@pytest.mark.parametrize("path", ["..", "../etc/passwd", "/../etc/passwd", "a/../../b", "S//../../x"])
def test_paths_that_climb_out_are_refused(path: str) -> None:
    with pytest.raises(PathRefused):
        normalise(path)


def test_a_folder_serves_only_files_below_it(tmp_path: Path) -> None:
    served = tmp_path / "served"
    (served / "sub").mkdir(parents=True)
    (served / "sub" / "file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (served / "out").symlink_to(tmp_path / "secret")
    (served / "in").symlink_to("sub/file")
    (served / "loop").symlink_to("loop")
    source = FolderSource(served)
    found = source.find("/sub//file", "10.0.0.1")
    assert found is not None and found.size == 6
    linked = source.find("in", "10.0.0.1")
    assert linked is not None and linked.key == found.key, "the same content has the same key"
    assert [source.find(path, "10.0.0.1") for path in ("sub", "none", "loop", "a\0b", "")] == [None] * 5
    with pytest.raises(PathRefused):
        source.find("out", "10.0.0.1")
