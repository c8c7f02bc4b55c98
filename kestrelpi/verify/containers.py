"""The checks of containers: an image built, pushed and run under limits that hold; jobs of a swarm."""

from __future__ import annotations

import re
import time

from kestrelpi.images.modules import of_frontend
from kestrelpi.nodes.registry import Node
from kestrelpi.verify.site import FIBO, FIBO_IS, CheckFailed, Site

FOLDER = "/usr/local/share/kestrelpi/fibo"
"""Where nodes have fibo with its Dockerfile: the image needs no other, so nothing is fetched from elsewhere."""
MEMORY, CPUS = 32 * 2**20, 0.5
"""The limits of the container that tries them."""
SPIN = 2
"""Seconds for which it wants a whole CPU."""
OOM_KILLED = 137
JOB = "kestrelpi-verify"
TASKS = 3
READY_WITHIN, DONE_WITHIN = 180.0, 600.0
"""Seconds for nodes that have just booted to join the swarm, and for a job's end: an emulated Pi is slow."""
POLL = 2.0


def container(site: Site) -> str:
    """Build fibo's image on one node, push it, pull and run it on another."""
    nodes = site.with_module("docker")
    began = time.monotonic()
    image = _pushed(site, nodes[0])
    took = time.monotonic() - began
    runner = nodes[-1]
    said = site.node(runner, f"docker run --rm --pull always --memory 64m --env OMP_NUM_THREADS=1 {image} {FIBO}")
    if f"fibo({FIBO}) = {FIBO_IS}\n" not in said:
        raise CheckFailed(f"fibo in a container on {runner.name} is wrong", detail=said)
    _limits(site, runner, image)
    return f"built on {nodes[0].name} in {took:.0f} s, run on {runner.name}; limits of memory and CPU hold"


def _pushed(site: Site, builder: Node) -> str:
    """The name of fibo's image once it is in the frontend's registry."""
    port = of_frontend(site.paths, site.config).values("docker")["port"]
    image = f"frontend:{port}/kestrelpi/fibo:verify"
    site.node(builder, f"docker build --quiet --tag {image} {FOLDER}")
    site.node(builder, f"docker push --quiet {image}")
    return image


def _limits(site: Site, node: Node, image: str) -> None:
    """The limits are in the container's cgroup; who wants more of a CPU waits, and who takes more memory ends."""
    busybox = "--volume /bin/busybox:/busybox:ro --entrypoint /busybox"
    show = "/busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
    spin = f"/busybox timeout {SPIN} /busybox yes >/dev/null; /busybox grep nr_throttled /sys/fs/cgroup/cpu.stat"
    grow = f"/busybox dd if=/dev/zero of=/dev/null bs={2 * MEMORY} count=1; echo status $?"
    script = f"{show}; {spin}; {grow}"
    said = site.node(node, f"docker run --rm --memory {MEMORY} --cpus {CPUS} {busybox} {image} sh -c '{script}'")
    limits, _, rest = said.partition("nr_throttled ")
    throttled, _, status = rest.partition("status ")
    if limits.split() != [str(MEMORY), f"{CPUS * 100_000:.0f}", "100000"]:
        raise CheckFailed(f"a container on {node.name} has other limits than it was given", detail=said)
    if throttled.strip() in ("", "0"):
        raise CheckFailed(f"a container on {node.name} got more of a CPU than its limit", detail=said)
    if status.strip() != str(OOM_KILLED):
        raise CheckFailed(f"a container on {node.name} got more memory than its limit", detail=said)


def swarm(site: Site) -> str:
    """Every node is in the swarm, once; a job of three tasks computes."""
    nodes = site.with_module("swarm")
    where = wait_for_swarm(site, nodes)
    image = _pushed(site, nodes[0])
    left = _docker(site, where, f"service ls --quiet --filter name={JOB}").split()
    if left:  # by a run that was broken off
        _docker(site, where, f"service rm {' '.join(left)}")
    options = "--detach --quiet --restart-condition none --limit-memory 64M --env OMP_NUM_THREADS=1 --no-resolve-image"
    _docker(
        site, where, f"service create --name {JOB} --mode replicated-job --replicas {TASKS} {options} {image} {FIBO}"
    )
    try:
        return _result(site, where)
    finally:
        _docker(site, where, f"service rm {JOB}")


