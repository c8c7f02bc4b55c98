"""What stops a build: found before it begins, and a full disk also later."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images import binfmt, steps
from kestrelpi.images.plan import BuildPlan
from kestrelpi.paths import Paths

NEEDED_BYTES = 3 * 1024**3
"""Free disk that a cold build must find: it takes about half of that."""

NO_SPACE = "No space left on device"
"""strerror(3) of ENOSPC, as programs say it."""


def preflight(paths: Paths, plan: BuildPlan) -> None:
    """Raise UserError for what would stop the build half-way."""
    if os.geteuid() != 0:
        raise UserError(
            "building an image takes root: it makes devices, owners and mounts", fix="sudo kestrelpi images build"
        )
    binfmt.check()
    packers = ("libdeflate-gzip", *(("mksquashfs",) if plan.root == "squashfs" else ()))
    for program in ("debootstrap", "dpkg-deb", "apt-get", "setpriv", "unshare", *packers):
        if shutil.which(program, path=run.PATH) is None:
            raise run.missing(program)
    if not plan.mirror.keyring.is_file():
        raise UserError(
            "the key ring that Debian's packages are signed with is not there",
            where=str(plan.mirror.keyring),
            fix="apt-get install debian-archive-keyring",
        )
    check_filesystem(run.run(["stat", "-f", "-c", "%T", paths.state]).stdout.strip(), paths.state)
    free = steps.free_bytes(paths.state)
    if not plan.steps[0].cached and free < NEEDED_BYTES:
        raise no_space(paths.state, free)


def check_filesystem(kind: str, folder: Path) -> None:
    """Raise UserError when an overlay can't be written to this kind of file system (stat(1)'s name for it)."""
    if kind in ("overlayfs", "aufs", "nfs", "fuseblk", "msdos", "exfat", "cifs", "smb2"):
        raise UserError(
            f"images can't be built on the file system {kind}: an overlay can't be written there",
            where=str(folder),
            fix="give --root a folder on ext4, xfs, btrfs or tmpfs (in a container: a volume)",
        )


def no_space(folder: Path, free: int) -> UserError:
    return UserError(
        f"the disk is full: {free / 1e6:.0f} MB are free, a build from nothing takes {NEEDED_BYTES / 1e9:.0f} GB",
        where=str(folder),
        fix="free some space (kestrelpi images gc removes old layers), or use --root on a larger disk",
    )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn "no space left", ours and that of programs, into an error that says where and what to do."""
    try:
        yield
    except (OSError, run.CommandFailed) as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) if isinstance(error, OSError) else NO_SPACE in error.detail
        if full:
            raise no_space(folder, steps.free_bytes(folder)) from error
        raise
