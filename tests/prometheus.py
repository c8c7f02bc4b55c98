"""A strict reader of Prometheus' text format 0.0.4, for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([-+]?[0-9.]+(?:e[-+]?[0-9]+)?|[+-]Inf|NaN)")
SUFFIXES = ("_bucket", "_sum", "_count")


@dataclass(frozen=True)
class Page:
    """What a scrape gave."""

    kinds: Mapping[str, str]
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, /, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]


def parse(text: str) -> Page:
    """Every line must be right: HELP, then TYPE, then samples of that family; no sample twice."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    family = ""
    for line in text.splitlines():
        if found := re.fullmatch(rf"# HELP ({NAME}) \S.*", line):
            family = found[1]
            assert family not in helped, line
            helped.add(family)
        elif found := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", line):
            assert found[1] == family and family not in kinds, line
            kinds[family] = found[2]
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            base = found[1]
            if kinds.get(family) == "histogram":
                base = next((base.removesuffix(one) for one in SUFFIXES if base.endswith(one)), base)
            assert base == family and family in kinds, line
            labels = frozenset((key, unescape(value)) for key, value in re.findall(LABEL, found[2] or ""))
            assert (found[1], labels) not in samples, line
            samples[found[1], labels] = float(found.groups()[-1])
    return Page(kinds, samples)


def unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda one: "\n" if one[1] == "n" else one[1], text)
