"""What nodes boot after a build: at once, after a test, a canary group first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kestrelpi.config import Config
from kestrelpi.config import parse as parse_config
from kestrelpi.errors import UserError
from kestrelpi.images import tidy
from kestrelpi.images.layers import Layers
from kestrelpi.images.plan import find_made
from kestrelpi.images.store import Generation, Store
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.releasing import making, outcome, overview
from kestrelpi.releasing.flaw import Flaw
from kestrelpi.releasing.outcome import CheckOutcome, Outcome
from tests.unit.releasing.whole import make

ONE, TWO, THREE = (f"2026010{day}-000000-0000000{day}" for day in (1, 2, 3))
GROUPS = "{rpi: {}, first: {}}"
NODES = """\
nodes:
  rpi1: {mac: "dc:a6:32:00:00:01", group: rpi, address: 10.77.0.11}
  first1: {mac: "dc:a6:32:00:00:02", group: first, address: 10.77.0.12}
  first2: {mac: "dc:a6:32:00:00:03", group: first, address: 10.77.0.13, pin: 20260101-000000-00000001}
"""
PASSED = Outcome("2026-01-01T00:00:00+00:00", "4", {"ready": 60.0}, (CheckOutcome("boot", True, 1.0, ""),))
FAILED = replace(PASSED, checks=(*PASSED.checks, CheckOutcome("units", False, 1.0, "rpi1: x.service failed")))


def config(image: str = "") -> Config:
    return parse_config(
        f"network: {{address: 10.77.0.1/24}}\ngroups: {GROUPS}\nimages: {{default: {{modules: [], {image}}}}}\n"
    )


@pytest.fixture
def two(tmp_path: Path) -> tuple[Paths, Generation, Generation]:
    """Two generations, of which the first is current."""
    one, other = make(tmp_path, GROUPS, ONE), make(tmp_path, GROUPS, TWO)
    Store(one.paths).switch(one.generation)
    one.paths.registry.write_text(NODES)
    return one.paths, one.generation, other.generation


def no_flaw(paths: Paths, config: Config, generation: Generation) -> list[Flaw]:
    return []


def current(paths: Paths) -> str:
    found = Store(paths).current("default")
    return found.id if found else ""


def test_without_a_canary_group_all_get_it(two: tuple[Paths, Generation, Generation]) -> None:
    paths, _, new = two
    assert making.offer(paths, config(), new) == ""
    assert current(paths) == TWO


def test_the_canary_group_gets_it_first_and_the_others_when_it_is_published(
    two: tuple[Paths, Generation, Generation],
) -> None:
    paths, _, new = two
    with_canary = config("canary: first")
    store, registry = Store(paths), Registry.load(paths.registry)
    assert making.offer(paths, with_canary, new) == "first"
    assert current(paths) == ONE
    assert overview.who_boots(store, with_canary, registry) == {
        ("default", ONE): ["first2", "rpi1"],
        ("default", TWO): ["first1"],
    }
    assert [row.state for row in overview.rows(store, with_canary, registry, ["default"])] == [
        "current",
        "canary first",
    ]
    assert making.to_publish(paths, with_canary, "default", "", untested=False, examine=no_flaw).id == TWO
    making.publish(paths, new)
    assert store.canary("default") is None
    assert overview.who_boots(store, with_canary, registry)["default", TWO] == ["first1", "rpi1"]


def test_rolling_back_takes_back_what_only_the_canary_group_has(two: tuple[Paths, Generation, Generation]) -> None:
    paths, _, new = two
    making.offer(paths, config("canary: first"), new)
    assert making.roll_back(paths, "default", None).id == ONE
    assert Store(paths).canary("default") is None
    assert current(paths) == ONE
    with pytest.raises(UserError, match="no generation before"):
        making.roll_back(paths, "default", None)


def test_rolling_back_goes_to_the_one_before(two: tuple[Paths, Generation, Generation]) -> None:
    paths, old, new = two
    making.publish(paths, new)
    assert making.roll_back(paths, "default", None).id == old.id
    assert making.roll_back(paths, "default", new).id == new.id
    assert current(paths) == TWO


def test_the_first_generation_of_all_goes_to_everybody(tmp_path: Path) -> None:
    """A canary group alone would leave the others without anything to boot."""
    whole = make(tmp_path, GROUPS, ONE)
    assert making.offer(whole.paths, config("canary: first"), whole.generation) == ""
    assert current(whole.paths) == ONE


def test_a_group_is_a_canary_only_while_the_configuration_says_so(two: tuple[Paths, Generation, Generation]) -> None:
    paths, _, new = two
    making.offer(paths, config("canary: first"), new)
    store = Store(paths)
    for text, id in (("canary: first", TWO), ("canary: rpi", ONE), ("", ONE)):
        offered = store.offered("default", "first", config(text))
        assert offered
        assert offered.id == id


def test_what_the_canary_group_boots_is_neither_removed_nor_collected(
    two: tuple[Paths, Generation, Generation],
) -> None:
    paths, old, new = two
    store = Store(paths)
    store.switch_canary(new)
    with pytest.raises(UserError, match="canary group"):
        store.remove(new)
    store.switch(new)
    store.switch_canary(old)
    assert tidy.find(paths, keep=0).generations == ()
    store.end_canary("default")
    assert [one.id for one in tidy.find(paths, keep=0).generations] == [ONE]


def test_only_what_passed_is_published(two: tuple[Paths, Generation, Generation]) -> None:
    _, _, new = two
    tried: list[str] = []

    def attempt(result: Outcome, generation: Generation) -> Outcome:
        tried.append(generation.id)
        outcome.keep(generation, result)
        return result

    with pytest.raises(UserError, match=r"is not published: it failed units") as caught:
        making.ensure_tested(new, lambda one: attempt(FAILED, one))
    assert "rpi1: x.service failed" in caught.value.detail
    assert "--untested" in caught.value.fix
    making.ensure_tested(new, lambda one: attempt(PASSED, one))
    making.ensure_tested(new, lambda one: attempt(FAILED, one))
    assert tried == [TWO, TWO], "what passed is not tried again"
    assert outcome.read(new) == PASSED


def test_publishing_by_hand_asks_for_the_test(two: tuple[Paths, Generation, Generation]) -> None:
    paths, _, new = two
    tested = config("publish: tested")
    with pytest.raises(UserError, match="has not passed its test"):
        making.to_publish(paths, tested, "default", TWO, untested=False, examine=no_flaw)
    assert making.to_publish(paths, tested, "default", TWO, untested=True, examine=no_flaw).id == TWO
    outcome.keep(new, FAILED)
    with pytest.raises(UserError, match="has not passed its test"):
        making.to_publish(paths, tested, "default", "", untested=False, examine=no_flaw)
    outcome.keep(new, PASSED)
    assert making.to_publish(paths, tested, "default", "", untested=False, examine=no_flaw).id == TWO


def test_what_would_be_refused_is_not_published_by_hand(two: tuple[Paths, Generation, Generation]) -> None:
    paths, _, new = two
    (new.boot / "vmlinuz").unlink()
    with pytest.raises(UserError, match="is refused"):
        making.to_publish(paths, config(), "default", new.id, untested=True)


def test_a_test_without_a_check_has_not_passed() -> None:
    assert not replace(PASSED, checks=()).passed
    assert not FAILED.passed
    assert PASSED.passed


def test_what_a_build_would_make_is_found_again(two: tuple[Paths, Generation, Generation]) -> None:
    """A generation that isn't published yet isn't built a second time."""
    paths, _, _ = two
    found = find_made(Store(paths), "default", (), "")
    assert found
    assert found.id == TWO
    assert find_made(Store(paths), "default", ("other",), "") is None
    assert find_made(Store(paths), "default", (), "other") is None
    assert Layers(paths.cache / "layers").sealed() == []
