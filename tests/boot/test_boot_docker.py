"""Two Pis with Docker: an image goes from one to the other through the frontend's registry, and a stack of the swarm
computes. (Limits are tried by `kestrelpi verify`, which test_boot_up_again runs.)"""

from __future__ import annotations

import pytest

from kestrelpi.nodes.registry import Node
from tests.boot.conftest import Cluster, TwoPis

FIBO = "/usr/local/share/kestrelpi/fibo"
IMAGE, HUB = "frontend:5000/fibo:1", "frontend:5000/library/fibo:1"


@pytest.fixture(scope="module")
def cluster(two: TwoPis) -> Cluster:
    return two.cluster


@pytest.fixture(scope="module")
def nodes(two: TwoPis, cluster: Cluster) -> list[Node]:
    """The first of them has pushed fibo's image."""
    cluster.ssh(two.nodes[0], f"docker build --tag {IMAGE} {FIBO} && docker push {IMAGE}")
    return two.nodes


def test_an_image_is_found_as_if_it_came_from_docker_hub(cluster: Cluster, nodes: list[Node]) -> None:
    cluster.ssh(nodes[0], f"docker tag {IMAGE} {HUB} && docker push --quiet {HUB}")
    assert "fibo(20) = 6765\n" in cluster.ssh(nodes[1], "docker run --rm fibo:1 20")


def test_a_stack_of_one_shot_tasks_ends(cluster: Cluster, nodes: list[Node]) -> None:
    manager = nodes[0]
    cluster.ssh(manager, f"docker stack deploy --compose-file {FIBO}/fibo-stack.yml fibo")
    states = "docker service ps fibo_fibo --format '{{.CurrentState}}'"
    cluster.until(manager, states, lambda said: said.count("Complete") == 3)
    assert cluster.ssh(manager, "docker service logs --raw fibo_fibo").count("fibo(40) = 102334155") == 3
    # None was started again.
    assert len(cluster.ssh(manager, "docker service ps fibo_fibo --quiet").split()) == 3
    cluster.ssh(manager, "docker stack rm fibo")


def test_nothing_failed(cluster: Cluster, nodes: list[Node]) -> None:
    for node in nodes:
        assert cluster.ssh(node, "systemctl --failed --plain --no-legend") == ""
