"""Two Pis that nobody has seen: they boot, are registered, and compute."""

from __future__ import annotations

import subprocess

from kestrelpi.lab import demo
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.identity import Secrets, machine_id
from tests.boot.conftest import TwoPis
from tests.program import program

IDENTITY = "hostname; cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; ip -4 -br address show dev eth0"


def test_each_computes(two: TwoPis) -> None:
    cluster = two.cluster
    for node in two.nodes:
        boot = boots.read(cluster.paths.boots, node.mac)[-1]
        done = demo.compute(cluster.connections, node, boot)
        assert done.result == 102334155


def test_each_is_who_it_should_be(two: TwoPis) -> None:
    for node in two.nodes:
        name, machine, key, address = two.cluster.ssh(node, IDENTITY).splitlines()
        assert name == node.name
        assert machine == machine_id(node.mac, two.cluster.config.cluster)
        assert key.split()[:2] == Secrets(two.cluster.paths).host_key(node.mac).public_text.split()[:2]
        assert f" {node.address}/" in address


def test_its_serial_is_the_one_that_its_boot_loader_told(two: TwoPis) -> None:
    serials = {one.mac: one.serial for one in two.cluster.lab.states()}
    for node in two.nodes:
        assert node.serial == serials[node.mac]
        assert two.cluster.ssh(node, "tr -d '\\0' </proc/device-tree/serial-number").endswith(node.serial)


def test_no_unit_failed(two: TwoPis) -> None:
    for node in two.nodes:
        assert two.cluster.ssh(node, "systemctl --failed --plain --no-legend") == ""


def test_the_root_is_an_overlay_and_cgroups_have_memory(two: TwoPis) -> None:
    for node in two.nodes:
        assert two.cluster.ssh(node, "findmnt -n -o FSTYPE /") == "overlay"
        assert "memory" in two.cluster.ssh(node, "cat /sys/fs/cgroup/cgroup.controllers").split()


def test_programs_have_their_capabilities_and_everybody_may_ping(two: TwoPis) -> None:
    """NFS carries no capabilities: the initramfs gives them back, or squashfs kept them."""
    for node in two.nodes:
        assert two.cluster.ssh(node, "getcap /usr/bin/ping") == "/usr/bin/ping cap_net_raw=ep"
        assert two.cluster.ssh(node, "cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "2147483647"]
        server = two.cluster.config.listen
        said = two.cluster.ssh(node, f"setpriv --reuid=65534 --clear-groups ping -c 1 -W 20 {server}")
        assert "1 received" in said


def test_the_root_is_mounted_as_its_image_says(two: TwoPis) -> None:
    below = {"squashfs": "lowerdir=/lower/20-changes:/lower/10-base,", "nfs": "lowerdir=/lower,"}
    for node in two.nodes:
        kind = two.cluster.config.images[node.image_of(two.cluster.config)].root
        assert below[kind] in two.cluster.ssh(node, "findmnt -n -o OPTIONS /")


def test_modules_of_software_can_be_loaded(two: TwoPis) -> None:
    said = two.cluster.ssh(two.nodes[0], "bash -lc 'module load fibo openmpi && echo $FIBO_HOME $SLURM_MPI_TYPE'")
    assert said == "/usr/local/share/kestrelpi/fibo pmix"


def test_commands_share_a_connection_that_does_not_outlive_its_process(two: TwoPis) -> None:
    cluster, node = two.cluster, two.nodes[0]
    count = "pgrep -c -x -f 'sshd: root@notty'"
    assert [cluster.ssh(node, count) for _ in range(3)] == ["1", "1", "1"]
    with subprocess.Popen(program(cluster.paths.root, "verify"), stdout=subprocess.DEVNULL) as verify:
        cluster.until(node, count, lambda said: said == "2")
        verify.kill()
    cluster.until(node, count, lambda said: said == "1")


def test_a_boot_writes_little_to_the_ram(two: TwoPis) -> None:
    for node in two.nodes:
        used = two.cluster.ssh(node, "df -k --output=used / | tail -n 1")
        assert int(used) < 32 * 1024


def test_every_stage_was_reported(two: TwoPis) -> None:
    for node in two.nodes:
        stages = boots.read(two.cluster.paths.boots, node.mac)[-1].stages
        assert set(Stage) - set(stages) <= {Stage.WAITING, Stage.FAILED}
        assert Stage.FAILED not in stages
