"""Time the evaluation beside its peers, each job in a process of its own, and print one table.

    python benchmarks/evaluation.py [--trials LIST] [--seed N] [--job NAME]

Reads a VoxCeleb trial list (default ``../shared/trials/veri_test2.txt``); scores and embeddings are random (seeded).
Times leave out imports and the making of random inputs; peaks are those of the whole process, imports included. A peer
that would take too long is timed on less and extrapolated, and the table says from where and by which law.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from evaluation_jobs import JOBS, NUM_REPLICATES

PEER_LIMIT_S = 60.0
PEER_LIMIT_GIB = 10  # of address space: this is a shared machine


@dataclass(frozen=True)
class Run:
    """One timed job: seconds of the job, GiB at the peak of its process."""

    seconds: float
    peak_gib: float


def measure(job: str, size: int, options: argparse.Namespace, is_peer: bool = False) -> Run | None:
    """Run a job in a process of its own; None if it is a peer that ran out of time or memory."""
    command = [sys.executable, __file__, "--job", job, "--size", str(size), "--seed", str(options.seed)]
    command += ["--trials", str(options.trials)] + (["--limited"] if is_peer else [])
    timeout = PEER_LIMIT_S + 60.0 if is_peer else None  # a minute for the imports
    print(f"running {job}, size {size:,}", file=sys.stderr)
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if is_peer else {})  # their small steps are faster so
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode and is_peer and ("allocate memory" in done.stderr or "MemoryError" in done.stderr):
        return None
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def median_run(job: str, size: int, options: argparse.Namespace, repeats: int = 3) -> Run:
    """The run of the middle time among ``repeats``."""
    runs = [measure(job, size, options) for _ in range(repeats)]
    return sorted(runs, key=lambda run: run.seconds)[repeats // 2]


def largest_survived(job: str, start: int, options: argparse.Namespace) -> list[tuple[int, Run]]:
    """Double the size until the peer takes more than 60 s or too much memory; the last two sizes that it survived."""
    survived = []
    size = start
    while (run := measure(job, size, options, is_peer=True)) is not None and run.seconds <= PEER_LIMIT_S:
        survived.append((size, run))
        size *= 2
    return survived[-2:]


def extrapolate(survived: list[tuple[int, Run]], size: int) -> tuple[float, float]:
    """Seconds at ``size`` by ``a n + b n^2``, and GiB by ``c + d n^2``, through the two largest sizes survived."""
    (small, first), (large, second) = survived
    quadratic = (second.seconds / large - first.seconds / small) / (large - small)
    quadratic = min(max(quadratic, 0.0), second.seconds / large**2)  # neither term below 0
    linear = second.seconds / large - quadratic * large
    growth = max(0.0, (second.peak_gib - first.peak_gib) / (large**2 - small**2))
    return linear * size + quadratic * size**2, second.peak_gib + growth * (size**2 - large**2)


def words(seconds: float) -> str:
    """A duration for the table."""
    units = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
    return next((f"{seconds / unit:,.1f} {name}" for unit, name in units if seconds >= 2 * unit), f"{seconds:.2f} s")


def speechbrain_cell(job: str, name: str, size: int, options: argparse.Namespace) -> str:
    """What one of SpeechBrain's metrics takes at the largest size it survives, and what the whole list would take."""
    survived = largest_survived(job, 2_500, options)
    at, run = survived[-1]
    seconds, gib = extrapolate(survived, size)
    memory = f" and {gib / 1024:,.0f} TiB by c + d n^2" if gib > 1024 else ""
    return (
        f"{name} {words(run.seconds)}, {run.peak_gib:.1f} GiB at {at:,} trials (largest survived); "
        f"for all {words(seconds)} by a n + b n^2{memory}"
    )


