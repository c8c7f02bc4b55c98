"""fibo as the openmp module builds it for the image, run under qemu-user; its job files, read by what reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from kestrelpi.paths import data_dir
from kestrelpi.run import CommandFailed, run

MODULE = data_dir() / "modules/openmp"
SCRIPT = MODULE / "node/post-install.d/50-fibo"
SHARE = "usr/local/share/kestrelpi/fibo"
QEMU = ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu")


def fibonacci(n: int) -> int:
    """The iterative definition, to compare with."""
    one, two = 0, 1
    for _ in range(n):
        one, two = two, one + two
    return one


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image root in which the module's script has run."""
    root = tmp_path_factory.mktemp("root")
    run([SCRIPT], env={"KESTRELPI_ROOT": str(root), "KESTRELPI_MODULE": str(MODULE)})
    return root


@pytest.fixture(scope="module")
def fibo(image: Path) -> tuple[str, ...]:
    """The installed arm64 program, and how to run it here."""
    return (*QEMU, str(image / "usr/local/bin/fibo"))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> str:
    """fibo for this machine: what takes minutes under emulation takes seconds."""
    program = tmp_path_factory.mktemp("native") / "fibo"
    run(["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fopenmp", "-o", program, MODULE / "src/fibo.c"])
    return str(program)


def shell(command: Sequence[str], redirection: str) -> list[str]:
    """argv that runs `command` with a redirection of bash (standard input closed, from a file, a pipe)."""
    return ["bash", "-c", f'exec "$@" {redirection}', "bash", *command]


def refused(argv: Sequence[str], stdin: str | None = None) -> str:
    """What a command says that must end with status 2 and print no result."""
    with pytest.raises(CommandFailed) as caught:
        run(argv, stdin=stdin)
    assert caught.value.returncode == 2
    assert "fibo(" not in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize("n", [0, 1, 2, 3, 19, 20, 21, 22, 30])
def test_number_alone(fibo: tuple[str, ...], n: int) -> None:
    assert run([*fibo, "--quiet", str(n)]).stdout == f"{fibonacci(n)}\n"


@pytest.mark.parametrize("n", [0, 40])
def test_result_and_time_are_printed(fibo: tuple[str, ...], n: int) -> None:
    first, second = run([*fibo, str(n)]).stdout.splitlines()
    assert first == f"fibo({n}) = {fibonacci(n)}"
    assert re.fullmatch(r"time: \d+\.\d{3} s, threads: \d+", second)


@pytest.mark.parametrize("n", [46, 47, 48])
def test_results_around_and_beyond_32_bits(native: str, n: int) -> None:
    assert run([native, "-q", str(n)]).stdout == f"{fibonacci(n)}\n"


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_by_option_and_by_environment(fibo: tuple[str, ...], threads: int) -> None:
    by_option = run([*fibo, "--threads", str(threads), "25"], env={"OMP_NUM_THREADS": "5"}).stdout
    by_environment = run([*fibo, "25"], env={"OMP_NUM_THREADS": str(threads)}).stdout
    for said in (by_option, by_environment):
        assert said.startswith("fibo(25) = 75025\n")
        assert said.endswith(f"threads: {threads}\n")


@pytest.mark.parametrize("cutoff", [1, 2, 15, 93])
def test_any_cutoff_gives_the_same_result(fibo: tuple[str, ...], cutoff: int) -> None:
    assert run([*fibo, "-q", "-c", str(cutoff), "18"]).stdout == "2584\n"


@pytest.mark.parametrize("text", ["20", "20\n", "  20  \r\n\n", "\n\n\t20" + " " * 100, "020"])
def test_number_from_standard_input(fibo: tuple[str, ...], text: str) -> None:
    assert run([*fibo, "-q"], stdin=text).stdout == "6765\n"


@pytest.mark.parametrize(
    "text",
    [
        "forty",
        "40abc",
        "40 41",
        "40\n41\n",
        "-1",
        "+40",
        "4.0",
        "0x28",
        "94",
        "4294967297",
        "9" * 31,
        "1" * 500,
        "2\0",
        "\0",
    ],
)
def test_garbage_on_standard_input_is_refused(fibo: tuple[str, ...], text: str) -> None:
    said = refused([*fibo], stdin=text)
    assert re.search(r"N must be|one whole number", said)


@pytest.mark.parametrize("argument", ["", " ", "forty", "40abc", "94", "18446744073709551656", "4e1", "١"])
def test_garbage_as_argument_is_refused(fibo: tuple[str, ...], argument: str) -> None:
    assert re.search(r"N must be .*from 0 to 93", refused([*fibo, argument]))


