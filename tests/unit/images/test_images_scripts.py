"""Scripts: what they declare, what they get, what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.images import scripts
from kestrelpi.images.overrides import Layer, resolve
from kestrelpi.paths import Paths


def settings(tmp_path: Path, text: str = "network: {domain: lab.internal}") -> scripts.Settings:
    return scripts.Settings("default", "bookworm", config.parse(text), Paths(tmp_path), tmp_path / "archives")


def load(
    tmp_path: Path, name: str, text: str, mode: int = 0o755, module: Path | None = None, given: str = ""
) -> scripts.Script:
    path = tmp_path / "scripts" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    resolved = next(iter(resolve([Layer(path.parent, "test", module)]).values()))
    return scripts.load("configure", resolved, settings(tmp_path, given) if given else settings(tmp_path))


def test_only_declared_variables_are_given(tmp_path: Path) -> None:
    script = load(tmp_path, "50-a", "#!/bin/sh\n# needs: KESTRELPI_DOMAIN KESTRELPI_SUITE\n#needs:KESTRELPI_ROOT\n")
    assert script.environment == {
        "KESTRELPI_DOMAIN": "lab.internal",
        "KESTRELPI_SUITE": "bookworm",
        "KESTRELPI_ROOT": "@ROOT@",
    }


def test_the_key_sees_declared_values_but_not_places(tmp_path: Path) -> None:
    text = "# needs: KESTRELPI_DOMAIN KESTRELPI_ROOT KESTRELPI_DATA\n"
    one = load(tmp_path, "50-a", text).fields
    two = load(tmp_path, "50-a", text, given="network: {domain: other.internal}").fields
    assert set(one) == {"script", "KESTRELPI_DOMAIN"}
    assert one["KESTRELPI_DOMAIN"] != two["KESTRELPI_DOMAIN"]
    assert one["script"] == two["script"]


def test_an_undeclared_value_is_not_in_the_key(tmp_path: Path) -> None:
    one = load(tmp_path, "50-a", "#!/bin/sh\n").fields
    assert one == load(tmp_path, "50-a", "#!/bin/sh\n", given="network: {domain: other.internal}").fields


def test_inputs_are_relative_to_the_module_and_their_bytes_count(tmp_path: Path) -> None:
    module = tmp_path / "module"
    (module / "src").mkdir(parents=True)
    (module / "src/a.c").write_text("1")
    text = "# input: src/a.c $KESTRELPI_MODULE/src\n"
    before = load(tmp_path, "50-a", text, module=module)
    assert set(before.inputs) == {"src/a.c", "$KESTRELPI_MODULE/src"}
    assert "absent" not in before.inputs.values()
    (module / "src/a.c").write_text("2")
    after = load(tmp_path, "50-a", text, module=module)
    assert all(before.inputs[name] != after.inputs[name] for name in before.inputs)


def test_a_chroot_script_sees_the_root_as_the_root(tmp_path: Path) -> None:
    module = tmp_path / "module"
    script = load(tmp_path, "50-a.chroot", "# needs: KESTRELPI_ROOT KESTRELPI_MODULE\n", module=module)
    assert script.in_chroot
    assert script.environment == {"KESTRELPI_ROOT": "/", "KESTRELPI_MODULE": str(scripts.MODULE_IN_CHROOT)}


def test_a_template_is_rendered_and_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    script = load(tmp_path, "50-a.j2", "#!/bin/sh\necho {{ KESTRELPI_DOMAIN }} {{ config.cluster }}\n")
    assert script.name == "50-a"
    assert script.text == b"#!/bin/sh\necho lab.internal kestrelpi\n"
    with pytest.raises(UserError, match="nonsense"):
        load(tmp_path, "50-a.j2", "{{ nonsense }}")


@pytest.mark.parametrize(
    ("name", "text", "mode", "message"),
    [
        ("50-a", "#!/bin/sh\n", 0o644, "not executable"),
        ("motd", "#!/bin/sh\n", 0o755, "no name for a script"),
        ("5-motd", "#!/bin/sh\n", 0o755, "no name for a script"),
        ("50-a", "# needs: KESTRELPI_NONSENSE\n", 0o755, "KESTRELPI_NONSENSE"),
        ("50-a", "# needs: KESTRELPI_MODULE\n", 0o755, "KESTRELPI_MODULE"),
    ],
)
def test_refused_before_anything_runs(tmp_path: Path, name: str, text: str, mode: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, name, text, mode)
    assert str(tmp_path / "scripts" / name) in caught.value.where