def rows(options: argparse.Namespace) -> list[tuple[str, str, Run, str]]:
    """Job, what it must reach, our run, and the peer's in words."""
    num_trials = len(options.trials.read_text(encoding="utf-8").splitlines())
    millions = 3_700_000
    peer_eer = speechbrain_cell("speechbrain_eer", "SpeechBrain EER", millions, options)
    peer_dcf = speechbrain_cell("speechbrain_min_dcf", "minDCF", millions, options)
    loop = measure("score_list_one_by_one", 0, options, is_peer=True)
    cohort_loop = measure("score_list_one_by_one", 20_000, options, is_peer=True)
    plain = measure("bootstrap_by_repetition", 3_000_000, options)
    as_text = measure("read_as_text", 10_000_000, options)
    return [
        ("EER + minDCF (2) + C_llr, 3.7 M trials", "3 s, 1 GiB", median_run("metrics", millions, options),
         f"{peer_eer}; {peer_dcf}"),
        (f"list of {num_trials:,} trials, file to metrics", "1 s", median_run("score_list", 0, options),
         f"loop per trial and SpeechBrain EER: {words(loop.seconds)}" if loop else "loop per trial: over 60 s"),
        ("the same, AS-norm, cohort 20,000, top 300", "10 s, 2 GiB", median_run("score_list", 20_000, options),
         f"per trial: {words(cohort_loop.seconds)} for 200; {words(cohort_loop.seconds / 200 * num_trials)} for all, "
         "by proportion" if cohort_loop else "per trial: over 60 s for 200"),
        ("all pairs of 10,000 embeddings to EER", "30 s, 4 GiB", median_run("all_pairs", 10_000, options, 1), "-"),
        (f"{NUM_REPLICATES:,} speaker replicates, 3 M trials, 8 figures", "180 s",
         median_run("bootstrap", 3_000_000, options, 1),
         f"repeat and sort again: {words(plain.seconds / 2)} for one (EER, minDCF); "
         f"{words(plain.seconds / 2 * NUM_REPLICATES)} for all, by proportion"),
        ("read and check a score file of 10 M lines", "-", median_run("read_scores", 10_000_000, options),
         f"pandas, all columns as text: {words(as_text.seconds)}, {as_text.peak_gib:.2f} GiB"),
        ("25 groups with intervals, 500,000 trials", "-", median_run("groups", 500_000, options, 1), "-"),
    ]  # fmt: skip


def processor() -> str:
    """The name of the processor, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def print_table(options: argparse.Namespace) -> None:
    """Run every job and print the table with what it was made with."""
    load = os.getloadavg()[0]
    print(f"command: python benchmarks/evaluation.py --seed {options.seed} (list: {options.trials.name})")
    print(f"hardware: {processor()}, {os.cpu_count()} cores; load before the start {load:.1f}; no GPU used")
    print(f"python {platform.python_version()}, numpy {np.__version__}")
    print("ours: all cores; the middle of three runs, or one run where it takes above 5 s")
    print(f"peers: one thread, which suits their small steps; at most {PEER_LIMIT_S:g} s and {PEER_LIMIT_GIB} GiB\n")
    table = rows(options)
    print("| job | must reach | ours | peak | peer |\n|---|---|---|---|---|")
    for job, target, run, peer in table:
        print(f"| {job} | {target} | {words(run.seconds)} | {run.peak_gib:.2f} GiB | {peer} |")


def main() -> None:
    """Print the table, or, as a child process, run one job and print its time and peak as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=Path, default=Path("../shared/trials/veri_test2.txt"), help="trial list")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", choices=JOBS, help="run one job only and print seconds and peak")
    parser.add_argument("--size", type=int, default=0, help="its trials, embeddings or cohort")
    parser.add_argument("--limited", action="store_true", help="within the memory limit of the peers")
    options = parser.parse_args()
    if not options.trials.is_file():
        parser.error(f"{options.trials}: the trial list is missing; give one with --trials")
    if not options.job:
        return print_table(options)
    if options.limited:
        resource.setrlimit(resource.RLIMIT_AS, (PEER_LIMIT_GIB * 2**30,) * 2)
    seconds = JOBS[options.job](options.size, options.seed, options.trials)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak_gib}))


if __name__ == "__main__":
    main()
