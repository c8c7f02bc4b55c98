"""`kestrelpi reconfigure` below a root of the test's own, with the real scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.frontend.machine import Machine
from kestrelpi.frontend.state import State
from kestrelpi.paths import Paths, data_dir
from kestrelpi.reconfigure import Frontend, Selection, carry_out, install, make_plan, pending_installs, stage
from kestrelpi.run import CommandFailed, run, start, stop
from kestrelpi.users.changing import GROUP
from tests.program import program
from tests.waiting import until

CONFIG = "images: {default: {modules: []}}\n"
NODES = """\
nodes:
  rpi1: {mac: dc:a6:32:00:00:01, group: rpi, address: 10.77.0.11}
  rpi2: {mac: dc:a6:32:00:00:02, group: rpi, address: 10.77.0.12}
"""
BLOCK = """\
# kestrelpi begin: written by kestrelpi reconfigure, don't edit up to the end mark
10.77.0.1\tfrontend.cluster.internal frontend
10.77.0.11\trpi1.cluster.internal rpi1
10.77.0.12\trpi2.cluster.internal rpi2
# kestrelpi end
"""
DEBIAN = Machine(systemd=True, nfs="kernel", program="/opt/kestrelpi", privileged=True)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    write(paths.config, CONFIG)
    write(paths.registry, NODES)
    write(tmp_path / "etc/hosts", "127.0.0.1 localhost\n# mine")
    return paths


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def kestrelpi(paths: Paths, *words: str) -> str:
    """Standard output; raises CommandFailed with the messages."""
    return run(program(paths.root, *words), cwd=data_dir()).stdout


def tree(paths: Paths) -> Mapping[str, tuple[int, int]]:
    """Every file but logs and locks, with inode and time."""
    return {
        str(one): (one.stat().st_ino, one.stat().st_mtime_ns)
        for one in paths.root.rglob("*")
        if one.is_file() and paths.log not in one.parents and paths.run not in one.parents
    }


class NoImages:
    def stale(self, image: str) -> tuple[str, ...]:
        return ()

    def build(self, image: str, force: bool) -> str:
        raise AssertionError


def front(paths: Paths, machine: Machine = DEBIAN) -> Frontend:
    return Frontend(paths, config.load(paths.config), machine, None, NoImages())


def staged(paths: Paths, machine: Machine = DEBIAN) -> dict[str, str]:
    found = stage(front(paths, machine), paths.log, lambda what, seconds: None)
    return {name: content.link or content.data.decode() for name, content in found.items()}


def test_twice_changes_nothing_the_second_time(paths: Paths) -> None:
    first = json.loads(kestrelpi(paths, "--json", "reconfigure", "--all"))
    assert [(one["path"], one["change"]) for one in first["files"]] == [("/etc/hosts", "replace")]
    assert (paths.root / "etc/hosts").read_text() == f"127.0.0.1 localhost\n# mine\n{BLOCK}"
    before = tree(paths)
    second = json.loads(kestrelpi(paths, "--json", "reconfigure", "--all"))
    assert (second["files"], second["images"], second["reloads"]) == ([], {}, [])
    assert tree(paths) == before


def test_a_plan_is_a_diff_and_changes_nothing(paths: Paths) -> None:
    before = tree(paths)
    text = kestrelpi(paths, "reconfigure", "--frontend", "--plan")
    assert "replace /etc/hosts\n" in text
    assert "  +10.77.0.11\trpi1.cluster.internal rpi1\n" in text
    assert "\x1b" not in text, "a pipe gets no colours"
    document = json.loads(kestrelpi(paths, "--json", "reconfigure", "--frontend", "--plan"))
    assert "+10.77.0.11\trpi1.cluster.internal rpi1\n" in document["files"][0]["diff"]
    assert tree(paths) == before
    assert not paths.log.exists()


def test_the_block_of_hosts_stays_where_it_stands(paths: Paths) -> None:
    hosts = write(
        paths.root / "etc/hosts", "127.0.0.1 localhost\n# kestrelpi begin\nold\n# kestrelpi end\n192.0.2.1 printer\n"
    )
    kestrelpi(paths, "reconfigure", "--frontend")
    assert hosts.read_text() == f"127.0.0.1 localhost\n{BLOCK}192.0.2.1 printer\n"


@pytest.mark.parametrize(
    "text",
    ["# kestrelpi begin\nmine\n", "# kestrelpi end\nmine\n", "# kestrelpi begin\n# kestrelpi begin\n# kestrelpi end\n"],
)
def test_marks_that_do_not_match_lose_nothing(paths: Paths, text: str) -> None:
    hosts = write(paths.root / "etc/hosts", text)
    with pytest.raises(CommandFailed) as caught:
        kestrelpi(paths, "reconfigure", "--frontend")
    assert caught.value.returncode == 1
    assert "don't match: mend or remove them" in caught.value.detail
    assert "Traceback" not in caught.value.detail
    assert hosts.read_text() == text


def test_a_debian_machine_gets_exports_and_the_unit(paths: Paths) -> None:
    files = staged(paths)
    assert files["/etc/exports.d/kestrelpi.exports"].splitlines()[1].startswith(f"{paths.images} 10.77.0.0/24(ro,")
    assert files["/etc/nfs.conf.d/kestrelpi.conf"].splitlines()[1:] == ["[nfsd]", "port=2049", "[mountd]", "port=20048"]
    unit = files["/etc/systemd/system/kestrelpi.service"]
    assert "ExecStart=/opt/kestrelpi serve\n" in unit
    assert "@" not in unit
    assert files["/etc/systemd/system/multi-user.target.wants/kestrelpi.service"] == "../kestrelpi.service"
    container = replace(DEBIAN, systemd=False, nfs="ganesha")
    assert list(staged(paths, container)) == ["/etc/hosts"]


def test_keys_in_the_homes_of_the_clusters_users_do_not_open_the_frontend(paths: Paths) -> None:
    name = "/etc/ssh/sshd_config.d/60-kestrelpi-users.conf"
    assert name not in staged(paths)
    write(paths.config, "images: {default: {modules: [users]}}\n")
    lines = [line.strip() for line in staged(paths)[name].splitlines() if not line.startswith("#")]
    assert lines[0] == f"Match Group {GROUP}"
    assert "AuthorizedKeysFile /etc/kestrelpi/authorized_keys/%u" in lines
    assert lines[-1] == "Match all", "what other files say after it is for all users"


def test_a_switch_to_ganesha_takes_the_exports_away(paths: Paths) -> None:
    kernel, ganesha = (replace(DEBIAN, systemd=False, privileged=False, nfs=kind) for kind in ("kernel", "ganesha"))
    exports = paths.root / "etc/exports.d/kestrelpi.exports"
    for machine, there in ((kernel, True), (ganesha, False)):
        place = front(paths, machine)
        chosen = Selection(frontend=True, images=())
        plan = make_plan(place, chosen, stage(place, paths.log, lambda what, seconds: None))
        carry_out(place, plan, chosen, lambda what, seconds: None)
        assert exports.exists() is there


def test_the_users_scripts(paths: Paths) -> None:
    own = paths.etc / "frontend/configure.d"
    write(own / "30-hosts", "")
    write(
        own / "90-mine",
        "#!/bin/bash\n# needs: KESTRELPI_STAGE KESTRELPI_CLUSTER\nset -eu\n"
        'mkdir -p "$KESTRELPI_STAGE/etc"\n'
        'echo "$KESTRELPI_CLUSTER ${KESTRELPI_SERVER-unset} ${HOME}" >"$KESTRELPI_STAGE/etc/mine"\n',
        0o755,
    )
    write(
        own / "91-template.j2",
        "#!/bin/bash\n# needs: KESTRELPI_STAGE\nset -eu\n"
        "echo '{% for node in nodes %}{{ node.name }} {% endfor %}' >\"$KESTRELPI_STAGE/etc/names\"\n",
        0o755,
    )
    files = staged(paths, replace(DEBIAN, systemd=False, nfs="none"))
    assert files == {"/etc/mine": "kestrelpi unset /root\n", "/etc/names": "rpi1 rpi2 \n"}


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("#!/bin/sh\n", 0o644, "this script is not executable"),
        ("#!/bin/sh\n# needs: KESTRELPI_COLOUR\n", 0o755, "the script needs KESTRELPI_COLOUR"),
        ("#!/bin/sh\necho the reason\nexit 7\n", 0o755, "the reason"),
    ],
)
def test_a_script_that_cannot_run_is_named(paths: Paths, text: str, mode: int, said: str) -> None:
    script = write(paths.etc / "frontend/configure.d/90-mine", text, mode)
    with pytest.raises(UserError) as caught:
        staged(paths)
    assert said in str(caught.value)
    assert script.name in str(caught.value)


SERVE = """\
import pathlib, signal, sys, time
from kestrelpi.files import locked
run = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGHUP, lambda *_: (run / "hup").touch())
with locked(run / "serve.pid", "serve"):
    (run / "up").touch()
    while True:
        time.sleep(0.05)
