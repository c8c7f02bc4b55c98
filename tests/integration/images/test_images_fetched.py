"""An image that needs a file which Debian doesn't have. (tests/boot/test_boot_pi3.py builds and boots one.)"""

from __future__ import annotations

import subprocess

from kestrelpi.paths import Paths
from tests.program import program

IMAGE = "images: {default: {modules: [apptainer], options: {apptainer: {sha256: %s}}}}\n"


def test_nothing_is_built_before_the_file_is_fetched(paths: Paths) -> None:
    paths.config.write_text(IMAGE % ("0" * 64))
    build = program(paths.root, "images", "build", "default")
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has not been fetched" in done.stderr
    assert f"run: kestrelpi --root {paths.root} modules fetch apptainer" in done.stderr
    assert not paths.images.exists()
