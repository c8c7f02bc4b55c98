"""Children that end with their parent, and with one that died before they could say so."""

from __future__ import annotations

import subprocess

from kestrelpi.pdeathsig import dies_with_us


def test_the_command_runs_with_its_words_and_its_status() -> None:
    done = subprocess.run(dies_with_us(["sh", "-c", 'echo "$1"; exit 3', "sh", "two  words"]), capture_output=True)
    assert (done.returncode, done.stdout) == (3, b"two  words\n")


def test_a_child_whose_parent_died_first_does_nothing() -> None:
    """A shell between us is the parent that such a child finds in the place of ours."""
    command = dies_with_us(["echo", "it runs"])
    done = subprocess.run(["sh", "-c", '"$@"; echo "ended: $?"', "sh", *command], capture_output=True)
    assert done.stdout == b"ended: 1\n"