"""
"""Holds its pid file as `kestrelpi serve` does, and notes a SIGHUP."""


def wait_for(path: Path) -> None:
    until(path.exists, path, 20)


def test_a_running_serve_is_told_once(paths: Paths) -> None:
    paths.run.mkdir(parents=True)
    serve = start([sys.executable, "-c", SERVE, paths.run], cwd=data_dir())
    try:
        wait_for(paths.run / "up")
        first = json.loads(kestrelpi(paths, "--json", "reconfigure"))
        assert first["reloads"] == [f"reload kestrelpi serve (process {serve.pid})"]
        wait_for(paths.run / "hup")
        assert json.loads(kestrelpi(paths, "--json", "reconfigure"))["reloads"] == []
        paths.config.write_text(f"{CONFIG}cluster: other\n")
        assert len(json.loads(kestrelpi(paths, "--json", "reconfigure"))["reloads"]) == 1
    finally:
        stop(serve)


def test_install_scripts_run_once_for_each_version(paths: Paths) -> None:
    own = paths.etc / "frontend/install.d"
    write(own / "10-packages", "")
    script = write(own / "50-mine", f"#!/bin/sh\necho ran >>{paths.root}/ran\n", 0o755)
    ran = paths.root / "ran"
    for text, times in (("", 1), ("", 1), ("# changed\n", 2)):
        script.write_text(script.read_text() + text)
        install(front(paths), paths.log, lambda what, seconds: None)
        assert ran.read_text() == "ran\n" * times
    assert not pending_installs(front(paths, replace(DEBIAN, privileged=False)), State())


def test_init_writes_the_default_configuration(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    with pytest.raises(CommandFailed) as caught:
        kestrelpi(paths, "reconfigure", "--frontend")
    assert caught.value.returncode == 3
    assert f"kestrelpi --root {tmp_path} reconfigure --frontend --init" in caught.value.detail
    kestrelpi(paths, "reconfigure", "--frontend", "--init")
    assert config.load(paths.config) == config.Config()


def test_wrong_usage_and_wrong_names(paths: Paths) -> None:
    for words, status, said in (
        (("--image", "gone"), 1, "there is no image 'gone'"),
        (("--image", "default"), 1, "has never been built"),
        (("--init", "--plan"), 2, "can't be planned"),
    ):
        with pytest.raises(CommandFailed) as caught:
            kestrelpi(paths, "reconfigure", *words)
        assert (caught.value.returncode, said in caught.value.detail) == (status, True), caught.value.detail


def test_the_scripts_pass_shellcheck() -> None:
    scripts = [one for one in (data_dir() / "phases/frontend").glob("*.d/*") if not one.name.endswith(".j2")]
    assert len(scripts) >= 4
    run(["shellcheck", *scripts, data_dir() / "etc/completion/kestrelpi.bash"])
