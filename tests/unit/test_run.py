"""Commands that fail or don't end, and what is said of them."""

from __future__ import annotations

import pytest

from kestrelpi.errors import UserError
from kestrelpi.run import TAIL, CommandFailed, run


def test_what_a_command_printed_last_is_told_when_it_fails() -> None:
    with pytest.raises(CommandFailed, match=r"^seq 3 on rpi1 ended with status 7\n") as caught:
        run(["sh", "-c", f"seq {TAIL}; echo why >&2; exit 7"], name="seq 3 on rpi1")
    assert caught.value.detail.splitlines() == [*map(str, range(2, TAIL + 1)), "why"]
    assert caught.value.returncode == 7


def test_what_a_command_printed_is_told_when_it_does_not_end() -> None:
    with pytest.raises(UserError, match=r"^sleeping on rpi1 did not end within 0\.2 s\n") as caught:
        run(["sh", "-c", "echo half; echo why >&2; exec sleep 60"], timeout=0.2, name="sleeping on rpi1")
    assert caught.value.detail.splitlines() == ["half", "why"]


def test_a_command_without_a_name_is_called_by_its_words() -> None:
    with pytest.raises(CommandFailed, match=r"^sh -c 'exit 1' ended with status 1$"):
        run(["sh", "-c", "exit 1"])
