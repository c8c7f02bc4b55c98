"""What the frontend's modules want, by their real files: slurm.conf as a golden text, children, the override rule."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kestrelpi.config import parse
from kestrelpi.nodes.registry import Registry
from kestrelpi.nodes.sightings import Sighting
from kestrelpi.paths import Paths
from kestrelpi.services.module_files import Frontend

REGISTRY = """
nodes:
  rpi1: {mac: "dc:a6:32:00:00:01", group: rpi, address: 10.77.0.11}
  rpi2: {mac: "dc:a6:32:00:00:02", group: rpi, address: 10.77.0.12}
  big1: {mac: "dc:a6:32:00:00:03", group: big, address: 10.77.0.13}
  plain1: {mac: "dc:a6:32:00:00:04", group: plain, address: 10.77.0.14}
"""
CONFIG = """
cluster: test
images:
  default: {modules: [slurm]}
  other: {modules: []}
groups:
  rpi: {}
  big: {}
  plain: {image: other}
"""
SEEN = {
    "dc:a6:32:00:00:01": Sighting("dc:a6:32:00:00:01", memory_mb=1848, cpus=4),
    "dc:a6:32:00:00:03": Sighting("dc:a6:32:00:00:03", memory_mb=7816, cpus=4),
}


def frontend(tmp_path: Path, text: str = CONFIG, registry: str = REGISTRY) -> Frontend:
    return Frontend.of(Paths(tmp_path), parse(text), Registry.parse(registry), SEEN, "/usr/bin/kestrelpi")


def rendered(found: Frontend, name: str) -> str:
    files = {str(file.path): file.content for file in found.files()}
    return files[str(found.paths.root / name)].decode()


def test_slurm_conf_has_the_nodes_as_they_reported_themselves(tmp_path: Path) -> None:
    text = rendered(frontend(tmp_path), "etc/slurm/slurm.conf")
    nodes = text[text.index("NodeName=") :]
    shape = "Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1"
    assert nodes.splitlines() == [
        f"NodeName=big1 NodeAddr=10.77.0.13 CPUs=4 {shape} RealMemory=7624",
        f"NodeName=rpi1 NodeAddr=10.77.0.11 CPUs=4 {shape} RealMemory=1656",
        f"NodeName=rpi2 NodeAddr=10.77.0.12 CPUs=4 {shape}",
        "",
        "PartitionName=rpi Nodes=rpi1,rpi2 Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=414",
        "PartitionName=big Nodes=big1 Default=NO MaxTime=INFINITE State=UP DefMemPerCPU=1906",
    ]


def test_slurm_conf_of_a_lab_keeps_to_its_root(tmp_path: Path) -> None:
    lines = rendered(frontend(tmp_path), "etc/slurm/slurm.conf").splitlines()
    for line in (
        "ClusterName=test",
        f"SlurmctldHost={socket.gethostname().split('.')[0]}(10.77.0.1)",
        "SlurmctldParameters=enable_configless",
        f"AuthInfo=socket={tmp_path}/run/munge/munge.socket.2",
        f"StateSaveLocation={tmp_path}/var/lib/slurm/slurmctld",
        f"SlurmctldLogFile={tmp_path}/var/log/slurm/slurmctld.log",
        "SlurmdLogFile=/var/log/slurm/slurmd.log",
        f"JobCompLoc={tmp_path}/var/log/slurm/jobcomp.log",
        "ReturnToService=2",
        "HealthCheckInterval=60",
    ):
        assert line in lines
    assert not any(line.startswith("Suspend") for line in lines)


def test_options_reach_slurm_conf(tmp_path: Path) -> None:
    options = "options: {slurm: {suspend_after: 10m, memory_reserve: 1G, health_interval: 2m, max_time: 1-00:00:00}}"
    text = CONFIG.replace("modules: [slurm]", f"modules: [slurm], {options}")
    found = rendered(frontend(tmp_path, text), "etc/slurm/slurm.conf")
    assert "SlurmctldParameters=enable_configless,idle_on_node_suspend\n" in found
    assert "SuspendTime=600\n" in found
    assert f"ResumeProgram={tmp_path}/usr/local/lib/kestrelpi/slurm-resume\n" in found
    assert "HealthCheckInterval=120\n" in found
    assert "RealMemory=824\n" in found
    assert found.count("MaxTime=1-00:00:00") == 2


def test_slurmctld_waits_for_the_first_node(tmp_path: Path) -> None:
    with_nodes = [service.name for _, service in frontend(tmp_path).services()]
    without = [service.name for _, service in frontend(tmp_path, registry="nodes: {}").services()]
    assert with_nodes == ["chronyd", "munged", "slurmctld"]
    assert without == ["chronyd", "munged"]


def test_a_service_becomes_a_child_of_the_daemon(tmp_path: Path) -> None:
    found = frontend(tmp_path)
    module, service = found.services()[-1]
    child = found.child(module, service)
    assert child.argv == ("slurmctld", "-D", "-f", f"{tmp_path}/etc/slurm/slurm.conf")
    assert (child.user, child.tcp, child.socket) == ("slurm", ("10.77.0.1", 6817), None)
    assert tmp_path / "var/lib/slurm/slurmctld" in child.folders
    assert found.reload_command(module, service)[:2] == ["env", f"SLURM_CONF={tmp_path}/etc/slurm/slurm.conf"]


def test_programs_stay_programs_and_belong_to_their_module(tmp_path: Path) -> None:
    files = {file.path.name: file for file in frontend(tmp_path).files()}
    assert (files["slurm-resume"].mode, files["slurm-resume"].module) == (0o755, "slurm")
    assert (files["slurm.conf"].mode, files["kestrelpi.conf"].module) == (0o644, "chrony")


def test_the_users_own_file_replaces_the_modules(tmp_path: Path) -> None:
    own = tmp_path / "etc/kestrelpi/overlays/frontend/etc/slurm/cgroup.conf"
    own.parent.mkdir(parents=True)
    own.write_text("ConstrainCores=no\n")
    found = {file.path.name: file for file in frontend(tmp_path).files()}["cgroup.conf"]
    assert (found.content, found.module) == (b"ConstrainCores=no\n", "slurm")


def test_without_modules_the_frontend_has_nothing_to_do(tmp_path: Path) -> None:
    found = frontend(tmp_path, "images: {default: {modules: []}}", "nodes: {}")
    assert (found.files(), found.services()) == ([], [])


@pytest.mark.parametrize("name", ["slurm-resume", "slurm-suspend"])
def test_power_programs_leave_a_whole_file(tmp_path: Path, name: str) -> None:
    text = rendered(frontend(tmp_path), f"usr/local/lib/kestrelpi/{name}")
    state = "on" if name == "slurm-resume" else "off"
    assert f"printf '{state} %s\\n'" in text
    assert text.index(f'>"{tmp_path}/run/kestrelpi-power/.$$"') < text.index("\nmv ")
