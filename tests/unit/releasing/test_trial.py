"""The configuration with which a generation is tried: the user's, cut down to what the lab has."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.config import parse as parse_config
from kestrelpi.lab.lab import Lab
from kestrelpi.paths import Paths
from kestrelpi.releasing.trial import for_lab, keep_logs, model_for

CACHE = Path("/var/lib/kestrelpi/cache")
TEXT = """\
cluster: school
network: {interface: eth0, address: 10.50.0.1/24, nodes: 10.50.0.20-10.50.0.90, nameservers: [9.9.9.9]}
services:
  listen: 10.50.0.1
  dhcp: {backend: proxy}
  tftp: {port: 1069}
  nfs: {backend: kernel, version: "4.1", port: 12049}
images:
  default: {modules: [openmp], publish: tested, canary: rpi}
  other: {modules: [slurm], options: {slurm: {port: 6900}}, publish: tested, canary: five}
groups:
  rpi: {}
  five: {image: other, models: ["5"], cmdline: quiet}
  six: {image: other}
power: {driver: wol}
users: {homes: /home/x, server: "nas:/homes"}
"""


def test_only_the_image_and_one_of_its_groups_are_there() -> None:
    made = parse_config(for_lab(TEXT, "other", CACHE))
    assert list(made.images) == ["other"]
    assert list(made.groups) == ["five"]
    assert made.images["other"].modules == ("slurm",)
    assert made.images["other"].options == {"slurm": {"port": "6900"}}
    assert made.groups["five"].cmdline == "quiet"
    assert made.cluster == "school"


def test_nothing_of_the_real_network_is_touched() -> None:
    made = parse_config(for_lab(TEXT, "default", CACHE))
    assert made.network.interface == ""
    assert made.services.listen is None
    assert made.services.dhcp.backend == "builtin"
    assert made.services.tftp.port == 69
    assert (made.services.nfs.backend, made.services.nfs.port, made.services.nfs.version) == ("ganesha", 2049, "4.1")
    assert made.power.driver == "none"
    assert made.users.server == ""
    assert str(made.network.address) == "10.50.0.1/24"
    assert str(made.node_addresses) == "10.50.0.20-10.50.0.90"


def test_files_that_modules_fetched_are_those_of_the_real_cache() -> None:
    assert parse_config(for_lab(TEXT, "default", CACHE)).build.cache == CACHE
    own = parse_config(for_lab("build: {cache: /srv/cache}\n", "default", CACHE))
    assert own.build.cache == Path("/srv/cache")


def test_a_trial_neither_tests_nor_holds_back() -> None:
    image = parse_config(for_lab(TEXT, "default", CACHE)).images["default"]
    assert (image.publish, image.canary) == ("built", "")


@pytest.mark.parametrize("text", ["", "cluster: x\n", "network: {address: 10.77.0.1/24}\n"])
def test_what_is_left_out_has_its_default(text: str) -> None:
    made = parse_config(for_lab(text, "default", CACHE))
    assert made.groups["rpi"].image == "default"
    assert "default" in made.images


def test_an_image_that_no_group_boots_gets_a_group() -> None:
    text = "images: {default: {}, lone: {modules: []}}\ngroups: {rpi: {}}\n"
    made = parse_config(for_lab(text, "lone", CACHE))
    assert made.groups["rpi"].image == "lone"


def test_the_model_is_the_first_that_the_groups_name() -> None:
    config = parse_config(TEXT)
    assert model_for(config, "other") == "5"
    assert model_for(config, "default") == "4"


def test_what_was_said_outlives_the_trial(tmp_path: Path) -> None:
    lab, log = Lab(Paths(tmp_path / "trial"), parse_config("")), tmp_path / "log/test-1"
    keep_logs(lab, log)
    assert [*log.iterdir()] == [], "the services did not even start"
    lab.folder_of(1).path.mkdir(parents=True)
    lab.folder_of(1).console.write_text("Kernel panic")
    lab.serve_log.parent.mkdir(parents=True)
    lab.serve_log.write_text("listening")
    (log / "serve.log").write_text("of an earlier test")
    keep_logs(lab, log)
    assert {path.name: path.read_text() for path in log.iterdir()} == {
        "console.log": "Kernel panic",
        "serve.log": "listening",
    }
