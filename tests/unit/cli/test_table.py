"""Tables for people and for pipes."""

from __future__ import annotations

import pytest

from kestrelpi.cli import table
from kestrelpi.cli.table import _lines, _narrow, print_table


def test_a_pipe_gets_whole_values_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "WHAT"), [("rpi1", "x" * 300), ("rpi10", "")])
    assert capsys.readouterr().out == f"NAME   WHAT\nrpi1   {'x' * 300}\nrpi10  -\n"


def test_brackets_are_text_and_not_a_colour(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("DETAIL",), [("[red]from the network[/red]",)])
    assert "[red]from the network[/red]" in capsys.readouterr().out


def test_a_table_without_rows_has_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [])
    assert capsys.readouterr().out == "A  B\n"


@pytest.mark.parametrize("columns", [20, 40, 79])
def test_a_narrow_terminal_folds_the_widest_cells(columns: int) -> None:
    rows = [("rpi1", "a" * 50, "b" * 25), ("rpi2", "c", "d")]
    widths = [4, 50, 25]
    _narrow(widths, columns)
    lines = [line for row in rows for line in _lines(row, widths)]
    assert max(map(len, lines)) <= max(columns, 4 + 2 * table.NARROWEST + 2 * table.GAP)
    assert "".join(lines).count("a") == 50 and "".join(lines).count("b") == 25
    assert len([one for one in lines if one.startswith("rpi2")]) == 1 and lines[-1].split() == ["rpi2", "c", "d"]


def test_a_row_with_too_few_cells_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="zip"):
        print_table(("A", "B"), [("x",)])
