"""Changing the modules in kestrelpi.yaml: comments and all other lines stay."""

from __future__ import annotations

import pytest

from kestrelpi.config import parse
from kestrelpi.config.edit import set_modules
from kestrelpi.errors import UserError


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        pytest.param(
            "images:\n  default:\n    # what it can do\n    modules: [openmp]  # for now\n    timezone: UTC\n",
            ["openmp", "slurm"],
            "images:\n  default:\n    # what it can do\n    modules: [openmp, slurm]  # for now\n    timezone: UTC\n",
            id="a list in one line",
        ),
        pytest.param(
            "images:\n  default:\n    modules:\n      - openmp  # fibo\n      # later: docker\n",
            ["openmp", "slurm"],
            "images:\n  default:\n    modules:\n      - openmp  # fibo\n      - slurm\n      # later: docker\n",
            id="a list with one item a line",
        ),
        pytest.param(
            "images:\n  default:\n    modules:\n    - a  # one\n    - b  # two\n    - c  # three\n# end\n",
            ["a", "c"],
            "images:\n  default:\n    modules:\n    - a  # one\n    - c  # three\n# end\n",
            id="an item taken out",
        ),
        pytest.param(
            "images:\n  default:\n    modules:\n      - a\n# end\n",
            [],
            "images:\n  default:\n    modules:\n      []\n# end\n",
            id="the last item taken out",
        ),
        pytest.param(
            "cluster: x  # mine\n",
            ["openmp", "slurm"],
            "cluster: x  # mine\nimages:\n  default:\n    modules: [openmp, slurm]\n",
            id="no images in the file",
        ),
        pytest.param("", ["a"], "images:\n  default:\n    modules: [a]\n", id="an empty file"),
        pytest.param(
            "images:\n  default:\n    timezone: UTC  # here\n",
            ["a"],
            "images:\n  default:\n    modules: [a]\n    timezone: UTC  # here\n",
            id="an image without modules",
        ),
        pytest.param(
            "images:\n  default:\ngroups: {}\n",
            ["a"],
            "images:\n  default:\n    modules: [a]\ngroups: {}\n",
            id="an image without anything",
        ),
        pytest.param(
            "images: {default: {timezone: UTC}}\n",
            ["a"],
            "images: {default: {modules: [a], timezone: UTC}}\n",
            id="all in one line",
        ),
        pytest.param("images: {default: {}}", ["a"], "images: {default: {modules: [a]}}", id="empty braces"),
        pytest.param("cluster: x", ["a"], "cluster: x\nimages:\n  default:\n    modules: [a]\n", id="no last newline"),
    ],
)
def test_edits(before: str, wanted: list[str], after: str) -> None:
    assert set_modules(before, "default", wanted) == after
    assert parse(after).images["default"].modules == tuple(wanted)


def test_what_cannot_be_changed_safely_is_left_to_the_user() -> None:
    text = "images:\n  other: &same\n    modules: [a]\n  default: *same\n"
    with pytest.raises(UserError, match="can't be changed safely") as caught:
        set_modules(text, "default", ["a", "b"], "k.yaml")
    assert "modules: [a, b]" in caught.value.fix
