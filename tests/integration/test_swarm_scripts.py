"""What a node of a swarm runs at its boot, against the real daemon: scripts of the image in a network namespace, with a
stand-in for docker that records how it is called."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.config import load
from kestrelpi.nodes.files import FRESH, RuntimeFiles
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from tests.integration.namespaces import Namespace, network
from tests.integration.servers import SOURCE, serve
from tests.waiting import until

SCRIPTS = (
    SOURCE / "overlays/node/usr/local/lib/kestrelpi/kept",
    *sorted((SOURCE / "modules/swarm/overlay/node/usr/local/lib/kestrelpi").iterdir()),
)
MACS = {n: f"dc:a6:32:00:00:0{n}" for n in (1, 2)}
CONFIG = """\
cluster: test
network: {address: 10.77.0.1/24}
images: {default: {modules: [swarm], options: {data: {path: /mnt/data}}}}
services: {nfs: {backend: none}, dhcp: {backend: none}}
"""
BOOT = """\
set -eu
for one in /run /usr/local /mnt; do mount -t tmpfs tmpfs $one; done
cp -a /etc/alternatives /run; mount -t tmpfs tmpfs /etc; mv /run/alternatives /etc
mkdir -p /run/kestrelpi /usr/local/lib/kestrelpi /usr/local/bin
for one in SERVER=10.77.0.1 HTTP_PORT=8067 ADDRESS=10.77.0.1{n}; do echo "KESTRELPI_$one"; done >/run/kestrelpi/boot.env
tar -xf {archive} -C / etc/kestrelpi etc/machine-id
cp {scripts} /usr/local/lib/kestrelpi
PATH=/usr/local/lib/kestrelpi:$PATH
docker=/mnt/data/docker
"""
DOCKER = """\
cat >/usr/local/bin/docker <<'END'
#!/bin/sh
echo "$*" >>/run/called
case $* in
    *LocalNodeState*) cat /run/state ;;
    *ControlAvailable*) echo true ;;
    *Cluster.ID*) echo newswarm ;;
    *Swarm.Error*) echo "$(cat /run/error)" ;;
    "swarm join-token"*) echo SWMTKN-1-digest-secret ;;
    "node ls"*) printf 'one rpi1 Ready\\ntwo rpi2 Down\\nthree rpi2 Ready\\nfour rpi4 Down\\n' ;;
    "swarm init"* | "swarm join "*) echo active >/run/state ;;
    "swarm leave"*) echo inactive >/run/state ;;
