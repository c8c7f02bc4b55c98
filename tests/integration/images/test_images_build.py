"""Builds of a real image: what is in it, what runs again, what a failure leaves."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.images import enter, initramfs, lock, steps, tidy
from kestrelpi.images.build import build
from kestrelpi.images.compare import compare
from kestrelpi.images.layers import Layers
from kestrelpi.images.store import Generation, Store
from kestrelpi.paths import Paths
from tests.waiting import until

from . import support

Script = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def generation(built_root: Path) -> Generation:
    found = Store(Paths(built_root)).current("default")
    assert found is not None
    return found


def test_the_root_runs_arm64_programs(generation: Generation) -> None:
    assert enter.execute(generation, ["uname", "-m"]).strip() == "aarch64"
    assert enter.execute(generation, ["dpkg", "--print-architecture"]).strip() == "arm64"
    assert enter.execute(generation, ["dpkg", "--audit"]) == ""
    assert enter.execute(generation, ["systemctl", "--version"]).startswith("systemd ")


def test_no_program_of_the_frontend_is_in_the_root(generation: Generation) -> None:
    files = [path for path in generation.root.rglob("*") if path.is_file() and not path.is_symlink()]
    heads = {path: path.open("rb").read(20) for path in files}
    x86 = [path for path, head in heads.items() if head[:4] == b"\x7fELF" and head[18] == steps.EM_X86_64]
    assert len(files) > 5000
    assert x86 == []
    assert not (generation.root / "lib64").exists()
    assert not (generation.root / ".host").exists()
    assert not (generation.root / "usr/sbin/policy-rc.d").exists()


@pytest.mark.parametrize(("package", "name"), [("dash", "dash"), ("perl-base", "perl"), ("dpkg", "dpkg")])
def test_programs_that_were_the_frontends_meanwhile_are_the_packages_own(
    generation: Generation, package: str, name: str
) -> None:
    sums = (generation.root / f"var/lib/dpkg/info/{package}.md5sums").read_text().splitlines()
    expected = {line.split()[0] for line in sums if line.endswith(f"bin/{name}")}
    program = generation.root / "usr/bin" / name
    assert {hashlib.md5(program.read_bytes(), usedforsecurity=False).hexdigest()} == expected
    status = program.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o755)


def test_nothing_of_one_machine_is_in_the_root(generation: Generation) -> None:
    root = generation.root
    assert list((root / "etc/ssh").glob("ssh_host_*")) == []
    assert (root / "etc/machine-id").read_bytes() == b""
    assert not (root / "var/lib/systemd/random-seed").exists()
    assert (root / "etc/hostname").read_text() == "localhost\n"
    assert (root / "etc/shadow").read_text().splitlines()[0].startswith("root:*:")


def test_systemd_finds_etc_and_var_up_to_date(generation: Generation) -> None:
    usr = (generation.root / "usr").stat().st_mtime_ns
    for name in ("etc", "var"):
        assert (generation.root / name / ".updated").stat().st_mtime_ns > usr


def test_set_uid_programs_and_devices_survive(generation: Generation) -> None:
    assert (generation.root / "usr/bin/su").stat().st_mode & stat.S_ISUID
    assert stat.S_ISCHR((generation.root / "dev/null").stat().st_mode)
    ping = generation.root / "usr/bin/ping"
    assert "security.capability" in os.listxattr(ping) or ping.stat().st_mode & stat.S_ISUID


def test_boot_files_belong_to_the_kernel(generation: Generation) -> None:
    kernel = generation.manifest.kernel
    assert (generation.root / "usr/lib/modules" / kernel / "modules.dep").is_file()
    for name in ("vmlinuz", "initramfs.img", "bootcode.bin", "start.elf", "start4.elf", "fixup4.dat"):
        assert generation.manifest.boot[name].size == (generation.boot / name).stat().st_size > 0
    assert any(name.startswith("bcm2711") for name in generation.manifest.boot)
    archive = initramfs.unpacked(generation.boot / "initramfs.img")
    names = subprocess.run(["cpio", "-t", "--quiet"], input=archive, check=True, capture_output=True).stdout
    listing = names.decode().split()
    assert {"init", "bin/busybox", f"lib/modules/{kernel}/modules.dep"} <= set(listing)
    modules = {Path(name).stem for name in listing if name.endswith(".ko")}
    assert {"genet", "smsc95xx", "lan78xx", "virtio_net", "overlay", "nfsv4", "nfsv3"} <= modules


def test_a_second_build_changes_nothing(paths: Paths) -> None:
    first, _ = support.make(paths)
    second, seen = support.make(paths)
    assert second.id == first.id
    assert seen.records == []


def test_an_edited_script_runs_again_and_only_what_follows(paths: Paths, script: Script) -> None:
    text = "#!/bin/sh\n# needs: KESTRELPI_ROOT\necho one >$KESTRELPI_ROOT/etc/edited\n"
    script("configure.d/95-edited", text)
    first, _ = support.make(paths)
    script("configure.d/95-edited", text.replace("one", "two"))
    second, seen = support.make(paths)
    assert seen.ran == ["95-edited", "boot files"]
    assert next(one.stale for one in seen.records if one.name == "95-edited") == "script"
    assert (first.root / "etc/edited").read_text() == "one\n"
    assert (second.root / "etc/edited").read_text() == "two\n"
    difference = compare(first, second, Layers(paths.cache / "layers"))
    assert [one.name for one in difference.files] == ["etc/edited"]
    assert difference.packages == ()
    assert [one.name for one in difference.configuration] == ["configure 95-edited: script"]
    shared = "usr/bin/bash"
    assert (first.root / shared).stat().st_ino == (second.root / shared).stat().st_ino


def test_an_added_package_is_installed_over_the_others_and_goes_without_a_trace(paths: Paths, script: Script) -> None:
    first, _ = support.make(paths)
    mine = script("packages.d/mine", "hello\n")
    second, seen = support.make(paths)
    assert seen.ran[0] == "apt-2"
    assert next(one.stale for one in seen.records if one.name == "apt-2") == "package hello"
    assert enter.execute(second, ["hello"]) == "Hello, world!\n"
    assert enter.execute(second, ["dpkg", "--audit"]) == ""
    difference = compare(first, second, Layers(paths.cache / "layers"))
    assert [one.name for one in difference.packages] == ["hello"]
    assert [one.name for one in difference.configuration] == ["packages apt: package hello"]
    locks = [lock.read(one.folder / lock.NAME).sections["packages"].packages for one in (first, second)]
    assert [one.name for one in locks[1] if one not in locks[0]] == ["hello"]
    assert all(one in locks[1] for one in locks[0])
    base, more = ([one.folder / "squashfs" / name for one in (first, second)] for name in ("10-base", "15-more"))
    assert base[1].with_suffix(".squashfs").samefile(base[0].with_suffix(".squashfs"))
    assert [path.with_suffix(".squashfs").is_file() for path in more] == [False, True]
    other = of_the_same(paths, "other")
    for name in ("10-base", "15-more"):
        assert (other.folder / f"squashfs/{name}.squashfs").samefile(second.folder / f"squashfs/{name}.squashfs")
    mine.unlink()
    third, seen = support.make(paths)
    assert (third.id, seen.records) == (first.id, [])


def of_the_same(paths: Paths, name: str) -> Generation:
    """Another image, with the modules of the default one."""
    text = paths.config.read_text()
    modules = next(line for line in text.splitlines() if "modules:" in line)
    paths.config.write_text(text.replace("images:\n", f"images:\n  {name}:\n{modules}\n"))
    try:
        return build(paths, config.load(paths.config), name)
    finally:
        paths.config.write_text(text)


def test_an_added_package_that_does_not_fit_is_tried_with_all_others_anew(paths: Paths, script: Script) -> None:
    first, _ = support.make(paths)
    script("packages.d/mine", "openntpd\n")  # there can't be two clocks
    seen = support.Recorder()
    with pytest.raises(UserError, match="packages apt failed") as caught:
        build(paths, config.load(paths.config), "default", watch=seen)
    assert "openntpd" in caught.value.detail
    assert [one.name for one in seen.records].count("debootstrap") == 2, "first what is added, then all"
    current = Store(paths).current("default")
    assert current is not None
    assert current.id == first.id


def test_a_script_in_the_chroot_runs_as_arm64_without_the_frontends_environment(
    paths: Paths, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "leak")
    script(
        "configure.d/95-env.chroot",
        "#!/bin/sh\n# needs: KESTRELPI_IMAGE\n/usr/bin/uname -m >/etc/seen\nenv >>/etc/seen\n",
    )
    built, _ = support.make(paths)
    seen = (built.root / "etc/seen").read_text()
    assert seen.startswith("aarch64\n")
    assert "KESTRELPI_IMAGE=default" in seen
    assert "KESTRELPI_SUITE" not in seen
    assert "leak" not in seen


def test_an_empty_file_removes_a_built_in_script(paths: Paths) -> None:
    paths.config.write_text(paths.config.read_text().replace("  default:", "  default:\n    timezone: Europe/Madrid"))
    with_timezone, _ = support.make(paths)
    assert (with_timezone.root / "etc/timezone").read_text() == "Europe/Madrid\n"
    empty = paths.etc / "node/configure.d/20-timezone"
    empty.parent.mkdir(parents=True)
    empty.touch()
    without, seen = support.make(paths)
    assert "20-timezone" not in [one.name for one in seen.records]
    difference = compare(with_timezone, without, Layers(paths.cache / "layers"))
    assert {one.name for one in difference.files} == {"etc/timezone", "etc/localtime"}
    gone = [one for one in difference.configuration if one.name.endswith("KESTRELPI_TIMEZONE")]
    assert [(one.old, one.new) for one in gone] == [("Europe/Madrid", "")]


def test_deleted_files_and_replaced_folders_are_gone(paths: Paths, script: Script) -> None:
    script(
        "configure.d/95-delete",
        "#!/bin/sh\n# needs: KESTRELPI_ROOT\ncd $KESTRELPI_ROOT\nrm etc/networks\nrm -r etc/skel\nmkdir etc/skel\n"
        "touch etc/skel/only\nrm -r usr/share/bug\n",
    )
    built, _ = support.make(paths)
    assert not (built.root / "etc/networks").exists()
    assert [path.name for path in (built.root / "etc/skel").iterdir()] == ["only"]


def test_a_failing_script_keeps_the_current_generation(paths: Paths, script: Script) -> None:
    before, _ = support.make(paths)
    path = script("configure.d/95-fails", "#!/bin/sh\necho it is the flux capacitor >&2\nexit 7\n")
    with pytest.raises(UserError) as caught:
        support.make(paths)
    message = str(caught.value)
    assert str(path) in message
    assert "it is the flux capacitor" in message
    assert "status 7" in message
    log = Path(message.rsplit("the whole log: ", 1)[1].splitlines()[0])
    assert "flux capacitor" in log.read_text()
    current = Store(paths).current("default")
    assert current is not None
    assert current.id == before.id
    assert support.drafts(paths) == []


def test_a_killed_build_leaves_no_mount_no_process_and_no_half_generation(paths: Paths, script: Script) -> None:
    before, _ = support.make(paths)
    marker = f"{time.time_ns()}"
    path = script("configure.d/95-slow.chroot", f"#!/bin/sh\ntouch /etc/half\nsleep 3{marker[-6:]}\n")
    process = support.start_build(paths)
    sleeping = f"sleep 3{marker[-6:]}"
    until(lambda: support.processes_with(sleeping) or process.poll() is not None, "the script", 60)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not support.processes_with(sleeping), "the end of the script of a killed build", 60)
    assert support.mounts_below(paths.root) == []
    assert [one.id for one in Store(paths).generations("default")] == [before.id]
    path.write_text("#!/bin/sh\ntouch /etc/whole\n")
    after, _ = support.make(paths)
    assert (after.root / "etc/whole").exists()
    assert not (after.root / "etc/half").exists()
    assert support.drafts(paths) == []


def test_a_second_build_at_the_same_time_is_told_who_builds(paths: Paths, script: Script) -> None:
    script("configure.d/95-slow", "#!/bin/sh\nsleep 4\n")
    process = support.start_build(paths)
    logs = paths.log / "images/default"
    until(lambda: [*logs.glob("*/configure-95-slow.log")] or process.poll() is not None, "the script", 60)
    assert process.poll() is None, process.communicate()
    with pytest.raises(UserError, match=rf"locked by process {process.pid} \(.* images build default\) since 2"):
        support.make(paths)
    assert process.wait() == 0


def test_a_full_disk_is_said_and_leaves_the_current_generation(paths: Paths, script: Script) -> None:
    before, _ = support.make(paths)
    script("configure.d/95-big", "#!/bin/sh\necho 'cat: write error: No space left on device' >&2\nexit 1\n")
    with pytest.raises(UserError, match="the disk is full") as caught:
        support.make(paths)
    assert "images gc" in caught.value.fix
    assert [one.id for one in Store(paths).generations("default")] == [before.id]


def test_gc_keeps_what_the_current_generation_needs(paths: Paths, script: Script) -> None:
    script("configure.d/95-one", "#!/bin/sh\ntrue one\n")
    first, _ = support.make(paths)
    script("configure.d/95-one", "#!/bin/sh\ntrue two\n")
    second, _ = support.make(paths)
    last = first.manifest.keys[-1]
    rubbish = tidy.collect(paths, keep=0)
    assert [one.id for one in rubbish.generations] == [first.id]
    assert last in rubbish.layers
    again, seen = support.make(paths)
    assert again.id == second.id
    assert seen.records == []


def test_rollback_and_remove(paths: Paths, script: Script) -> None:
    store = Store(paths)
    first, _ = support.make(paths)
    script("configure.d/95-one", "#!/bin/sh\ntrue\n")
    second, _ = support.make(paths)
    with pytest.raises(UserError, match="is the current generation"):
        store.remove(second)
    store.switch(first)
    store.remove(second)
    assert [one.id for one in store.generations("default")] == [first.id]
