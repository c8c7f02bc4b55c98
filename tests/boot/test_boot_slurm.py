"""Two Pis under Slurm: credentials, jobs of a user, MPI, nodes that come and go."""

from __future__ import annotations

import re

import pytest

from kestrelpi import run
from kestrelpi.images.store import Store
from kestrelpi.nodes.registry import Node, edit
from tests.boot.conftest import Cluster, TwoPis, until


@pytest.fixture(scope="module")
def cluster(two: TwoPis, anna: None) -> Cluster:
    return two.cluster


@pytest.fixture(scope="module")
def nodes(two: TwoPis) -> list[Node]:
    return two.nodes


def test_the_image_holds_no_key(cluster: Cluster) -> None:
    generation = Store(cluster.paths).current("default")
    assert generation
    assert not (generation.root / "etc/munge/munge.key").exists()
    key = (cluster.paths.secrets / "modules/munge/munge.key").read_bytes()
    assert all(key not in path.read_bytes() for path in (generation.root / "etc").rglob("*") if path.is_file())


def test_munge_and_slurm_are_the_same_users_everywhere(cluster: Cluster, nodes: list[Node]) -> None:
    ours = [run.run(["id", "-u", name]).stdout.strip() for name in ("munge", "slurm")]
    for node in nodes:
        assert cluster.ssh(node, "id -u munge; id -u slurm").split() == ours
    assert cluster.ssh(nodes[0], "stat -c '%a %U' /etc/munge/munge.key") == "400 munge"


def test_a_user_is_the_same_on_every_node_and_moves_between_them(cluster: Cluster, nodes: list[Node]) -> None:
    first, second = nodes
    assert cluster.as_anna(first, "id -u") == "10000"
    said = cluster.as_anna(first, f"ssh -o BatchMode=yes {second.name} hostname && touch from-{first.name}")
    assert said == second.name
    assert cluster.as_anna(second, f"ls from-{first.name}") == f"from-{first.name}"


def test_the_users_key_opens_nothing_on_the_frontend(cluster: Cluster, nodes: list[Node]) -> None:
    home = cluster.paths.root / "home/cluster/anna"
    assert not (home / ".ssh/authorized_keys").exists()
    # root on a node is nobody to the frontend's homes: it can't plant a key either.
    with pytest.raises(run.CommandFailed):
        cluster.ssh(nodes[0], f"touch {cluster.config.users.homes}/planted")


def test_a_batch_job_with_four_threads(cluster: Cluster, nodes: list[Node]) -> None:
    script = "/usr/local/share/kestrelpi/fibo/fibo.sbatch"
    cpus = cluster.ssh(nodes[0], "nproc")
    job = cluster.as_anna(nodes[0], f"sbatch --parsable --cpus-per-task={cpus} --output=one.out {script} 32")
    assert "JobState=COMPLETED " in cluster.ended(job)
    assert "fibo(32) = 2178309\n" in cluster.output("one.out")
    four = "OMP_NUM_THREADS=4 fibo 32"
    job = cluster.as_anna(nodes[0], f'sbatch --parsable --output=four.out --wrap "{four}"')
    assert "JobState=COMPLETED " in cluster.ended(job)
    assert "fibo(32) = 2178309\n" in cluster.output("four.out")
    assert "threads: 4" in cluster.output("four.out")


def test_a_job_array(cluster: Cluster, nodes: list[Node]) -> None:
    script = "/usr/local/share/kestrelpi/fibo/fibo-array.sbatch"
    job = cluster.as_anna(nodes[0], f"sbatch --parsable --array=20-23 --output=array-%a.out {script}")
    for task, value in {20: 6765, 21: 10946, 22: 17711, 23: 28657}.items():
        assert "JobState=COMPLETED " in cluster.ended(f"{job}_{task}")
        assert f"fibo({task}) = {value}\n" in cluster.output(f"array-{task}.out")


def test_mpirun_by_hostfile(cluster: Cluster, nodes: list[Node]) -> None:
    hosts = "".join(f"{node.name} slots=1\\n" for node in nodes)
    said = cluster.as_anna(
        nodes[0], f'printf "{hosts}" >hosts; mpirun --hostfile hosts --map-by ppr:1:node fibo-mpi 30'
    )
    assert "fibo(30) = 832040\n" in said
    assert set(re.findall(r"rank \d+ on (\S+):", said)) == {node.name for node in nodes}


def test_a_job_cannot_take_more_memory_than_it_asked_for(cluster: Cluster, nodes: list[Node]) -> None:
    hungry = "tail -c 300m /dev/zero | tail -n 1 | wc -c"
    job = cluster.as_anna(nodes[0], f'sbatch --parsable --mem=64M --output=hungry.out --wrap "{hungry}"')
    assert "JobState=OUT_OF_MEMORY " in cluster.ended(job)


def test_a_node_leaves_slurm_with_the_registry_and_comes_back(cluster: Cluster, nodes: list[Node]) -> None:
    gone = nodes[1]
    with edit(cluster.paths, cluster.config) as change:
        change.registry = change.registry.without(gone.name)
    until(lambda: cluster.slurm("sinfo", "-h", "-N", "-o", "%N") == nodes[0].name, "its end in sinfo")
    with edit(cluster.paths, cluster.config) as change:
        change.registry = change.registry.with_node(gone)
    # Every slurmd is started again now; a job that comes just then finds one of them away.
    until(lambda: all(result.ok for result in cluster.results("slurm nodes", "srun")), "a job on both")


def test_a_sick_node_is_taken_out_and_put_back(cluster: Cluster, nodes: list[Node]) -> None:
    sick = nodes[0]
    check = "/usr/local/lib/kestrelpi/health.d/99-test"
    cluster.ssh(sick, f"printf '#!/bin/sh\\necho it coughs; exit 1\\n' >{check}; chmod +x {check}")
    cluster.ssh(sick, "/usr/local/lib/kestrelpi/slurm-health")
    found = cluster.slurm("scontrol", "show", "node", sick.name, "--oneliner")
    assert "DRAIN" in found
    assert "Reason=kestrelpi: 99-test: it coughs" in found
    cluster.ssh(sick, f"rm {check}; /usr/local/lib/kestrelpi/slurm-health")
    cluster.check("slurm nodes")