def test_without_a_terminal_and_without_a_number(fibo: tuple[str, ...]) -> None:
    assert "there is no N" in refused(shell(fibo, "</dev/null"))
    assert "standard input can't be read" in refused(shell(fibo, "<&-"))
    assert "standard input can't be read" in refused(shell(fibo, "</"))
    assert "one whole number" in refused(shell(fibo, "</dev/zero"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-5"], "can't be negative"),
        (["40", "41"], "only one N"),
        (["--frobnicate", "4"], "no such option, .*'--frobnicate'"),
        (["--threads"], "needs a value"),
        (["--threads", "0", "4"], "--threads must be from 1 to 1024: '0'"),
        (["--threads", "many", "4"], "--threads must be a whole number"),
        (["--cutoff", "94", "4"], "--cutoff must be from 1 to 93"),
    ],
)
def test_wrong_usage(fibo: tuple[str, ...], arguments: list[str], reason: str) -> None:
    said = refused([*fibo, *arguments])
    assert re.search(reason, said)
    assert "fibo --help" in said


def test_output_that_cannot_be_written(fibo: tuple[str, ...]) -> None:
    for argument in ("10", "--help"):
        with pytest.raises(CommandFailed) as caught:
            run(shell([*fibo, argument], ">/dev/full"))
        assert caught.value.returncode == 1
        assert "can't be written: No space left on device" in caught.value.detail


def test_help_says_that_the_recursion_is_meant(fibo: tuple[str, ...]) -> None:
    said = run([*fibo, "--help"]).stdout
    assert "on purpose" in said
    assert "default: 20" in said


def test_built_for_arm64_and_for_an_older_c_library(image: Path) -> None:
    """A trixie frontend must not bind fibo to symbols that bookworm's C library (2.36) lacks."""
    program = image / "usr/local/bin/fibo"
    assert "AArch64" in run(["readelf", "-h", program]).stdout
    needed = run(["readelf", "--version-info", program]).stdout
    versions = {(int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", needed)}
    assert versions
    assert max(versions) <= (2, 36)


def test_the_containers_program_needs_nothing_else(image: Path) -> None:
    program = image / SHARE / "fibo"
    assert "NEEDED" not in run(["readelf", "-d", program]).stdout
    assert run([QEMU[0], program, "-q", "25"]).stdout == "75025\n"
    assert "FROM scratch" in (image / SHARE / "Dockerfile").read_text()


def test_a_second_build_gives_the_same_bytes(image: Path, tmp_path: Path) -> None:
    run([SCRIPT], env={"KESTRELPI_ROOT": str(tmp_path), "KESTRELPI_MODULE": str(MODULE)})
    for path in ("usr/local/bin/fibo", f"{SHARE}/fibo"):
        assert (tmp_path / path).read_bytes() == (image / path).read_bytes()


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for program in ("bash", "dpkg"):
        (tools / program).symlink_to(f"/usr/bin/{program}")
    with pytest.raises(CommandFailed, match="status 1") as caught:
        run(
            ["/bin/bash", SCRIPT],
            env={"PATH": str(tools), "KESTRELPI_ROOT": "/nowhere", "KESTRELPI_MODULE": str(MODULE)},
        )
    assert re.search(r"compiler \S*gcc is not installed; run: apt-get install gcc", caught.value.detail)


def test_folders_that_the_script_reads_are_declared_inputs() -> None:
    """Or an edited source would leave the old fibo in the image."""
    text = SCRIPT.read_text()
    declared = set(re.findall(r"^# input: (.*)$", text, re.MULTILINE)[0].split())
    assert declared == set(re.findall(r"KESTRELPI_MODULE\"?/([a-z]+)/", text))


def test_slurm_scripts_give_each_task_its_threads(image: Path, tmp_path: Path) -> None:
    """Run with a stand-in for srun, as Slurm would after reading the #SBATCH lines."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\necho "threads $OMP_NUM_THREADS: $*"\n')
    srun.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "4", "SLURM_ARRAY_TASK_ID": "33"}
    share = image / SHARE
    assert run([share / "fibo.sbatch"], env=env).stdout == "threads 4: --cpus-per-task=4 fibo 40\n"
    assert run([share / "fibo.sbatch", "44"], env=env).stdout == "threads 4: --cpus-per-task=4 fibo 44\n"
    assert run([share / "fibo-array.sbatch"], env=env).stdout == "threads 4: --cpus-per-task=4 fibo 33\n"
    assert "#SBATCH --cpus-per-task=4\n" in (share / "fibo.sbatch").read_text()
    assert "#SBATCH --array=30-40\n" in (share / "fibo-array.sbatch").read_text()


def test_container_jobs_end_after_one_run(image: Path) -> None:
    stack = yaml.safe_load((image / SHARE / "fibo-stack.yml").read_text())
    service = stack["services"]["fibo"]
    assert service["deploy"]["restart_policy"] == {"condition": "none"}
    assert service["command"] == ["40"]
    assert "ports" not in service
    job = yaml.safe_load((image / SHARE / "fibo-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["args"] == ["40"]


def test_scripts_pass_shellcheck(image: Path) -> None:
    run(["shellcheck", SCRIPT, *sorted((MODULE / "jobs").glob("*.sbatch"))])
