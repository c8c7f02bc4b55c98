"""The frontend's Munge, chrony and Slurm under `kestrelpi serve`, without systemd, asked by their own programs."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.paths import Paths
from kestrelpi.services.control import status
from tests import waiting
from tests.integration.namespaces import Namespace, network
from tests.integration.servers import serve

CONFIG = """\
cluster: test
network: {{address: 10.77.0.1/24}}
images: {{default: {{modules: [slurm], options: {{slurm: {{suspend_after: 1h}}}}}}}}
services: {{nfs: {{backend: none}}, dhcp: {{backend: none}}}}
power:
  driver: command
  stagger: 0s
  halt_time: 1s
  command:
    on_program: [sh, -c, 'echo on "$0" >>{root}/switched', "{{name}}"]
    off_program: [sh, -c, 'echo off "$0" >>{root}/switched', "{{name}}"]
"""
NODE = '  rpi{n}: {{mac: "dc:a6:32:00:00:0{n}", group: rpi, address: 10.77.0.1{n}}}\n'


until = partial(waiting.until, seconds=120)


class Frontend:
    """A frontend in a network of its own."""

    def __init__(self, root: Path, network: Namespace, client: Namespace) -> None:
        self.paths = Paths(root)
        self.client = client
        self.network = network
        self.process: run.Process | None = None
        self.paths.etc.mkdir(parents=True)
        self.paths.config.write_text(CONFIG.format(root=root))

    def register(self, *numbers: int) -> None:
        text = "nodes:\n" + "".join(NODE.format(n=n) for n in numbers) if numbers else "nodes: {}\n"
        self.paths.state.mkdir(parents=True, exist_ok=True)
        new = self.paths.registry.with_name("new")
        new.write_text(text)
        new.rename(self.paths.registry)

    def start(self) -> None:
        self.process = serve(self.paths.root, self.network)

    def running(self) -> list[str]:
        """The modules' services that run; empty while the daemon doesn't answer."""
        try:
            return list(status(self.paths)["modules"]["running"])
        except UserError:
            return []

    def slurm(self, *words: str) -> str:
        """What a Slurm command prints; empty while it fails."""
        env = {"SLURM_CONF": f"{self.paths.root}/etc/slurm/slurm.conf"}
        try:
            return run.run(self.network.argv(*words), env=env, timeout=60).stdout.strip()
        except run.CommandFailed:
            return ""

    def nodes(self) -> list[str]:
        return self.slurm("sinfo", "--noheader", "--Node", "--format=%N").split()

    def children(self) -> dict[str, int]:
        """Daemons of others that run with this root, by their program's name."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            name = Path(words[0]).name
            if (
                entry.name.isdigit()
                and name in ("munged", "slurmctld", "chronyd")
                and str(self.paths.root) in " ".join(words)
            ):
                found[name] = int(entry.name)
        return found

    def __str__(self) -> str:
        """Everything that may tell why something did not happen."""
        logs = sorted((self.paths.root / "var/log/kestrelpi").glob("*.log"))
        return "\n".join([self.log(), *(f"{log.name}:\n{log.read_text()[-2000:]}" for log in logs)])

    def log(self) -> str:
        return (self.paths.root / "serve.log").read_text()


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that munge and slurm, users of their own, can enter: pytest closes its own at every start."""
    with tempfile.TemporaryDirectory(prefix="kestrelpi-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def frontend(root: Path) -> Iterator[Frontend]:
    with network("10.77.0.1/24", {"node": "dc:a6:32:00:00:01"}) as (server, clients):
        clients["node"].ip("address", "add", "10.77.0.11/24", "dev", "eth0")
        found = Frontend(root, server, clients["node"])
        try:
            yield found
        finally:
            if found.process:
                run.stop(found.process, 60)


def test_nodes_reach_slurm_by_themselves_and_leave_it(frontend: Frontend) -> None:
    frontend.start()
    until(lambda: frontend.running() == ["chronyd", "munged"], "start without nodes")
    frontend.register(1, 2)
    until(lambda: frontend.nodes() == ["rpi1", "rpi2"], frontend)
    frontend.register(2, 3)
    until(lambda: frontend.nodes() == ["rpi2", "rpi3"], "rpi3 in sinfo, rpi1 not")
    assert frontend.slurm("scontrol", "show", "config").count("enable_configless") == 1
    assert frontend.slurm("sinfo", "--noheader", "--format=%P") == "rpi*"


def test_munge_has_one_key_that_only_it_reads(frontend: Frontend) -> None:
    frontend.start()
    until(lambda: "munged" in frontend.running(), frontend)
    socket = f"--socket={frontend.paths.root}/run/munge/munge.socket.2"
    credential = run.run(["munge", "--no-input", socket]).stdout
    assert "Success" in run.run(["unmunge", socket], stdin=credential).stdout
    key = frontend.paths.root / "etc/munge/munge.key"
    kept = frontend.paths.secrets / "modules/munge/munge.key"
    assert len(key.read_bytes()) == 1024
    assert key.read_bytes() == kept.read_bytes()
    assert (stat.S_IMODE(key.stat().st_mode), stat.S_IMODE(kept.stat().st_mode)) == (0o400, 0o600)
    assert (key.owner(), kept.owner()) == ("munge", "root")
    assert stat.S_IMODE(frontend.paths.secrets.stat().st_mode) == 0o700


def test_an_older_munge_key_of_the_frontend_is_taken_over(frontend: Frontend) -> None:
    key = frontend.paths.root / "etc/munge/munge.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"older than kestrelpi" * 10)
    frontend.start()
    until(lambda: "munged" in frontend.running(), frontend)
    assert (frontend.paths.secrets / "modules/munge/munge.key").read_bytes() == b"older than kestrelpi" * 10
    assert (key.owner(), stat.S_IMODE(key.stat().st_mode)) == ("munge", 0o400)


def test_nodes_get_the_time(frontend: Frontend) -> None:
    frontend.start()
    until(lambda: "chronyd" in frontend.running(), "chronyd")
    # -Q: measure and print (on standard error), set nothing.
    measure = "exec chronyd -Q -t 30 'server 10.77.0.1 iburst' 'cmdport 0' 2>&1"
    said = frontend.client.run("sh", "-c", measure).stdout
    assert "System clock wrong by" in said


def test_a_service_that_dies_comes_back(frontend: Frontend) -> None:
    frontend.register(1)
    frontend.start()
    until(lambda: frontend.nodes() == ["rpi1"], "rpi1 in sinfo")
    before = frontend.children()
    assert set(before) == {"munged", "slurmctld", "chronyd"}
    os.kill(before["slurmctld"], signal.SIGKILL)
    until(lambda: frontend.children().get("slurmctld", before["slurmctld"]) != before["slurmctld"], "another slurmctld")
    until(lambda: frontend.nodes() == ["rpi1"], "rpi1 in sinfo again")
    assert "slurmctld ended with status -9" in frontend.log()
    after = frontend.children()
    assert (after["munged"], after["chronyd"]) == (before["munged"], before["chronyd"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_daemon(frontend: Frontend, how: signal.Signals) -> None:
    frontend.register(1)
    frontend.start()
    until(lambda: "slurmctld" in frontend.running(), frontend)
    assert frontend.process
    os.kill(frontend.process.pid, how)
    frontend.process.wait()
    until(lambda: frontend.children() == {}, f"the end of all children of {frontend.children()}")


def test_a_slurm_conf_that_slurmctld_refuses_stops_nothing_else(frontend: Frontend) -> None:
    own = frontend.paths.etc / "overlays/frontend/etc/slurm/slurm.conf"
    own.parent.mkdir(parents=True)
    own.write_text("ClusterName=x\nNonsense=yes\n")
    frontend.register(1)
    frontend.start()
    until(lambda: "slurmctld of the module slurm does not run" in frontend.log(), "a message")
    assert frontend.running() == ["chronyd", "munged"]
    failed = status(frontend.paths)["modules"]["failed"]
    assert "slurmctld ended with status 1 at its start" in failed["slurmctld"]
    own.unlink()
    until(lambda: frontend.nodes() == ["rpi1"], "the next try")
    until(lambda: status(frontend.paths)["modules"]["failed"] == {}, "the end of the failure")


def test_slurm_switches_nodes_through_the_daemon(frontend: Frontend) -> None:
    frontend.register(1, 2)
    frontend.start()
    until(lambda: frontend.nodes() == ["rpi1", "rpi2"], "both in sinfo")
    switched = frontend.paths.root / "switched"
    frontend.slurm("scontrol", "update", "NodeName=rpi2", "State=POWER_DOWN_FORCE")
    until(switched.exists, "rpi2's switching off")
    assert switched.read_text() == "off rpi2\n"

    def powered_down() -> bool:
        return "POWERED_DOWN" in frontend.slurm("scontrol", "show", "node", "rpi2", "--oneliner")

    until(powered_down, "the end of SuspendTimeout")
    frontend.slurm("scontrol", "update", "NodeName=rpi2", "State=POWER_UP")
    until(lambda: len(switched.read_text().splitlines()) == 2, "rpi2's switching on")
    assert switched.read_text() == "off rpi2\non rpi2\n"
    assert "switched rpi2 on for Slurm" in frontend.log()
    assert list((frontend.paths.root / "run/kestrelpi-power").iterdir()) == []
