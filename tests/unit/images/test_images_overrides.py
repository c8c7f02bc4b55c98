"""The override rule: same name replaces, a new name adds, an empty file removes."""

from __future__ import annotations

from pathlib import Path

from kestrelpi.images.module_file import Manifest
from kestrelpi.images.modules import Module
from kestrelpi.images.overrides import Layer, resolve, resolve_all, resolve_one
from kestrelpi.images.sources import overlay_layers, script_layers
from kestrelpi.paths import Paths


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def layers(tmp_path: Path) -> list[Layer]:
    return [Layer(tmp_path / name, name) for name in ("builtin", "module", "user", "image")]


def test_the_strongest_wins_and_says_what_it_overrides(tmp_path: Path) -> None:
    for name in ("builtin", "module", "image"):
        put(tmp_path / name / "50-motd")
    found = resolve(layers(tmp_path))["50-motd"]
    assert found.path == tmp_path / "image/50-motd"
    assert found.origin == "image"
    assert found.overrides == (tmp_path / "module/50-motd", tmp_path / "builtin/50-motd")


def test_a_new_name_adds_and_names_are_sorted(tmp_path: Path) -> None:
    put(tmp_path / "builtin/50-b")
    put(tmp_path / "user/10-a")
    put(tmp_path / "module/90-c")
    assert list(resolve(layers(tmp_path))) == ["10-a", "50-b", "90-c"]


def test_an_empty_file_removes(tmp_path: Path) -> None:
    put(tmp_path / "builtin/50-b")
    put(tmp_path / "user/50-b", "")
    assert resolve(layers(tmp_path)) == {}
    removed = resolve_all(layers(tmp_path))["50-b"]
    assert removed.removed
    assert removed.overrides == (tmp_path / "builtin/50-b",)


def test_one_name_is_found_as_among_all(tmp_path: Path) -> None:
    put(tmp_path / "builtin/50-b")
    put(tmp_path / "module/50-b.j2")
    put(tmp_path / "user/60-c", "")
    put(tmp_path / "builtin/60-c")
    assert resolve_one(layers(tmp_path), "50-b") == resolve(layers(tmp_path))["50-b"]
    assert resolve_one(layers(tmp_path), "60-c") is None
    assert resolve_one(layers(tmp_path), "absent") is None


def test_a_stronger_layer_brings_a_removed_name_back(tmp_path: Path) -> None:
    put(tmp_path / "builtin/50-b")
    put(tmp_path / "user/50-b", "")
    put(tmp_path / "image/50-b")
    assert resolve(layers(tmp_path))["50-b"].path == tmp_path / "image/50-b"


def test_a_template_and_a_plain_file_share_a_name(tmp_path: Path) -> None:
    put(tmp_path / "builtin/50-b.j2")
    assert resolve(layers(tmp_path))["50-b"].is_template
    put(tmp_path / "user/50-b")
    found = resolve(layers(tmp_path))["50-b"]
    assert not found.is_template
    assert found.overrides == (tmp_path / "builtin/50-b.j2",)


def test_files_in_folders_and_links_count_readme_and_backups_do_not(tmp_path: Path) -> None:
    put(tmp_path / "builtin/README.md")
    put(tmp_path / "builtin/etc/README.md")
    put(tmp_path / "builtin/etc/motd~")
    put(tmp_path / "builtin/etc/motd")
    (tmp_path / "builtin/etc/gone").symlink_to("/nowhere")
    (tmp_path / "builtin/etc/folder").symlink_to(tmp_path)
    assert list(resolve(layers(tmp_path))) == ["etc/README.md", "etc/folder", "etc/gone", "etc/motd"]


def test_a_users_file_in_a_modules_place_still_belongs_to_the_module(tmp_path: Path) -> None:
    base = tmp_path / "modules/slurm"
    module = Module("slurm", (base, tmp_path / "etc/modules/slurm"), Manifest("slurm"))
    put(base / "node/configure.d/50-slurm")
    user = put(tmp_path / "etc/kestrelpi/node/configure.d/50-slurm")
    layers = script_layers(Paths(tmp_path), "node", "configure", [module], "default", data=tmp_path / "data")
    found = resolve(layers)["50-slurm"]
    assert found.path == user
    assert found.module == base


def test_the_order_of_the_places(tmp_path: Path) -> None:
    module = Module("slurm", (tmp_path / "slurm",), Manifest("slurm"))
    paths = Paths(tmp_path)
    scripts = script_layers(paths, "node", "configure", [module], "fast", data=tmp_path / "data")
    assert [str(one.folder.relative_to(tmp_path)) for one in scripts] == [
        "data/phases/node/configure.d",
        "slurm/node/configure.d",
        "etc/kestrelpi/node/configure.d",
        "etc/kestrelpi/images/fast/configure.d",
    ]
    overlay = overlay_layers(paths, "runtime", [module], "fast", data=tmp_path / "data")
    assert [str(one.folder.relative_to(tmp_path)) for one in overlay] == [
        "data/overlays/runtime",
        "slurm/overlay/runtime",
        "etc/kestrelpi/overlays/runtime",
        "etc/kestrelpi/images/fast/overlays/runtime",
    ]


def test_the_frontends_scripts_are_not_an_images(tmp_path: Path) -> None:
    layers = script_layers(Paths(tmp_path), "frontend", "configure", [], "fast", data=tmp_path / "data")
    assert [one.origin for one in layers] == ["built-in", "/etc/kestrelpi"]
