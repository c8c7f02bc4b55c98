"""Two Pis under Slurm: credentials, jobs of a user, MPI, a node that dies under its job, nodes that come and go."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from kestrelpi import run
from kestrelpi.images.store import Store
from kestrelpi.lab import demo
from kestrelpi.nodes.registry import Node, Registry, edit
from kestrelpi.users import changing
from tests.boot.conftest import Cluster, TwoPis

UNDER_WAY = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED")


class SlurmCluster(Cluster):
    """A cluster with Slurm on both sides."""

    def slurm(self, *words: str) -> str:
        return self.site.frontend(words).strip()

    def as_user(self, node: Node, command: str) -> str:
        """A command of anna's on a node."""
        return self.ssh(node, f"su - anna -c '{command}'")

    def ended(self, job: str) -> str:
        """The state of a job once it has ended."""
        found = ""

        def over() -> bool:
            nonlocal found
            found = self.slurm("scontrol", "show", "job", job, "--oneliner")
            return all(
                f"JobState={state} " not in found for state in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")
            )

        until(over, f"the end of job {job}: {found}")
        return found

    def output(self, name: str) -> str:
        return (self.paths.root / "home/cluster/anna" / name).read_text()


def until(check: Callable[[], bool], what: str, seconds: float = demo.READY_WITHIN) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(1)


@pytest.fixture(scope="module")
def cluster(two: TwoPis) -> SlurmCluster:
    found = SlurmCluster(two.cluster.paths, two.cluster.config, two.cluster.lab, two.cluster.connections)
    changing.add(found.paths, found.config, "anna", None, "", Registry.of(two.nodes))
    return found


@pytest.fixture(scope="module")
def nodes(two: TwoPis) -> list[Node]:
    return two.nodes


@pytest.mark.parametrize("name", ["clocks", "cgroups", "health", "munge", "slurm nodes", "srun", "mpi"])
def test_verify(cluster: SlurmCluster, name: str) -> None:
    cluster.check(name)


def test_the_image_holds_no_key(cluster: SlurmCluster) -> None:
    generation = Store(cluster.paths).current("default")
    assert generation
    assert not (generation.root / "etc/munge/munge.key").exists()
    key = (cluster.paths.secrets / "modules/munge/munge.key").read_bytes()
    assert all(key not in path.read_bytes() for path in (generation.root / "etc").rglob("*") if path.is_file())


def test_munge_and_slurm_are_the_same_users_everywhere(cluster: SlurmCluster, nodes: list[Node]) -> None:
    ours = [run.run(["id", "-u", name]).stdout.strip() for name in ("munge", "slurm")]
    for node in nodes:
        assert cluster.ssh(node, "id -u munge; id -u slurm").split() == ours
    assert cluster.ssh(nodes[0], "stat -c '%a %U' /etc/munge/munge.key") == "400 munge"


def test_a_user_is_the_same_on_every_node_and_moves_between_them(cluster: SlurmCluster, nodes: list[Node]) -> None:
    first, second = nodes
    assert cluster.as_user(first, "id -u") == "10000"
    said = cluster.as_user(first, f"ssh -o BatchMode=yes {second.name} hostname && touch from-{first.name}")
    assert said == second.name
    assert cluster.as_user(second, f"ls from-{first.name}") == f"from-{first.name}"


def test_the_users_key_opens_nothing_on_the_frontend(cluster: SlurmCluster, nodes: list[Node]) -> None:
    home = cluster.paths.root / "home/cluster/anna"
    assert not (home / ".ssh/authorized_keys").exists()
    # root on a node is nobody to the frontend's homes: it can't plant a key either.
    with pytest.raises(run.CommandFailed):
        cluster.ssh(nodes[0], f"touch {cluster.config.users.homes}/planted")


def test_a_batch_job_with_four_threads(cluster: SlurmCluster, nodes: list[Node]) -> None:
    script = "/usr/local/share/kestrelpi/fibo/fibo.sbatch"
    cpus = cluster.ssh(nodes[0], "nproc")
    job = cluster.as_user(nodes[0], f"sbatch --parsable --cpus-per-task={cpus} --output=one.out {script} 32")
    assert "JobState=COMPLETED " in cluster.ended(job)
    assert "fibo(32) = 2178309\n" in cluster.output("one.out")
    four = "OMP_NUM_THREADS=4 fibo 32"
    job = cluster.as_user(nodes[0], f'sbatch --parsable --output=four.out --wrap "{four}"')
    assert "JobState=COMPLETED " in cluster.ended(job)
    assert "fibo(32) = 2178309\n" in cluster.output("four.out")
    assert "threads: 4" in cluster.output("four.out")


