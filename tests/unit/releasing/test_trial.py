"""The configuration with which a generation is tried: the user's, cut down to what the lab has."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.config import parse as parse_config
from kestrelpi.images.store import Generation
from kestrelpi.lab.lab import Lab
from kestrelpi.paths import Paths
from kestrelpi.releasing.trial import for_lab, keep_logs, model_for, mounts_of_trial, redirect_mounts

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
    assert (made.services.nfs.backend, made.services.nfs.port, made.services.nfs.version) == ("ganesha", 12049, "4.1")
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


FSTAB = """\
# <what> <where>
tmpfs /tmp tmpfs nosuid 0 0
10.50.0.1:/var/lib/kestrelpi/shared /var/lib/extrausers nfs4 ro,vers=4.1,port=12049,addr=10.50.0.1 0 0
nas:/homes /home/x nfs soft,nodev 0 0
"""


def test_what_an_image_mounts_from_the_frontend_comes_from_the_trial() -> None:
    """The paths of the frontend stand in the image; in a trial another one serves, from a root of its own."""
    trial = Paths(Path("/var/lib/kestrelpi/cache/trial")), parse_config(for_lab(TEXT, "default", CACHE))
    made = mounts_of_trial(FSTAB, (Paths(), parse_config(TEXT)), trial).splitlines()
    assert made[:2] == FSTAB.splitlines()[:2]
    here = "10.50.0.1:/var/lib/kestrelpi/cache/trial"
    assert made[2] == (
        f"{here}/var/lib/kestrelpi/shared /var/lib/extrausers nfs4 ro,vers=4.1,port=12049,addr=10.50.0.1 0 0"
    )
    options = "rw,vers=4.1,port=12049,addr=10.50.0.1,nodev,nosuid,_netdev,nofail"
    assert made[3] == f"{here}/home/x /home/x nfs4 {options} 0 0", "nobody reaches another server from the lab"


def test_a_frontend_in_a_folder_and_at_another_address() -> None:
    text = "network: {address: 10.77.0.1/24}\nservices: {listen: 10.77.0.9}\n"
    trial = Paths(Path("/r/trial")), parse_config(for_lab(text, "default", CACHE))
    line = "10.77.0.9:/r/home/cluster /home/cluster nfs4 rw,addr=10.77.0.9 0 0\n"
    made = mounts_of_trial(line, (Paths(Path("/r")), parse_config(text)), trial)
    assert made == "10.77.0.1:/r/trial/home/cluster /home/cluster nfs4 rw,addr=10.77.0.1 0 0\n"


def test_a_file_of_the_users_stays(tmp_path: Path) -> None:
    generation = Generation("default", "x", tmp_path / "x")
    (generation.root / "etc").mkdir(parents=True)
    (generation.root / "etc/fstab").write_text(FSTAB)
    real = Paths(), parse_config(TEXT)
    trial = Paths(tmp_path / "trial"), parse_config(for_lab(TEXT, "default", CACHE))
    redirect_mounts(generation, real, trial)
    written = trial[0].etc / "overlays/runtime/etc/fstab"
    assert str(tmp_path / "trial") in written.read_text()
    written.rename(written.with_name("fstab.j2"))
    redirect_mounts(generation, real, trial)
    assert not written.exists()
