"""Keys: equal input, equal key; what differs is named."""

from __future__ import annotations

from pathlib import Path

from kestrelpi.images import keys


def test_the_order_of_fields_does_not_matter_and_every_value_does() -> None:
    one = keys.digest({"a": "1", "b": "2"})
    assert one == keys.digest({"b": "2", "a": "1"})
    assert len(one) == keys.LENGTH
    assert one != keys.digest({"a": "1", "b": "3"})
    assert one != keys.digest({"a": "12", "b": ""})


def test_known_key() -> None:
    """A change of the format would make every layer on every frontend useless: not by accident."""
    assert keys.digest({"script": "abc", "previous step": "0123"}) == "5ecc6ed0d7ca3f6a"


def test_the_difference_names_the_steps_own_fields_first() -> None:
    old = {"script": "1", "previous step": "a", "KESTRELPI_DOMAIN": "x"}
    assert keys.difference(old, {**old, "script": "2", "previous step": "b"}) == "script"
    assert keys.difference(old, {**old, "previous step": "b"}) == "previous step"
    assert keys.difference(old, {"script": "1", "previous step": "a"}) == "KESTRELPI_DOMAIN"
    assert keys.difference(old, old) == ""


def test_a_hash_sees_bytes_modes_and_names(tmp_path: Path) -> None:
    file = tmp_path / "folder/file"
    file.parent.mkdir()
    file.write_text("a")
    file.chmod(0o644)
    seen = {keys.hash_path(file.parent)}
    file.write_text("b")
    seen.add(keys.hash_path(file.parent))
    file.chmod(0o755)
    seen.add(keys.hash_path(file.parent))
    file.rename(file.with_name("other"))
    seen.add(keys.hash_path(file.parent))
    assert len(seen) == 4
    assert keys.hash_path(tmp_path / "nothing") == "absent"
