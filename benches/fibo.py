"""fibo against a program that opens a parallel region in every call, and over cut-offs: times and ratios.

The other program is written here and has the structure that is often met: `int` results, a threshold of 30 with plain
calls below it, and above it, in each call, `parallel` + `single` with one task for each of the two branches. Nested
regions get one thread each by default, so only the outermost two tasks ever run at the same time.

Run: python benches/fibo.py [--n 40] [--rounds 9] [--no-qemu]. The programs take turns and the shortest time counts, so
that other work on the machine falls out. With fewer idle processors than threads the ratio says little.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.run import run

SOURCE = Path(__file__).resolve().parent.parent / "modules/openmp/src/fibo.c"
FLAGS = ("-std=c11", "-O2", "-fopenmp")
QEMU = ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu")
CUTOFFS = (5, 10, 12, 15, 18, 20, 22, 24, 27, 30)
REGION_IN_EVERY_CALL = """
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
static int plain(int n) { return n < 2 ? n : plain(n - 1) + plain(n - 2); }
static int spread(int n)
{
    int left = 0, right = 0;
    if (n <= 30)
        return plain(n);
#pragma omp parallel
#pragma omp single
    {
#pragma omp task shared(left)
        left = spread(n - 1);
#pragma omp task shared(right)
        right = spread(n - 2);
    }
    return left + right;
}
int main(int argc, char **argv)
{
    double start = omp_get_wtime();
    int result = spread(atoi(argv[argc - 1]));
    printf("fibo = %d\\ntime: %.3f s\\n", result, omp_get_wtime() - start);
    return 0;
}
"""


@dataclass(frozen=True)
class Program:
    """One way to compute: what to call and with how many threads."""

    name: str
    argv: tuple[str, ...]
    threads: int

    def seconds(self, n: int) -> float:
        """The time that the program itself prints for fibo(n)."""
        done = run((*self.argv, str(n)), env={"OMP_NUM_THREADS": str(self.threads)})
        found = re.search(r"time: ([0-9.]+) s", done.stdout)
        assert found, done.stdout
        return float(found[1])

    def result(self, n: int) -> int:
        """The number that the program prints for fibo(n)."""
        done = run((*self.argv, str(n)), env={"OMP_NUM_THREADS": str(self.threads)})
        return int(done.stdout.splitlines()[0].split("=")[1])


def compiled(compiler: str, folder: Path) -> tuple[str, str]:
    """(fibo, the other program), built with the same flags; the paths of the programs."""
    other = folder / "region-in-every-call.c"
    other.write_text(REGION_IN_EVERY_CALL, encoding="ascii")
    ours, theirs = folder / f"{compiler}-fibo", folder / f"{compiler}-regions"
    run((compiler, *FLAGS, "-o", ours, SOURCE))
    run((compiler, *FLAGS, "-o", theirs, other))
    return str(ours), str(theirs)


def shortest(programs: Sequence[Program], n: int, rounds: int) -> dict[Program, float]:
    """The shortest time of each program in seconds; they take turns."""
    times: dict[Program, list[float]] = {program: [] for program in programs}
    for _ in range(rounds):
        for program in programs:
            times[program].append(program.seconds(n))
    return {program: min(found) for program, found in times.items()}


def compare(title: str, ours: str, theirs: str, prefix: tuple[str, ...], n: int, rounds: int) -> None:
    """Print both programs' seconds and their ratio for 1, 2 and 4 threads."""
    print(f"\n{title}, fibo({n}), shortest of {rounds}")
    print(f"{'threads':>7}  {'fibo':>9}  {'region in every call':>20}  ratio")
    pairs = [
        (Program("fibo", (*prefix, ours), threads), Program("regions", (*prefix, theirs), threads))
        for threads in (1, 2, 4)
    ]
    found = shortest([program for pair in pairs for program in pair], n, rounds)
    for own, other in pairs:
        ratio = found[other] / found[own]
        print(f"{own.threads:>7}  {found[own]:>7.3f} s  {found[other]:>18.3f} s  {ratio:.2f}")


def sweep(ours: str, n: int, rounds: int) -> None:
    """Print fibo's seconds for each cut-off, with as many threads as the machine has processors."""
    threads = os.cpu_count() or 1
    print(f"\ncut-offs, fibo({n}), {threads} threads, shortest of {rounds}")
    programs = {cutoff: Program("fibo", (ours, "--cutoff", str(cutoff)), threads) for cutoff in CUTOFFS}
    found = shortest(list(programs.values()), n, rounds)
    best = min(found.values())
    for cutoff, program in programs.items():
        print(f"{cutoff:>7}  {found[program]:>7.3f} s  {found[program] / best:>6.2f} of the best")


def main() -> None:
    """Compile, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-qemu", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = compiled("gcc", Path(name))
        for n in (46, 47):
            print(f"fibo({n}): {Program('', (ours,), 2).result(n)}, int results: {Program('', (theirs,), 2).result(n)}")
        compare("native", ours, theirs, (), given.n, given.rounds)
        sweep(ours, given.n, given.rounds)
        if given.no_qemu or not (shutil.which(QEMU[0]) and shutil.which("aarch64-linux-gnu-gcc")):
            return
        compare(
            "arm64 under qemu-user", *compiled("aarch64-linux-gnu-gcc", Path(name)), QEMU, given.n - 2, given.rounds
        )


if __name__ == "__main__":
    main()
