"""Modules: what they need, what two can't share, their options; errors name the line of kestrelpi.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.config import Config, load
from kestrelpi.config.values import Duration, Size
from kestrelpi.errors import ConfigError, ExitStatus, UserError
from kestrelpi.images import modules
from kestrelpi.images.module_file import Option
from kestrelpi.images.options import BadOption, convert, text_of, variable
from kestrelpi.paths import Paths


def site(tmp_path: Path, text: str, **manifests: str) -> tuple[Paths, Config]:
    paths = Paths(tmp_path / "root")
    paths.etc.mkdir(parents=True)
    paths.config.write_text(text)
    for name, manifest in manifests.items():
        folder = tmp_path / "data/modules" / name
        folder.mkdir(parents=True)
        (folder / "module.yaml").write_text(f"name: {name}\n{manifest}")
    return paths, load(paths.config)


def enabled(tmp_path: Path, text: str, **manifests: str) -> modules.Enabled:
    paths, config = site(tmp_path, text, **manifests)
    return modules.of_image(paths, config, "default", tmp_path / "data")


def names(found: modules.Enabled) -> list[str]:
    return [module.name for module in found]


def test_what_a_module_needs_comes_before_it_and_once(tmp_path: Path) -> None:
    found = enabled(
        tmp_path,
        "images: {default: {modules: [slurm, other]}}",
        slurm="needs: [munge]",
        munge="needs: [clock]",
        clock="",
        other="needs: [clock]",
    )
    assert names(found) == ["clock", "munge", "slurm", "other"]
    assert "munge" in found
    assert "docker" not in found


def test_modules_that_need_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a → b → a"):
        enabled(tmp_path, "images: {default: {modules: [a]}}", a="needs: [b]", b="needs: [a]")


def test_an_unknown_module_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no module 'slrum'") as caught:
        enabled(tmp_path, "images:\n  default:\n    modules:\n      - slrum\n", slurm="")
    assert caught.value.where.endswith("kestrelpi.yaml:4")
    assert caught.value.detail == "      - slrum"
    assert caught.value.status is ExitStatus.BAD_CONFIGURATION


def test_modules_that_conflict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the modules swarm and k3s can't be in one image") as caught:
        enabled(tmp_path, "images:\n  default:\n    modules: [k3s, swarm]\n", k3s="", swarm="conflicts: [k3s]")
    assert caught.value.where.endswith(":3")


def test_two_modules_that_want_one_port_are_both_named(tmp_path: Path) -> None:
    options = "options: {port: {type: int, default: '5000', help: x}}\n"
    with pytest.raises(ConfigError, match="modules one and two both want port 5000/tcp of the frontend"):
        enabled(
            tmp_path,
            "images: {default: {modules: [one, two]}}",
            one="ports: {frontend: [5000/tcp]}",
            two=options + "ports: {frontend: ['{{ options.port }}/tcp']}",
        )


@pytest.mark.parametrize(
    ("port", "ours"),
    [("8067/tcp", "http"), ("69/udp", "tftp"), ("53/tcp", "dns"), ("67/udp", "dhcp"), ("2049/tcp", "nfs")],
)
def test_a_module_that_wants_a_port_of_ours_is_named(tmp_path: Path, port: str, ours: str) -> None:
    text = "images:\n  default:\n    modules: [one]\n"
    with pytest.raises(ConfigError, match=f"module one and services.{ours} both want port {port}") as caught:
        enabled(tmp_path, text, one=f"ports: {{frontend: [{port}]}}")
    assert caught.value.where.endswith(":3")
    assert f"services.{ours}.port" in caught.value.fix


def test_a_service_that_is_off_wants_no_port(tmp_path: Path) -> None:
    off = "services: {dns: {enabled: no}, dhcp: {backend: none}, nfs: {backend: none}}\n"
    ports = "ports: {frontend: [53/udp, 67/udp, 2049/tcp]}"
    assert "one" in enabled(tmp_path, "images: {default: {modules: [one]}}\n" + off, one=ports)


def test_another_port_by_option_ends_the_clash(tmp_path: Path) -> None:
    found = enabled(
        tmp_path,
        "images: {default: {modules: [one, two], options: {two: {port: 5001}}}}",
        one="ports: {frontend: [5000/tcp]}",
        two="options: {port: {type: int, default: '5000', help: x}}\nports: {frontend: ['{{ options.port }}/tcp']}",
    )
    assert [found.ports(module, "frontend") for module in found] == [["5000/tcp"], ["5001/tcp"]]


def test_two_modules_with_one_file_are_both_named(tmp_path: Path) -> None:
    paths, config = site(tmp_path, "images: {default: {modules: [one, two]}}", one="", two="")
    for name in ("one", "two"):
        folder = tmp_path / f"data/modules/{name}/overlay/node/etc"
        folder.mkdir(parents=True)
        (folder / "motd").write_text("x")
        (folder.parents[2] / "README.md").write_text("every module has one")
    with pytest.raises(ConfigError, match="the modules one and two both want the file overlay/node/etc/motd"):
        modules.of_image(paths, config, "default", tmp_path / "data")


def test_an_option_of_the_wrong_type_is_shown_where_it_is(tmp_path: Path) -> None:
    text = "images:\n  default:\n    modules: [slurm]\n    options:\n      slurm:\n        reserve: lots\n"
    with pytest.raises(ConfigError, match="module slurm: reserve is 'lots'") as caught:
        enabled(tmp_path, text, slurm="options: {reserve: {type: size, default: 1M, help: x}}")
    assert caught.value.where.endswith("kestrelpi.yaml:6")
    assert "128M" in caught.value.fix


def test_an_unknown_option_is_shown_with_the_near_one(tmp_path: Path) -> None:
    text = "images: {default: {modules: [slurm], options: {slurm: {reserv: 1M}}}}\n"
    with pytest.raises(ConfigError, match="there is no option 'reserv'") as caught:
        enabled(tmp_path, text, slurm="options: {reserve: {type: size, default: 1M, help: x}}")
    assert caught.value.fix == "did you mean reserve?"


def test_options_of_a_module_that_is_not_enabled(tmp_path: Path) -> None:
    text = "images:\n  default:\n    modules: []\n    options:\n      slurm: {}\n"
    with pytest.raises(ConfigError, match="the module slurm is not enabled in default") as caught:
        enabled(tmp_path, text, slurm="")
    assert caught.value.where.endswith("kestrelpi.yaml:5")


def test_scripts_get_options_as_variables(tmp_path: Path) -> None:
    found = enabled(
        tmp_path,
        "images: {default: {modules: [k3s], options: {k3s: {data-disk: DATA, wait: 2m}}}}",
        k3s="options: {data-disk: {help: x}, wait: {type: duration, default: 1s, help: x}, "
        "on: {type: bool, default: 'yes', help: x}, size: {type: size, default: 1K, help: x}}",
    )
    assert found.variables() == {
        "KESTRELPI_K3S_DATA_DISK": "DATA",
        "KESTRELPI_K3S_WAIT": "120",
        "KESTRELPI_K3S_ON": "yes",
        "KESTRELPI_K3S_SIZE": "1024",
    }


def test_a_module_of_two_images_with_a_service_needs_equal_options(tmp_path: Path) -> None:
    paths, config = site(
        tmp_path,
        "images:\n  a: {modules: [m]}\n  b:\n    modules: [m]\n    options:\n      m: {o: x}\ngroups: {g: {image: a}}",
        m="options: {o: {default: one, help: x}}\nfrontend: {services: [{name: s, argv: [s]}]}",
    )
    with pytest.raises(ConfigError, match="m has other options here than in the image a") as caught:
        modules.of_frontend(paths, config, tmp_path / "data")
    assert caught.value.where.endswith(":6")


def test_a_mistake_in_module_yaml_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key need") as caught:
        enabled(tmp_path, "images: {default: {modules: [m]}}", m="need: [x]")
    assert caught.value.where.endswith("modules/m/module.yaml:2")


def test_uids_are_the_frontends_where_it_has_the_user(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0::/root:/bin/sh\nmunge:x:107:109::/nonexistent:/usr/sbin/nologin\n")
    assert modules.existing_uid("munge", 940, passwd) == 107
    assert modules.existing_uid("slurm", 64030, passwd) == 64030


def test_built_in_modules_fit_together(tmp_path: Path) -> None:
    paths, _ = site(tmp_path, "cluster: x")
    known = modules.available(paths)
    assert {"openmp", "openmpi", "munge", "chrony", "slurm", "users"} <= set(known)
    for name in known:
        text = f"images: {{default: {{modules: [{name}]}}}}"
        paths.config.write_text(text)
        assert name in modules.of_image(paths, load(paths.config), "default")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("str", "a b", "a b"),
        ("path", "/srv/data", "/srv/data"),
        ("sha256", "", ""),
        ("sha256", "AB" * 32, "ab" * 32),
        ("int", "12", 12),
        ("bool", "Yes", True),
        ("bool", "off", False),
        ("size", "2G", Size(2 << 30)),
        ("size", "512 KiB", Size(512 << 10)),
        ("duration", "15m", Duration(900)),
    ],
)
def test_values(kind: str, text: str, value: object) -> None:
    found = convert("o", Option("", kind), text)  # type: ignore[arg-type]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "1.5"),
        ("bool", "maybe"),
        ("size", "2T"),
        ("duration", "soon"),
        ("size", "-1M"),
        ("path", "data"),
        ("path", "/a b"),
        ("path", "/"),
        ("sha256", "abc"),
    ],
)
def test_values_that_are_none(kind: str, text: str) -> None:
    with pytest.raises(BadOption, match=f"o is '{text}'"):
        convert("o", Option("", kind), text)  # type: ignore[arg-type]


def test_choices() -> None:
    option = Option("", "choice", "a", ("a", "b"))
    assert convert("o", option, "b") == "b"
    with pytest.raises(BadOption) as caught:
        convert("o", option, "c")
    assert caught.value.fix == "it must be one of: a, b"


def test_names_and_texts_of_variables() -> None:
    assert variable("environment-modules", "data.disk") == "KESTRELPI_ENVIRONMENT_MODULES_DATA_DISK"
    assert [text_of(one) for one in (True, False, Size(5), "x")] == ["yes", "no", "5", "x"]


def test_a_template_in_a_port_that_is_wrong_is_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="template"):
        enabled(tmp_path, "images: {default: {modules: [m]}}", m="ports: {node: ['{{ options.none }}/tcp']}")
