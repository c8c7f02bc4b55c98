"""Every simulated boot loader against kestrelpi's own services, with a generation of small files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kestrelpi.config import parse
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.loader import LoaderReport
from kestrelpi.lab.profiles import PROFILES
from kestrelpi.nodes import boots, leases, sightings
from kestrelpi.nodes.boots import Stage
from kestrelpi.paths import Paths
from tests.integration.test_lab_dnsmasq import SIZES, Bench, said
from tests.waiting import until

GENERATION = "20261122-000000-00000001"
CONFIG = """\
network: {address: 10.99.0.1/24}
services: {nfs: {backend: none}}
images: {default: {modules: []}}
"""
CUT_DOWN = {"start_cd.elf": 80_000, "fixup_cd.dat": 3_100, "start4cd.elf": 80_000, "fixup4cd.dat": 3_100}
MORE = CUT_DOWN | {profile.upstream_dtb: 30_000 for profile in PROFILES.values()}


def furnish(paths: Paths, config: str) -> None:
    """Write the configuration, and a current generation with every file that a boot loader may ask for."""
    paths.etc.mkdir(parents=True)
    paths.config.write_text(config)
    image = paths.images / "default"
    for name, size in (SIZES | MORE).items():
        path = image / "generations" / GENERATION / "boot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    (image / "generations" / GENERATION / "root").mkdir()
    (image / "current").symlink_to(f"generations/{GENERATION}")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("lab")
    paths = Paths(folder / "root")  # Bench.paths
    furnish(paths, CONFIG)
    with Lab(paths, parse(CONFIG), attached=True) as lab:
        made = Bench(lab.network, folder)
        lab.up(list(made.pis.values()), on=False)
        yield made


@pytest.fixture(scope="module")
def reports(bench: Bench) -> dict[str, LoaderReport]:
    """Each model boots twice; the second time counts too."""
    first = {model: bench.boot(pi) for model, pi in bench.pis.items()}
    again = {model: bench.boot(pi) for model, pi in bench.pis.items()}
    assert {model: one.address for model, one in first.items()} == {model: one.address for model, one in again.items()}
    return again


@pytest.mark.parametrize("model", PROFILES)
def test_a_pi_that_nobody_knows_starts_the_waiting_system(
    bench: Bench, reports: dict[str, LoaderReport], model: str
) -> None:
    report, pi = reports[model], bench.pis[model]
    assert (report.failure, report.started, said(report)) == ("", True, [])
    assert report.dtb == pi.profile.upstream_dtb
    assert (report.server, report.kernel, report.initramfs) == ("10.99.0.1", "vmlinuz", ["initramfs.img"])
    assert f"kestrelpi.generation={GENERATION}" in report.cmdline
    boot = bench.paths.images / "default/current/boot"
    for name in ("vmlinuz", "initramfs.img"):
        assert bench.downloaded(pi, name) == (boot / name).read_bytes()


def test_each_has_one_address_from_the_pool(bench: Bench, reports: dict[str, LoaderReport]) -> None:
    given = {mac: str(lease.address) for mac, lease in leases.read(bench.paths.leases).items()}
    assert given == {bench.pis[model].mac: report.address for model, report in reports.items()}
    assert len(set(given.values())) == len(PROFILES)


def test_the_rom_of_a_3b_is_answered_late(reports: dict[str, LoaderReport]) -> None:
    assert reports["3B"].offer_after >= 2
    assert reports["3B"].discovers == 2  # ROM and bootcode.bin: none was sent a second time


def test_what_was_learned_of_each(bench: Bench, reports: dict[str, LoaderReport]) -> None:
    seen = sightings.read(bench.paths.sightings)
    assert set(seen) == {pi.mac for pi in bench.pis.values()}
    for model in ("4", "400", "CM4", "5", "CM5"):
        check_sighting(bench.pis[model], seen[bench.pis[model].mac])


def check_sighting(pi: PiSpec, seen: sightings.Sighting) -> None:
    assert (seen.serial, seen.revision) == (pi.serial, pi.profile.revision)
    assert seen.model == {"4": "4B"}.get(pi.model, pi.model)


@pytest.mark.parametrize("model", ["3B", "4", "5"])
def test_the_stages_that_the_services_saw(bench: Bench, reports: dict[str, LoaderReport], model: str) -> None:
    def last_boot() -> boots.Boot:
        return boots.read(bench.paths.boots, bench.pis[model].mac)[-1]

    until(lambda: Stage.KERNEL in last_boot().stages, "the kernel: the daemon writes twice a second", 10)
    last = last_boot()
    wanted = [Stage.DISCOVER, Stage.OFFER, Stage.FIRMWARE, Stage.KERNEL]
    assert [stage for stage in last.stages if stage in wanted] == wanted
    assert (Stage.REQUEST in last.stages) == (model != "3B")


def test_nothing_was_a_traceback(bench: Bench, reports: dict[str, LoaderReport]) -> None:
    log = (bench.paths.log / "serve.log").read_text()
    assert reports
    assert "Traceback" not in log
    assert " ERROR " not in log