def test_a_job_array(cluster: SlurmCluster, nodes: list[Node]) -> None:
    script = "/usr/local/share/kestrelpi/fibo/fibo-array.sbatch"
    job = cluster.as_user(nodes[0], f"sbatch --parsable --array=20-23 --output=array-%a.out {script}")
    for task, value in {20: 6765, 21: 10946, 22: 17711, 23: 28657}.items():
        assert "JobState=COMPLETED " in cluster.ended(f"{job}_{task}")
        assert f"fibo({task}) = {value}\n" in cluster.output(f"array-{task}.out")


def test_mpirun_by_hostfile(cluster: SlurmCluster, nodes: list[Node]) -> None:
    hosts = "".join(f"{node.name} slots=1\\n" for node in nodes)
    said = cluster.as_user(
        nodes[0], f'printf "{hosts}" >hosts; mpirun --hostfile hosts --map-by ppr:1:node fibo-mpi 30'
    )
    assert "fibo(30) = 832040\n" in said
    assert set(re.findall(r"rank \d+ on (\S+):", said)) == {node.name for node in nodes}


def test_a_job_cannot_take_more_memory_than_it_asked_for(cluster: SlurmCluster, nodes: list[Node]) -> None:
    hungry = "tail -c 300m /dev/zero | tail -n 1 | wc -c"
    job = cluster.as_user(nodes[0], f'sbatch --parsable --mem=64M --output=hungry.out --wrap "{hungry}"')
    assert "JobState=OUT_OF_MEMORY " in cluster.ended(job)


def test_a_node_leaves_slurm_with_the_registry_and_comes_back(cluster: SlurmCluster, nodes: list[Node]) -> None:
    gone = nodes[1]
    with edit(cluster.paths, cluster.config) as change:
        change.registry = change.registry.without(gone.name)
    until(lambda: cluster.slurm("sinfo", "-h", "-N", "-o", "%N") == nodes[0].name, "its end in sinfo")
    with edit(cluster.paths, cluster.config) as change:
        change.registry = change.registry.with_node(gone)
    # Every slurmd is started again now; a job that comes just then finds one of them away.
    until(lambda: all(result.ok for result in cluster.results("slurm nodes", "srun")), "a job on both")


def test_a_job_whose_node_dies_runs_again(cluster: SlurmCluster, nodes: list[Node]) -> None:
    victim, other = nodes
    home = cluster.paths.root / "home/cluster/anna"
    # The first run waits for its node's death; only the second computes.
    (home / "dies.sbatch").write_text(
        "#!/bin/bash\n#SBATCH --requeue --output=dies.out\n"
        "date +%s >>deaths\nif [ $(wc -l <deaths) = 1 ]; then sleep 3600; fi\nfibo 25\n"
    )
    job = cluster.as_user(other, f"sbatch --parsable --nodelist={victim.name} dies.sbatch")
    until((home / "deaths").exists, "the job's start")
    # As if the power failed: no shutdown, no word to anybody.
    cluster.ssh(victim, "echo 1 >/proc/sys/kernel/sysrq; systemd-run --on-active=1 sh -c 'echo b >/proc/sysrq-trigger'")
    assert "JobState=COMPLETED " in cluster.ended(job)
    assert len((home / "deaths").read_text().splitlines()) == 2
    assert "fibo(25) = 75025\n" in cluster.output("dies.out")
    cluster.wait_until_ready([victim])
    for name in ("munge", "slurm nodes", "srun"):
        cluster.check(name)


def test_a_sick_node_is_taken_out_and_put_back(cluster: SlurmCluster, nodes: list[Node]) -> None:
    sick = nodes[0]
    check = "/usr/local/lib/kestrelpi/health.d/99-test"
    cluster.ssh(sick, f"printf '#!/bin/sh\\necho it coughs; exit 1\\n' >{check}; chmod +x {check}")
    cluster.ssh(sick, "/usr/local/lib/kestrelpi/slurm-health")
    found = cluster.slurm("scontrol", "show", "node", sick.name, "--oneliner")
    assert "DRAIN" in found
    assert "Reason=kestrelpi: 99-test: it coughs" in found
    cluster.ssh(sick, f"rm {check}; /usr/local/lib/kestrelpi/slurm-health")
    cluster.check("slurm nodes")
