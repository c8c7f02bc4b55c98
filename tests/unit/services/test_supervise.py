"""How children of the daemon are started, and how long it waits before it starts one again."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.pdeathsig import dies_with_us
from kestrelpi.services.supervise import LONGEST_DELAY, Child, answers, delay_after, last_lines, user_ids


def test_the_kernel_ends_a_child_with_the_daemon() -> None:
    assert Child("x", ("prog", "-f"), Path("log")).command == dies_with_us(["prog", "-f"], "TERM")


def test_a_child_runs_as_its_user_with_what_it_keeps() -> None:
    command = Child("x", ("prog",), Path("log"), user="nobody", capabilities=("net_bind_service", "sys_nice")).command
    gid = user_ids("nobody")[1]
    privileges = [
        *("--reuid", "nobody", "--regid", str(gid), "--init-groups"),
        *("--inh-caps", "+net_bind_service,+sys_nice", "--ambient-caps", "+net_bind_service,+sys_nice"),
    ]
    assert command == dies_with_us(["prog"], "TERM", privileges)


def test_a_user_that_is_not_there_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="there is no user no-such-user"):
        user_ids("no-such-user")


def test_back_off_doubles_up_to_a_minute() -> None:
    assert [delay_after(count) for count in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert delay_after(50) == LONGEST_DELAY


def test_a_child_that_cannot_be_asked_is_ready(tmp_path: Path) -> None:
    assert answers(Child("x", ("prog",), tmp_path))
    assert not answers(Child("x", ("prog",), tmp_path, socket=tmp_path / "none"))


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(30)))
    assert last_lines(log, 2) == "line 28 \N{REPLACEMENT CHARACTER}\nline 29 \N{REPLACEMENT CHARACTER}"
