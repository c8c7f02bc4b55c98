"""Other ways to make the same arm64 root, to compare with: the naive recipe, and one tuned mmdebstrap call."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from kestrelpi import run
from kestrelpi.images.mirror import COMPONENTS, Mirror
from kestrelpi.sandbox import Sandbox, system_folders

NO_DOCUMENTATION = (
    *("path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*"),
    *("path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*"),
)
NO_INITRAMFS = """program=/usr/sbin/update-initramfs
dpkg-divert --root="$1" --local --no-rename --divert $program.distrib --add $program
printf '#!/bin/sh\\n' >"$1$program"
chmod 755 "$1$program"
"""
"""Debian's kernel depends on initramfs-tools, which would work for minutes under emulation. (A program of that name in
/usr/local/sbin is not what the kernel's package finds.)"""
NO_SERVICES = """printf '#!/bin/sh\\nexit 101\\n' >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
"""


def mmdebstrap(folder: Path, mirror: Mirror, packages: Sequence[str]) -> None:
    """One call with every lever that it has: no recommended packages, no fsync, no documentation, no initramfs.

    It installs what Debian's security archive has at once, as we do.
    """
    sources = folder / "debian.sources"
    sources.write_text(mirror.sources())
    options = [f"--dpkgopt={option}" for option in ("force-unsafe-io", *NO_DOCUMENTATION)]
    command: list[str | Path] = [
        *("mmdebstrap", "--architectures=arm64", "--variant=minbase", "--mode=root", "--format=directory"),
        "--skip=check/qemu",  # which wants the package arch-test; kestrelpi has looked already
        *(f"--components={','.join(COMPONENTS)}", f"--keyring={mirror.keyring}"),
        *options,
        *(f"--essential-hook={NO_INITRAMFS}", f"--essential-hook={NO_SERVICES}"),
        *('--aptopt=Acquire::Languages "none"', f"--include={','.join(packages)}"),
        *(mirror.suite, folder / "root", sources),
    ]
    run.stream(command, folder / "mmdebstrap.log")


def naive(folder: Path, mirror: Mirror, packages: Sequence[str]) -> None:
    """What a first guide says: debootstrap, then apt-get in the chroot; everything emulated, an initramfs too."""
    root, log = folder / "root", folder / "naive.log"
    suite, keyring = mirror.suite, f"--keyring={mirror.keyring}"
    components = f"--components={','.join(COMPONENTS)}"
    box = Sandbox()
    bootstrap = ["debootstrap", "--arch=arm64", "--variant=minbase", keyring, components, suite, str(root), mirror.uri]
    run.stream(box.argv(bootstrap), log)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    inside = f"apt-get update && DEBIAN_FRONTEND=noninteractive {shlex.join(install)}"
    # raspi-firmware wants a mounted /boot/firmware unless it finds itself in a chroot. ischroot(1) can't tell when the
    # namespace's first process has that root too: so that one stays outside.
    outside = f"chroot {shlex.quote(str(root))} sh -euc {shlex.quote(inside)}; exit $?"
    run.stream(box.plus(*system_folders(root)).argv(["sh", "-c", outside]), log)
