"""An image with software that Debian doesn't have, and with Lmod in the place of environment-modules."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrelpi.images import enter, lock
from kestrelpi.images.store import Generation
from kestrelpi.paths import Paths
from tests.integration.images import support
from tests.integration.images.conftest import warm_root
from tests.program import program

NAME = "apptainer_1.4.5_arm64.deb"
STAND_IN = "#!/bin/sh\necho 'a stand-in for apptainer'\n"
CONTROL = """\
Package: apptainer
Version: 1.4.5
Architecture: arm64
Maintainer: nobody <nobody@localhost>
Depends: uidmap
Description: what installs like apptainer's package
"""
POSTINST = "#!/bin/sh\nuname -m >/usr/share/apptainer-was-configured-on\n"
IMAGE = """\
network: {{address: 10.77.0.1/24}}
images:
  default:
    root: nfs
    modules: [openmp, openmpi, lmod, apptainer]
    options: {{apptainer: {{sha256: {sha256}}}}}
"""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that has Apptainer's name."""
    folder = tmp_path_factory.mktemp("downloads")
    tree = folder / "tree"
    for name, text, mode in (
        ("DEBIAN/control", CONTROL, 0o644),
        ("DEBIAN/postinst", POSTINST, 0o755),
        ("usr/bin/apptainer", STAND_IN, 0o755),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        (tree / name).chmod(mode)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, folder / NAME], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def paths(built_root: Path, downloads: Path) -> Iterator[Paths]:
    with warm_root(built_root) as paths:
        digest = hashlib.sha256((downloads / NAME).read_bytes()).hexdigest()
        paths.config.write_text(IMAGE.format(sha256=digest))
        yield paths


@pytest.fixture(scope="module")
def generation(paths: Paths, downloads: Path) -> Generation:
    fetch = program(paths.root, "modules", "fetch", "apptainer", "--from", downloads)
    subprocess.run(fetch, check=True, capture_output=True)
    found, _ = support.make(paths)
    return found


def test_nothing_is_built_before_the_file_is_fetched(paths: Paths) -> None:
    build = program(paths.root, "images", "build", "default")
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has not been fetched" in done.stderr
    assert f"run: kestrelpi --root {paths.root} modules fetch apptainer" in done.stderr
    assert not paths.images.exists()


def test_a_fetched_package_is_installed_with_what_it_needs(generation: Generation) -> None:
    assert enter.execute(generation, ["apptainer"]) == "a stand-in for apptainer\n"
    assert (generation.root / "usr/share/apptainer-was-configured-on").read_text() == "aarch64\n"
    assert enter.execute(generation, ["dpkg", "--audit"]) == ""
    installed = lock.read(generation.folder / lock.NAME).sections["packages"].packages
    assert {"uidmap", "squashfuse"} <= {one.name for one in installed}
    bill = json.loads((generation.folder / "manifest.json").read_text())
    assert bill["packages"]["apptainer"] == "1.4.5"


def test_lmod_finds_the_module_files(generation: Generation) -> None:
    loaded = "module load fibo openmpi && echo $LMOD_VERSION $FIBO_HOME $SLURM_MPI_TYPE"
    version, *rest = enter.execute(generation, ["bash", "-lc", loaded]).split()
    assert int(version.split(".")[0]) >= 6
    assert rest == ["/usr/local/share/kestrelpi/fibo", "pmix"]
