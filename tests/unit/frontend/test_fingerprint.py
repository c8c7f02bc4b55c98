"""When a script of the frontend's install phase runs again."""

from __future__ import annotations

from pathlib import Path

from kestrelpi.config import parse
from kestrelpi.frontend.scripts import fingerprint, module_variables
from kestrelpi.images.overrides import Resolved
from kestrelpi.paths import Paths


def resolved(path: Path, text: str) -> Resolved:
    path.write_text(text)
    return Resolved("10-x", path, "built-in")


def test_a_module_that_wants_packages_makes_it_run_again(tmp_path: Path) -> None:
    script = resolved(tmp_path / "10-x", "#!/bin/sh\n# needs: KESTRELPI_PACKAGES KESTRELPI_NFS\n")
    paths = Paths(tmp_path)
    without = module_variables(paths, parse("images: {default: {modules: []}}"))
    with_slurm = module_variables(paths, parse("images: {default: {modules: [slurm]}}"))
    assert without["KESTRELPI_PACKAGES"] == ""
    assert {"munge", "slurmctld", "chrony"} <= set(with_slurm["KESTRELPI_PACKAGES"].split())
    assert fingerprint(script, without) != fingerprint(script, with_slurm)
    assert fingerprint(script, with_slurm) == fingerprint(script, dict(with_slurm))


def test_one_that_asks_for_none_of_it_does_not(tmp_path: Path) -> None:
    script = resolved(tmp_path / "10-x", "#!/bin/sh\n# needs: KESTRELPI_NFS\n")
    assert fingerprint(script, {"KESTRELPI_PACKAGES": "a"}) == fingerprint(script, {"KESTRELPI_PACKAGES": "b"})
    changed = resolved(tmp_path / "11-x", "#!/bin/sh\n# needs: KESTRELPI_NFS\n\n")
    assert fingerprint(script, {}) != fingerprint(changed, {})