def _manager(site: Site, nodes: list[Node]) -> Node | None:
    """The node that manages the swarm; None: the frontend does."""
    name = str(of_frontend(site.paths, site.config).values("swarm")["manager"])
    if name == "frontend":
        return None
    found = [node for node in nodes if node.name == (name or nodes[0].name)]
    if not found:
        raise CheckFailed(
            f"{name} is to manage the swarm, but is no node that has the module",
            fix="set images.<name>.options.swarm.manager to one of its nodes, or to frontend",
        )
    return found[0]


def _docker(site: Site, where: Node | None, command: str) -> str:
    """A docker command where the swarm is managed."""
    if where is None:
        return site.frontend(["sh", "-c", f"docker {command}"])
    return site.node(where, f"docker {command}")


def wait_for_swarm(site: Site, nodes: list[Node]) -> Node | None:
    """Wait until all `nodes`, which join after their boot, are ready; the swarm's manager, None: the frontend."""
    where = _manager(site, nodes)
    names = {node.name for node in nodes}
    deadline = time.monotonic() + READY_WITHIN
    while bad := _lacks(site, where, names):
        if time.monotonic() > deadline:
            first = bad[0].split()[0]
            raise CheckFailed(
                f"the swarm is not as it should be: {', '.join(bad)}",
                fix="kestrelpi reconfigure --frontend"
                if first == "frontend"
                else f"kestrelpi nodes ssh {first} journalctl -u kestrelpi-swarm",
            )
        time.sleep(POLL)
    return where


def _lacks(site: Site, where: Node | None, names: set[str]) -> list[str]:
    """What is wrong with the swarm, each beginning with the name of the machine that shows why."""
    known, _, state = _docker(
        site, where, "info --format '{{.Swarm.Nodes}} {{.Swarm.LocalNodeState}} {{.Swarm.Error}}'"
    ).partition(" ")
    if known == "0":  # `node ls` would fail: nobody has made the swarm yet, or the manager doesn't lead it yet
        return [f"{where.name if where else 'frontend'} manages no swarm ({state.strip()})"]
    return not_ready(_docker(site, where, "node ls --format '{{.Hostname}} {{.Status}}'"), names)


def not_ready(said: str, names: set[str]) -> list[str]:
    """What is wrong with the lines `NAME STATUS` of `docker node ls`."""
    states: dict[str, list[str]] = {name: [] for name in sorted(names)}
    for line in said.splitlines():
        name, _, state = line.partition(" ")
        if name in states:
            states[name].append(state)
    return [f"{name} {' and '.join(found) or 'is not in it'}" for name, found in states.items() if found != ["Ready"]]


def _result(site: Site, where: Node | None) -> str:
    """Wait for the end of the job's tasks; what their logs say."""
    deadline = time.monotonic() + DONE_WITHIN
    while True:
        said = _docker(
            site, where, f"service ps {JOB} --no-trunc --format '{{{{.Node}}}} {{{{.CurrentState}}}} {{{{.Error}}}}'"
        )
        states = [line.split()[1] for line in said.splitlines() if len(line.split()) > 1]
        if states.count("Complete") == TASKS:
            break
        if {"Failed", "Rejected"} & set(states) or time.monotonic() > deadline:
            raise CheckFailed(f"{states.count('Complete')} of {TASKS} tasks of a job are complete", detail=said)
        time.sleep(POLL)
    logs = _docker(site, where, f"service logs --raw {JOB}")
    right = len(re.findall(rf"fibo\({FIBO}\) = {FIBO_IS}\n", logs))
    if right != TASKS:
        raise CheckFailed(f"{right} of {TASKS} results in a job's logs are right", detail=logs)
    hosts = sorted({line.split()[0] for line in said.splitlines()})
    return f"all nodes are ready; fibo {FIBO} = {FIBO_IS} by {TASKS} tasks on {', '.join(hosts)}"
