"""The cpio writer against the format's text and against an archive that GNU cpio made."""

from __future__ import annotations

from kestrelpi.images import cpio

# printf hi >a; mkdir d; ln -s a l; mknod n c 1 3; printf 'a\nd\nl\nn\n' | cpio -o -H newc (GNU cpio 2.13), with inode
# numbers 1-4, device 0, owner 0 and time 0 written in; padded to 512 bytes there, which isn't part of the format
GOLDEN = (
    b"070701"
    b"00000001"
    b"000081A4"
    b"00000000"
    b"00000000"
    b"00000001"
    b"00000000"
    b"00000002"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000002"
    b"00000000"
    b"a\0"
    b"hi\0\0"
    b"070701"
    b"00000002"
    b"000041ED"
    b"00000000"
    b"00000000"
    b"00000002"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000002"
    b"00000000"
    b"d\0"
    b"070701"
    b"00000003"
    b"0000A1FF"
    b"00000000"
    b"00000000"
    b"00000001"
    b"00000000"
    b"00000001"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000002"
    b"00000000"
    b"l\0"
    b"a\0\0\0"
    b"070701"
    b"00000004"
    b"000021B6"
    b"00000000"
    b"00000000"
    b"00000001"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000001"
    b"00000003"
    b"00000002"
    b"00000000"
    b"n\0"
    b"070701"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000001"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"00000000"
    b"0000000B"
    b"00000000"
    b"TRAILER!!!\0\0\0\0"
)


def test_golden_bytes() -> None:
    entries = {
        "n": cpio.character_device(1, 3, 0o666),
        "l": cpio.link("a"),
        "d": cpio.folder(),
        "a": cpio.file(b"hi"),
    }
    assert cpio.pack(entries) == GOLDEN


def test_folders_of_paths_are_added_before_what_is_in_them() -> None:
    archive = cpio.pack({"usr/lib/x": cpio.file(b"1"), "usr": cpio.folder(0o700)})
    assert archive.index(b"usr\0") < archive.index(b"usr/lib\0") < archive.index(b"usr/lib/x\0")
    assert archive.count(b"000041C0") == 1
    assert len(archive) % 4 == 0
