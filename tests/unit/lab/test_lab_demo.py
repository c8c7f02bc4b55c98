"""The demo's configuration, and what `make demo` installs for it."""

from __future__ import annotations

import re
from pathlib import Path

from kestrelpi.config import load
from kestrelpi.images.modules import of_frontend
from kestrelpi.lab import demo
from kestrelpi.paths import Paths

PREPARE = Path(__file__).parents[3] / "scripts/prepare"


def test_what_its_modules_need_on_the_frontend_is_installed_before(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    config = load(demo.configure(paths))
    wanted = set(of_frontend(paths, config).frontend_packages())
    listed = re.search(r"^demo=\((.*?)\)", PREPARE.read_text(), re.MULTILINE | re.DOTALL)
    assert listed
    assert {"docker-registry", "munge", "slurmctld"} <= wanted <= set(listed[1].split())
