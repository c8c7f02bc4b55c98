"""Scripts that try to leave their root, or to change the frontend: each attempt fails, and says so in the image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.paths import Paths
from kestrelpi.sandbox import Sandbox, system_folders, view
from tests import host_state

from . import support
from .conftest import warm_root

Script = Callable[[str, str], Path]
SUCCEEDED = "succeeded"

TRY = """#!/bin/bash
# needs: {needs}
seen=${{KESTRELPI_ROOT%/}}/etc/attempts-${{0##*/}}
try() {{
    local name=$1
    shift
    if ("$@") >/dev/null 2>&1; then echo "$name: succeeded"; else echo "$name: failed"; fi >>"$seen"
}}
write() {{ echo "$2" >"$1"; }}
again() {{ local now; read -r now <"$1" && echo "$now" >"$1"; }}
"""

BREAK_OUT = (
    """perl -e 'mkdir "/tmp/cell"; opendir(my $d, "/"); chroot("/tmp/cell") or die; chdir($d) or die;"""
    """ chdir("..") for 1..64; chroot("."); exit !-e $ARGV[0]'"""
)
"""The classic: with a working folder outside of its root, `..` is never stopped by it. Succeeds if it sees a file."""


def attempts(built: Path, name: str) -> dict[str, str]:
    """Attempt → how it ended, as one script wrote it down."""
    lines = (built / "etc" / name).read_text().splitlines()
    return dict(line.rsplit(": ", 1) for line in lines)


def succeeded(found: Mapping[str, str]) -> set[str]:
    return {name for name, how in found.items() if how == SUCCEEDED}


@pytest.fixture(scope="module")
def paths(built_root: Path) -> Iterator[Paths]:
    """One root for all tests here: their scripts have names of their own."""
    with warm_root(built_root) as paths:
        yield paths


@pytest.fixture
def marker(paths: Paths) -> Path:
    """A file of the frontend that no script inside the image may see."""
    path = paths.root / "outside"
    path.write_text("frontend")
    return path


def disk_of(path: Path) -> tuple[int, int]:
    device = path.stat().st_dev
    return os.major(device), os.minor(device)


def test_a_script_in_the_image_cant_leave_it(paths: Paths, script: Script, marker: Path) -> None:
    major, minor = disk_of(paths.root)
    script(
        "configure.d/95-escape.chroot",
        TRY.format(needs="KESTRELPI_ROOT")
        + f"""
try "own file" write /etc/mine 1
try "own tmp" write /tmp/mine 1
try "frontend by path" test -e {marker}
try "break-out" {BREAK_OUT} {marker}
try "frontend by first process" test -e /proc/1/root{marker}
try "frontend's programs" write /.host/kestrelpi-was-here 1
try "frontend's libraries" write /usr/lib/x86_64-linux-gnu/kestrelpi-was-here 1
try "sysctl" again /proc/sys/vm/overcommit_ratio
try "sysrq" write /proc/sysrq-trigger h
try "remount proc" mount -o remount,rw /proc
try "mount" mount -t tmpfs none /mnt
try "disk" mknod /etc/disk b {major} {minor}
try "kill" kill -0 {os.getpid()}
try "namespace" unshare -Urm mount -o remount,bind,rw /proc
try "host name" hostname kestrelpi-was-here
grep CapBnd /proc/self/status >/etc/capabilities
""",
    )
    built, _ = support.make(paths)
    found = attempts(built.root, "attempts-95-escape.chroot")
    assert succeeded(found) == {"own file", "own tmp"}
    assert len(found) == 15
    granted = int((built.root / "etc/capabilities").read_text().split()[1], 16)
    dangerous = {"dac_read_search": 2, "net_admin": 12, "sys_module": 16, "sys_rawio": 17, "sys_ptrace": 19}
    dangerous |= {"sys_admin": 21, "sys_boot": 22, "sys_time": 25, "mknod": 27, "bpf": 39}
    assert [name for name, number in dangerous.items() if granted >> number & 1] == []


def test_the_break_out_works_in_a_mere_chroot(paths: Paths, marker: Path) -> None:
    """Else the test above proves nothing."""
    built, _ = support.make(paths)
    root = paths.root / "mere"
    root.mkdir()
    box = Sandbox().plus(view([built.root, paths.etc], root), *system_folders(root))
    command = ["chroot", str(root), "sh", "-c", f"{BREAK_OUT} {marker}"]
    assert subprocess.run(box.argv(command), check=False).returncode == 0


def test_a_script_on_the_frontend_can_write_to_the_image_only(paths: Paths, script: Script, marker: Path) -> None:
    major, minor = disk_of(paths.root)
    layers, images = paths.cache / "layers", paths.images
    script(
        "configure.d/95-escape",
        TRY.format(needs="KESTRELPI_ROOT")
        + f"""
try "own file" write "$KESTRELPI_ROOT/etc/mine" 1
try "temporary file" mktemp
try "reads the frontend" test -e {marker}
try "resolver" test -r /etc/resolv.conf
try "/etc" write /etc/kestrelpi-was-here 1
try "/usr/local" write /usr/local/kestrelpi-was-here 1
try "/root" write /root/kestrelpi-was-here 1
try "/var" write /var/lib/kestrelpi-was-here 1
try "beside the image" write {marker} 1
try "layers" mkdir {layers}/forged
try "generations" mkdir -p {images}/default/generations/20260101-000000-00000000
try "archives" write {paths.cache}/archives/forged 1
try "sysctl" again /proc/sys/vm/overcommit_ratio
try "sysrq" write /proc/sysrq-trigger h
try "binfmt" write /proc/sys/fs/binfmt_misc/status 1
try "remount" mount -o remount,bind,rw /
try "mount" mount -t tmpfs none /mnt
try "disk" mknod "$KESTRELPI_ROOT/etc/disk" b {major} {minor}
try "disks" sh -c 'ls /dev/[svx]d? /dev/nvme?n? | grep .'
try "services" sh -c 'find /run /tmp -type s | grep .'
try "kill" kill -0 {os.getpid()}
try "namespace" unshare -Urm sh -c 'mount -o remount,bind,rw / && touch /etc/kestrelpi-was-here'
""",
    )
    built, _ = support.make(paths)
    found = attempts(built.root, "attempts-95-escape")
    assert succeeded(found) == {"own file", "temporary file", "reads the frontend", "resolver"}
    assert len(found) == 22
    assert marker.read_text() == "frontend"
    assert not Path("/etc/kestrelpi-was-here").exists()


def test_a_build_leaves_the_frontend_as_it_is(built_root: Path, host_changes: list[str]) -> None:
    assert built_root.is_dir()
    assert host_changes == []


def test_what_a_build_could_change_would_be_seen(tmp_path: Path) -> None:
    before = host_state.snapshot()
    assert before["/proc/self/mountinfo"].count(" / /proc ") == 1
    assert len(before) > 500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_state, "FOLDERS", (*host_state.FOLDERS, str(tmp_path)))
        before = host_state.snapshot()
        (tmp_path / "new").write_text("x")
        assert [line.split(":")[0] for line in host_state.changes(before, host_state.snapshot())] == [
            str(tmp_path),
            str(tmp_path / "new"),
        ]


def test_a_script_that_asks_for_the_cache_may_write_there(paths: Paths, script: Script) -> None:
    script("configure.d/95-cache", "#!/bin/sh\n# needs: KESTRELPI_CACHE\necho kept >$KESTRELPI_CACHE/download\n")
    support.make(paths)
    assert (paths.cache / "archives/download").read_text() == "kept\n"


def test_a_script_that_writes_to_the_frontend_fails_the_build(paths: Paths, script: Script) -> None:
    script("configure.d/95-stray", "#!/bin/sh\nset -e\necho 1 >/etc/kestrelpi-was-here\n")
    with pytest.raises(UserError, match="Read-only file system"):
        support.make(paths)
    assert not Path("/etc/kestrelpi-was-here").exists()
