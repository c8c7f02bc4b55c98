"""The checks. Each returns a few words on what it found, or raises CheckFailed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kestrelpi.errors import UserError
from kestrelpi.nodes.registry import Node
from kestrelpi.users.registry import load
from kestrelpi.verify import containers, kubernetes
from kestrelpi.verify.site import FIBO, FIBO_IS, CheckFailed, Site

MOST_OFF = 1.0
"""Seconds that a clock may differ from the frontend's; Munge refuses 300."""
IDLE_WITHIN = 60.0
"""Seconds in which nodes that have just booted must be offered by Slurm."""
OFFERED = ("idle", "mixed", "allocated", "completing")


@dataclass(frozen=True)
class Check:
    """One line of `kestrelpi verify`."""

    name: str
    run: Callable[[Site], str]
    module: str = ""
    """Only where an image has it."""
    vital: bool = False
    """Without it no other check makes sense."""


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    name: str
    ok: bool
    seconds: float
    detail: str
    skipped: bool = False
    """It wasn't run; `detail` says why, `ok` is true."""


def carry_out(checks: tuple[Check, ...], site: Site) -> Iterator[Result]:
    """Run the checks that concern `site`, one after the other, until a vital one fails; of the others say why not."""
    for check in checks:
        if not site.with_module(check.module):
            yield Result(check.name, True, 0.0, f"no node's image has the module {check.module}", skipped=True)
            continue
        began = time.monotonic()
        try:
            detail, ok = check.run(site), True
        except UserError as error:
            detail, ok = str(error), False
        yield Result(check.name, ok, time.monotonic() - began, detail)
        if check.vital and not ok:
            return


def ssh(site: Site) -> str:
    names = site.on_all(lambda node: site.node(node, "hostname").strip())
    for node, name in names:
        if name != node.name:
            raise CheckFailed(f"{node.address} calls itself {name}, it should be {node.name}")
    return f"{len(names)} nodes answer by their names"


def clocks(site: Site) -> str:
    worst = max(abs(off) for _, off in site.on_all(lambda node: offset(site, node)))
    if worst > MOST_OFF:
        raise CheckFailed(f"a clock is off by {worst:.2f} s", fix="is the module chrony in the image?")
    return f"within {worst * 1000:.0f} ms of the frontend"


def offset(site: Site, node: Node) -> float:
    """Seconds by which the node's clock is off at least: it is read between two looks at ours."""
    before = time.time()
    theirs = float(site.node(node, "date +%s.%N"))
    after = time.time()
    return min(theirs - before, 0.0) or max(theirs - after, 0.0)


def cgroups(site: Site) -> str:
    for node, text in site.on_all(lambda node: site.node(node, "cat /sys/fs/cgroup/cgroup.controllers")):
        missing = {"cpu", "cpuset", "memory"} - set(text.split())
        if missing:
            raise CheckFailed(f"{node.name} lacks {', '.join(sorted(missing))}", fix="cgroup_enable=memory")
    return "cpu, cpuset and memory can be limited"


def health(site: Site) -> str:
    site.on_all(lambda node: site.node(node, "/usr/local/lib/kestrelpi/healthy --wait 30"))
    return "every node finds itself healthy"


def users(site: Site) -> str:
    known = load(site.paths)
    wanted = {name: str(user.uid) for name, user in known.items()}
    command = "mountpoint -q /var/lib/extrausers && getent passwd " + " ".join(wanted)
    for node, text in site.on_all(lambda node: site.node(node, command if wanted else "true"), "users"):
        found = {line.split(":")[0]: line.split(":")[2] for line in text.splitlines()}
        if found != wanted:
            raise CheckFailed(f"{node.name} knows {found or 'no users'}, it should know {wanted}")
    return f"{len(wanted)} users with the same uid everywhere"


def munge(site: Site) -> str:
    socket = f"--socket={site.root}/run/munge/munge.socket.2"
    nodes = site.with_module("munge")
    for node in nodes:
        ours = site.frontend(["munge", "--no-input", socket])
        if "STATUS" not in site.node(node, "unmunge", stdin=ours):
            raise CheckFailed(f"{node.name} does not understand the frontend's credential")
        theirs = site.node(node, "munge --no-input")
        answer = site.frontend(["unmunge", socket], stdin=theirs)
        if not re.search(r"STATUS:\s+Success", answer):
            raise CheckFailed(f"the frontend does not understand {node.name}'s credential", detail=answer)
    return f"{len(nodes)} nodes and the frontend decode each other"


def slurm_nodes(site: Site) -> str:
    names = sorted(node.name for node in site.with_module("slurm"))
    deadline = time.monotonic() + IDLE_WITHIN
    while True:
        said = site.frontend(["sinfo", "--noheader", "--Node", "--format=%N %T"])
        states = dict(line.split()[:2] for line in said.splitlines())
        bad = [f"{name} {states.get(name, 'unknown')}" for name in names if states.get(name) not in OFFERED]
        if not bad:
            return f"{len(names)} nodes are offered"
        if time.monotonic() > deadline:
            why = site.frontend(["sinfo", "--list-reasons"])
            raise CheckFailed(f"Slurm does not offer {', '.join(bad)}", detail=why)
        time.sleep(1)


def srun(site: Site) -> str:
    count = min(2, len(site.with_module("slurm")))
    words = ["srun", f"--nodes={count}", "--ntasks-per-node=1", "--exclusive", "--chdir=/tmp", "fibo", str(FIBO)]
    said = site.frontend(words)
    right = len(re.findall(rf"fibo\({FIBO}\) = {FIBO_IS}\n", said))
    if right != count:
        raise CheckFailed(f"{right} of {count} results are right", detail=said)
    return f"fibo {FIBO} = {FIBO_IS} on {count} nodes at once"


def mpi(site: Site) -> str:
    count = min(2, len(site.with_module("openmpi")))
    layout = [f"--nodes={count}", "--ntasks-per-node=1", "--exclusive"]
    said = site.frontend(["srun", "--mpi=pmix", *layout, "--chdir=/tmp", "fibo-mpi", str(FIBO)])
    if f"fibo({FIBO}) = {FIBO_IS}\n" not in said or f"ranks: {count}\n" not in said:
        raise CheckFailed("fibo-mpi is wrong, or its ranks did not find each other", detail=said)
    hosts = set(re.findall(r"^rank \d+ on (\S+):", said, re.MULTILINE))
    if len(hosts) != count:
        raise CheckFailed(f"the ranks ran on {len(hosts)} of {count} nodes", detail=said)
    return f"fibo-mpi {FIBO} by {count} ranks on {', '.join(sorted(hosts))}"


CHECKS = (
    Check("ssh", ssh, vital=True),
    Check("clocks", clocks),
    Check("cgroups", cgroups),
    Check("health", health),
    Check("users", users, "users"),
    Check("munge", munge, "munge"),
    Check("slurm nodes", slurm_nodes, "slurm"),
    Check("srun", srun, "slurm"),
    Check("mpi", mpi, "openmpi"),
    Check("container", containers.container, "docker"),
    Check("swarm", containers.swarm, "swarm"),
    Check("k3s", kubernetes.k3s, "k3s"),
)
