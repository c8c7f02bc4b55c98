"""Command lines of sandboxes: what is mounted, what may be written, which powers are kept."""

from __future__ import annotations

from pathlib import Path

from kestrelpi import enclosure, sandbox
from kestrelpi.pdeathsig import dies_with_us
from kestrelpi.sandbox import Sandbox, overlay

STAGE = Path("/stage/host")


def script(argv: list[str]) -> list[str]:
    """The lines that run inside the namespace; the last one is the enclosure's."""
    assert argv[:-3] == dies_with_us(sandbox.NAMESPACE)
    return argv[-1].splitlines()


def enclosed(line: str) -> tuple[str, set[str], list[str], list[str]]:
    """Root, capabilities, writable mounts and command of the last line."""
    words = line.split()
    words = words[words.index(enclosure.__file__) + 1 :]
    split = words.index("--")
    return words[0], set(words[1].split(",")), words[2:split], words[split + 1 :]


def test_a_chroot_is_its_own_root_with_few_writable_mounts() -> None:
    root, kept, writable, command = enclosed(script(Sandbox((("true",),)).chroot(Path("/r"), ["true"], {"A": "b"}))[-1])
    assert (root, command) == ("/r", ["true"])
    assert writable == ["/r", "/r/dev", "/r/run", "/r/tmp"]
    assert "chown" in kept
    assert "mknod" not in kept


def test_beside_shows_the_host_and_binds_what_may_be_written() -> None:
    box = Sandbox().beside(STAGE, ["true"], [Path("/a/root"), Path("/a/root/run"), Path("/b")])
    lines = script(box)
    assert "mount --rbind / /stage/host" in lines
    assert "mount --rbind /a/root /stage/host/a/root" in lines
    assert not any(line.startswith("mount --rbind /a/root/run") for line in lines), "it comes with the mount above it"
    root, _, writable, _ = enclosed(lines[-1])
    assert root == "/stage/host"
    assert writable[-3:] == ["/stage/host/a/root", "/stage/host/a/root/run", "/stage/host/b"]


def test_what_lies_in_hidden_folders_is_shown_again_read_only() -> None:
    box = Sandbox().beside(STAGE, ["true"], [], [Path("/tmp/project"), Path("/srv/project")])
    lines = script(box)
    assert lines.index("mount --rbind /tmp/project /stage/host/tmp/project") > lines.index(
        "mount -t tmpfs -o mode=1777 tmpfs /stage/host/tmp"
    )
    assert not any("/srv/project" in line for line in lines), "it is there anyway"
    assert "/stage/host/tmp/project" not in enclosed(lines[-1])[2]


def test_only_who_makes_a_root_may_make_devices() -> None:
    assert "mknod" not in enclosed(script(Sandbox().beside(STAGE, ["true"], []))[-1])[1]
    assert "mknod" in enclosed(script(Sandbox().beside(STAGE, ["true"], [], devices=True))[-1])[1]


def test_no_capability_is_kept_that_undoes_the_enclosure() -> None:
    numbers = set(enclosure.CAPABILITIES.values())
    dac_read_search, net_admin, sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot = 2, 12, 16, 17, 19, 21, 22
    assert not numbers & {dac_read_search, net_admin, sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot}


def test_devices_on_an_overlay_open_nothing() -> None:
    options = overlay([Path("low")], Path("up"), Path("work"), Path("/r"))[4].split(",")
    assert "nodev" in options


def test_a_long_command_is_not_put_into_one_word() -> None:
    words = [f"http://mirror.example.org/debian/pool/main/{number}.deb" for number in range(5000)]
    assert Sandbox().argv(["fetch", *words])[-5001:] == ["fetch", *words]
