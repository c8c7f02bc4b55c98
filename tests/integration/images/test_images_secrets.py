"""A secret in a real root: the build stops, and what was current stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images.secret_scan import scan
from kestrelpi.images.store import Store
from kestrelpi.paths import Paths

from . import support

Script = Callable[[str, str], Path]
LEAK = """#!/bin/sh
# needs: KESTRELPI_ROOT
set -eu
cd "$KESTRELPI_ROOT/root"
mkdir -p .ssh
{ echo "-----BEGIN OPENSSH PRIVATE KEY-----"; echo "THISxISxTESTxDATAxANDxNOxKEYxxxx"; } >.ssh/id_test
"""


def test_the_image_as_it_is_has_none(built_root: Path) -> None:
    current = Store(Paths(built_root)).current("default")
    assert current is not None
    assert list(scan(current.root)) == []


def test_a_key_that_a_script_left_stops_the_build_unless_it_is_allowed(paths: Paths, script: Script) -> None:
    before, _ = support.make(paths)
    script("configure.d/95-leak", LEAK)
    with pytest.raises(UserError, match="would have 1 secret inside") as caught:
        support.make(paths)
    assert caught.value.detail == "/root/.ssh/id_test: a private key"
    current = Store(paths).current("default")
    assert current is not None
    assert current.id == before.id
    assert [one.id for one in Store(paths).generations("default")] == [before.id]
    text = paths.config.read_text()
    paths.config.write_text(text.replace("  default:\n", "  default:\n    allow_secrets: [/root/.ssh/id_*]\n"))
    after, _ = support.make(paths)
    assert (after.root / "root/.ssh/id_test").exists()