esac
END
chmod +x /usr/local/bin/docker
PATH=/usr/local/bin:$PATH
echo inactive >/run/state
: >/run/error
printf '#!/bin/sh\\necho {name}\\n' >/usr/local/bin/hostname; chmod +x /usr/local/bin/hostname
run_swarm() {
    # It looks once: when it would sleep, it ends.
    printf '#!/bin/sh\\nkill $PPID\\n' >/usr/local/bin/sleep; chmod +x /usr/local/bin/sleep
    swarm >/run/said 2>&1 || [ $? = 143 ]
    cat /run/said; grep -v -e info -e 'node ls' /run/called || [ $? = 1 ]
}
"""


class Board:
    """A node; each `boot` is one: it has nothing of the last."""

    def __init__(self, n: int, namespace: Namespace, root: Path) -> None:
        self.n, self.namespace, self.root = n, namespace, root

    def boot(self, commands: str, docker: bool = False, archive: str = "") -> str:
        """What the commands say after such a boot."""
        text = BOOT.replace("{n}", str(self.n)).replace("{archive}", archive or f"{self.root}/rpi{self.n}.tar")
        text = text.replace("{scripts}", " ".join(map(str, SCRIPTS)))
        if docker:
            text += DOCKER.replace("{name}", f"rpi{self.n}")
        return self.namespace.run("sh", "-c", text + commands).stdout

    def refused(self, commands: str) -> str:
        with pytest.raises(run.CommandFailed) as caught:
            self.boot(commands)
        return caught.value.detail


class Site:
    """The frontend and two nodes."""

    def __init__(self, root: Path, clients: dict[str, Namespace]) -> None:
        self.root = root
        self.first, self.second = (Board(n, clients[f"rpi{n}"], root) for n in (1, 2))

    def log(self) -> str:
        return (self.root / "serve.log").read_text()

    def forget(self) -> None:
        """Nothing was ever left."""
        for path in (Paths(self.root).secrets / "kept", Paths(self.root).secrets / "modules/swarm"):
            for file in path.rglob("*"):
                if file.is_file():
                    file.unlink()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("swarm")
    paths = Paths(root)
    paths.etc.mkdir(parents=True)
    paths.config.write_text(CONFIG)
    paths.state.mkdir(parents=True)
    rows = (f'  rpi{n}: {{mac: "{mac}", group: rpi, address: 10.77.0.1{n}}}\n' for n, mac in MACS.items())
    paths.registry.write_text("nodes:\n" + "".join(rows))
    config = load(paths.config)
    registry = Registry.load(paths.registry, config)
    for node in registry:
        (root / f"{node.name}.tar").write_bytes(RuntimeFiles(paths, config, registry).archive(node))
    with network("10.77.0.1/24", {f"rpi{n}": mac for n, mac in MACS.items()}) as (server, clients):
        for n in MACS:
            clients[f"rpi{n}"].ip("address", "add", f"10.77.0.1{n}/24", "dev", "eth0")
        process = serve(root, server)
        found = Site(root, clients)
        try:
            until(lambda: "Started server" in found.log(), found.log, 60)
            yield found
        finally:
            run.stop(process, 60)


@pytest.fixture
def site(running: Site) -> Site:
    running.forget()
    return running


JOINED = """
mkdir -p $docker/swarm/certificates $docker/swarm/worker
echo '{}' >$docker/swarm/docker-state.json; echo certificate >$docker/swarm/certificates/swarm-node.crt
head -c 3000000 /dev/zero >$docker/swarm/raft; echo tasks >$docker/swarm/worker/tasks.db
swarm-state leave
"""
SHOW = "cd $docker; find swarm -type f | sort; cat swarm/certificates/*; wc -c <swarm/raft\n"


def test_a_node_has_its_part_in_the_swarm_back_after_a_reboot(site: Site) -> None:
    assert "joins for the first time" in site.first.boot("swarm-state fetch\n" + JOINED)
    said = site.first.boot("swarm-state fetch\n" + SHOW).splitlines()
    assert said == [
        "swarm/certificates/swarm-node.crt",
        "swarm/docker-state.json",
        "swarm/raft",
        "certificate",
        "3000000",
    ]
    # Another node has nothing of it.
    assert "joins for the first time" in site.second.boot("swarm-state fetch\n")


def test_what_did_not_change_is_not_left_again(site: Site) -> None:
    before = site.log().count("rpi1 left state")
    site.first.boot("swarm-state fetch\n" + JOINED + "swarm-state leave; swarm-state leave\n")
    assert site.log().count("rpi1 left state") == before + 1
    site.first.boot(
        "swarm-state fetch; swarm-state leave\n"
        "mkdir $docker/swarm/worker; echo new >$docker/swarm/worker/tasks.db; swarm-state leave\n"
        "echo new >>$docker/swarm/docker-state.json; swarm-state leave; swarm-state leave\n"
    )
    assert site.log().count("rpi1 left state") == before + 2


def test_the_empty_part_of_the_managers_log_costs_nothing(site: Site) -> None:
    grow = (
        "head -c 64000000 /dev/zero >$docker/swarm/raft; cp $docker/swarm/raft $docker/swarm/0.tmp; swarm-state leave\n"
    )
    site.first.boot("swarm-state fetch\n" + JOINED + grow)
    [kept] = (Paths(site.root).secrets / "kept").rglob("swarm-state")
    assert kept.stat().st_size < 10_000
    assert site.first.boot("swarm-state fetch\n" + SHOW).splitlines()[-1] == "64000000"
    assert site.first.boot("swarm-state fetch; ls $docker/swarm\n").split() == [
        "certificates",
        "docker-state.json",
        "raft",
    ]


def test_a_disk_goes_before_the_frontend_unless_it_was_another_nodes(site: Site) -> None:
    site.first.boot("swarm-state fetch\n" + JOINED)
    own = "mkdir -p $docker/swarm; echo newer >$docker/swarm/docker-state.json; cp /etc/machine-id $docker/swarm.node\n"
    show = "swarm-state fetch; cat $docker/swarm/docker-state.json\n"
    assert site.first.boot(own + show) == "newer\n"
    assert site.first.boot(own + "echo other >$docker/swarm.node\n" + show) == "{}\n"
    assert "first time" in site.second.boot(own + "echo other >$docker/swarm.node; swarm-state fetch; ls $docker\n")


def test_only_the_manager_says_how_to_join_and_only_with_its_key(site: Site) -> None:
    said = site.second.refused("echo evil | kept put swarm join\n")
    assert "403" in said
    assert "for rpi1 to leave, not for rpi2" in said
    assert site.second.boot("kept get swarm join\n") == ""
    site.first.boot("printf 'a b c' | kept put swarm join\n")
    assert site.second.boot("kept get swarm join\n") == "a b c"
    assert "not the key of rpi1" in site.first.refused(
        "cp /etc/machine-id /etc/kestrelpi/kept.key; kept get swarm join\n"
    )
    assert "no answer" in site.first.refused(
        "echo KESTRELPI_HTTP_PORT=1 >>/run/kestrelpi/boot.env; kept get swarm join\n"
    )


def test_a_frontend_that_cannot_tell_is_no_frontend_that_has_nothing(site: Site) -> None:
    """Or the node would join as a new one."""
    site.first.boot("swarm-state fetch\n" + JOINED)
    broken = Paths(site.root).etc / "modules/broken/module.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("name: broken\nnonsense: 1\n")
    time.sleep(FRESH)
    try:
        said = site.first.refused("kept get swarm state\n")
    finally:
        broken.unlink()
        broken.parent.rmdir()
    assert "503" in said
    assert "nonsense" in said
    time.sleep(FRESH)
    assert "certificate" in site.first.boot("swarm-state fetch\n" + SHOW)


def test_the_manager_makes_the_swarm_and_the_others_join_it(site: Site) -> None:
    said = site.second.boot("swarm-state fetch; run_swarm\n", docker=True)
    assert "waiting for rpi1 to make the swarm" in said
    assert "swarm join" not in said
    said = site.first.boot("swarm-state fetch; run_swarm\n", docker=True)
    assert "swarm init --advertise-addr 10.77.0.11 --listen-addr 10.77.0.11:2377\n" in said
    # The old entry of a name that is there again goes, and no other.
    assert [line for line in said.splitlines() if line.startswith("node rm")] == ["node rm two"]
    assert site.second.boot("kept get swarm join\n") == "newswarm SWMTKN-1-digest-secret 10.77.0.11:2377"
    said = site.second.boot("swarm-state fetch; run_swarm\n", docker=True)
    assert "swarm join --token SWMTKN-1-digest-secret --advertise-addr 10.77.0.12 10.77.0.11:2377\n" in said


def certificate(swarm: str) -> str:
    body = base64.b64encode(f"....O={swarm}....".encode()).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("swarm", "state", "error", "leaves"),
    [
        ("newswarm", "active", "", False),
        ("newswarm", "pending", "", False),
        ("newswarm", "error", "rpc error: the manager does not answer", False),
        ("oldswarm", "active", "", True),
        ("newswarm", "error", "certificate (1 - abc) not valid after today: x509: certificate has expired", True),
        ("newswarm", "error", "certificate removed: node removed from swarm", True),
    ],
)
def test_a_node_leaves_only_a_swarm_that_is_no_more_for_it(
    site: Site, swarm: str, state: str, error: str, leaves: bool
) -> None:
    site.first.boot("printf 'newswarm token 10.77.0.11:2377' | kept put swarm join\n")
    file = "$docker/swarm/certificates/swarm-node.crt"
    given = f"mkdir -p $docker/swarm/certificates\ncat >{file} <<END\n{certificate(swarm)}END\n"
    said = site.second.boot(f"{given}echo {state} >/run/state; echo '{error}' >/run/error\nrun_swarm\n", docker=True)
    calls = [line for line in said.splitlines() if line.startswith("swarm ")]
    assert calls == (
        ["swarm leave --force", "swarm join --token token --advertise-addr 10.77.0.12 10.77.0.11:2377"] * leaves
    )


FRONTEND_SCRIPT = SOURCE / "modules/swarm/frontend/install.d/60-swarm"


def on_frontend(root: Path, manager: str, ipvs: bool) -> str:
    """What the frontend's script says, with stand-ins for docker and modprobe; /sys knows no kernel module."""
    tools = root / "bin"
    tools.mkdir()
    docker = DOCKER[DOCKER.index("#!/bin/sh") : DOCKER.index("END\nchmod")].replace("/run/", f"{root}/")
    for name, text in {"docker": docker, "modprobe": f"#!/bin/sh\nexit {0 if ipvs else 1}\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (root / "state").write_text("inactive\n")
    env = {"KESTRELPI_ROOT": str(root), "KESTRELPI_SERVER": "10.77.0.1", "KESTRELPI_SWARM_MANAGER": manager}
    words = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs /sys && exec {FRONTEND_SCRIPT}"]
    return run.run(words, env={**env, "PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin"}).stdout


def test_the_frontend_makes_the_swarm_when_it_manages_it(tmp_path: Path) -> None:
    on_frontend(tmp_path, "frontend", ipvs=True)
    called = (tmp_path / "called").read_text()
    assert "swarm init --advertise-addr 10.77.0.1 --listen-addr 10.77.0.1:2377\n" in called
    join = Paths(tmp_path).secrets / "modules/swarm/join"
    assert join.read_text() == "newswarm SWMTKN-1-digest-secret 10.77.0.1:2377"
    assert (join.stat().st_mode & 0o777, join.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_the_frontend_does_nothing_when_a_node_manages(tmp_path: Path) -> None:
    assert on_frontend(tmp_path, "", ipvs=False) == "a node manages the swarm\n"
    assert not (tmp_path / "called").exists()


def test_a_frontend_without_ipvs_says_so(tmp_path: Path) -> None:
    with pytest.raises(run.CommandFailed) as caught:
        on_frontend(tmp_path, "frontend", ipvs=False)
    assert "this machine's kernel has no IPVS (ip_vs)" in caught.value.detail
    assert not (tmp_path / "called").exists()
