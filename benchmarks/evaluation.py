"""Time the evaluation and its peers, each job in its own process, and print one table.

    python benchmarks/evaluation.py [--trials LIST] [--seed N] [--job NAME]

Reads a VoxCeleb trial list (default ``../shared/trials/veri_test2.txt``); scores and embeddings are random (seeded).
Times exclude imports and the generation of inputs; memory peaks are of the whole process. A peer that would take too
long is timed on smaller inputs and extrapolated; the table states sizes and the law.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PEER_LIMIT_S = 60.0
PEER_LIMIT_GIB = 10  # of address space, because the machine may be shared
DIMS = 192
NUM_REPLICATES = 1000
NUM_SPEAKERS = 1251


@dataclass(frozen=True)
class Timed:
    """Seconds of a job, and memory peak of its process."""

    seconds: float
    peak_gib: float


def main() -> None:
    """Print the table, or, as a child process, run one job and print its time and peak as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=Path, default=Path("../shared/trials/veri_test2.txt"), help="trial list")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", choices=JOBS, help="run one job only and print seconds and peak")
    parser.add_argument("--size", type=int, default=0, help="number of trials, embeddings or cohort utterances")
    parser.add_argument("--limited", action="store_true", help="within the memory limit of the peers")
    options = parser.parse_args()
    if not options.trials.is_file():
        parser.error(f"{options.trials}: the trial list is missing; give one with --trials")
    if not options.job:
        return print_table(options)
    if options.limited:
        resource.setrlimit(resource.RLIMIT_AS, (PEER_LIMIT_GIB * 2**30,) * 2)
    work = JOBS[options.job](options.size, options.seed, options.trials)
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak_gib}))


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def hardware() -> str:
    """Return processor, cores and current load."""
    return f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def print_table(options: argparse.Namespace) -> None:
    """Run all jobs and print the table and its conditions."""
    print(f"command: python benchmarks/evaluation.py --seed {options.seed} (list: {options.trials.name})")
    print(f"hardware: {hardware()}; no GPU used")
    print(f"python {platform.python_version()}, numpy {np.__version__}")
    print("ours: all cores; median of three runs, or one run if it takes over 5 s")
    print(f"peers: one thread, which is fastest for them; at most {PEER_LIMIT_S:g} s and {PEER_LIMIT_GIB} GiB\n")
    table = rows(options)
    print("| job | must reach | ours | peak | peer |\n|---|---|---|---|---|")
    for job, target, run, peer in table:
        print(f"| {job} | {target} | {duration(run.seconds)} | {run.peak_gib:.2f} GiB | {peer} |")


def rows(options: argparse.Namespace) -> list[tuple[str, str, Timed, str]]:
    """Return job, target, our time, and a description of the peer's."""
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
         f"loop over trials and SpeechBrain EER: {duration(loop.seconds)}" if loop else "loop over trials: over 60 s"),
        ("the same, AS-norm, cohort 20,000, top 300", "10 s, 2 GiB", median_run("score_list", 20_000, options),
         f"loop over trials: {duration(cohort_loop.seconds)} for 200; for all, by proportion, "
         f"{duration(cohort_loop.seconds / 200 * num_trials)}" if cohort_loop else "loop: over 60 s for 200"),
        ("all pairs of 10,000 embeddings to EER", "30 s, 4 GiB", measure("all_pairs", 10_000, options), "-"),
        (f"{NUM_REPLICATES:,} speaker replicates, 3 M trials, 8 figures", "180 s",
         measure("bootstrap", 3_000_000, options),
         f"repeat trials and sort: {duration(plain.seconds / 2)} for one (EER, minDCF); "
         f"{duration(plain.seconds / 2 * NUM_REPLICATES)} for all, by proportion"),
        ("read and check a score file of 10 M lines", "-", median_run("read_scores", 10_000_000, options),
         f"pandas, all columns as text: {duration(as_text.seconds)}, {as_text.peak_gib:.2f} GiB"),
        ("25 groups with intervals, 500,000 trials", "-", measure("groups", 500_000, options), "-"),
    ]  # fmt: skip


def measure(job: str, size: int, options: argparse.Namespace, is_peer: bool = False) -> Timed | None:
    """Run a job in its own process; None for a peer that ran out of time or memory."""
    command = [sys.executable, __file__, "--job", job, "--size", str(size), "--seed", str(options.seed)]
    command += ["--trials", str(options.trials)] + (["--limited"] if is_peer else [])
    timeout = PEER_LIMIT_S + 60.0 if is_peer else None  # a minute for the imports
    print(f"running {job}, size {size:,}", file=sys.stderr)
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if is_peer else {})
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode and is_peer and ("allocate memory" in done.stderr or "MemoryError" in done.stderr):
        return None
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr}")
    return Timed(**json.loads(done.stdout.splitlines()[-1]))


def median_run(job: str, size: int, options: argparse.Namespace) -> Timed:
    """Return the run of median time of three."""
    return sorted((measure(job, size, options) for _ in range(3)), key=lambda run: run.seconds)[1]


def speechbrain_cell(job: str, name: str, size: int, options: argparse.Namespace) -> str:
    """Describe a SpeechBrain metric at the largest size within the limits, and extrapolated to ``size``.

    The size is doubled until a limit is reached. Time follows ``a n + b n^2`` and memory ``c + d n^2``, both through
    the two largest sizes.
    """
    survived, at = [], 2_500
    while (run := measure(job, at, options, is_peer=True)) is not None and run.seconds <= PEER_LIMIT_S:
        survived.append((at, run))
        at *= 2
    (small, first), (large, second) = survived[-2:]
    quadratic = (second.seconds / large - first.seconds / small) / (large - small)
    quadratic = min(max(quadratic, 0.0), second.seconds / large**2)  # no negative term
    linear = second.seconds / large - quadratic * large
    growth = max(0.0, (second.peak_gib - first.peak_gib) / (large**2 - small**2))
    gib = second.peak_gib + growth * (size**2 - large**2)
    memory = f" and {gib / 1024:,.0f} TiB by c + d n^2" if gib > 1024 else ""
    return (
        f"{name} {duration(second.seconds)}, {second.peak_gib:.1f} GiB at {large:,} trials (largest within limits); "
        f"for all {duration(linear * size + quadratic * size**2)} by a n + b n^2{memory}"
    )


def duration(seconds: float) -> str:
    """Format a duration."""
    units = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
    return next((f"{seconds / unit:,.1f} {name}" for unit, name in units if seconds >= 2 * unit), f"{seconds:.2f} s")


# Jobs: each takes a size, a seed and a trial list, generates its input, and returns the work to time.


def scored_trials(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores like log-likelihood ratios, (size,) float64, and labels, one target in twenty."""
    rng = np.random.default_rng(seed)
    is_target = np.arange(size) % 20 == 0
    return 2.0 * rng.normal(size=size) + np.where(is_target, 3.5, -3.5), is_target


def random_embeddings(size: int, seed: int) -> np.ndarray:
    """Return embeddings (size, 192) float32."""
    return np.random.default_rng(seed).normal(size=(size, DIMS)).astype(np.float32)


def speaker_trials(size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, labels and the speakers of both sides."""
    scores, is_target = scored_trials(size, seed)
    rng = np.random.default_rng(seed + 1)
    enrol = rng.integers(NUM_SPEAKERS, size=size)
    others = (enrol + rng.integers(1, NUM_SPEAKERS, size=size)) % NUM_SPEAKERS
    return scores, is_target, enrol, np.where(is_target, enrol, others)


def metrics(size: int, seed: int, trials: Path) -> Callable:
    """EER, minDCF at two costs and C_llr of a list of scores."""
    from voice_biometrics.metrics.error_rates import error_rates
    from voice_biometrics.metrics.llr import cllr

    scores, is_target = scored_trials(size, seed)
    return lambda: (error_rates(scores, is_target).summary(), cllr(scores, is_target))


def speechbrain_metric(name: str, size: int, seed: int, trials: Path) -> Callable:
    """One of SpeechBrain's metrics of the same list of scores, in single precision as in its recipe."""
    import torch
    from speechbrain.utils import metric_stats

    scores, is_target = scored_trials(size, seed)
    kinds = [torch.tensor(scores[kind], dtype=torch.float32) for kind in (is_target, ~is_target)]
    return lambda: getattr(metric_stats, name)(*kinds)


def score_list(cohort_size: int, seed: int, trials: Path) -> Callable:
    """From a trial list on disk to EER and minDCF; with AS-norm of the top 300 if there is a cohort."""
    import pandas as pd

    from voice_biometrics.common.trial_lists import read_trials
    from voice_biometrics.metrics.error_rates import error_rates
    from voice_biometrics.scoring.as_norm import as_norm_scores
    from voice_biometrics.scoring.cosine import cosine_scores

    listed = read_trials(trials)
    utt_ids = pd.Index(pd.unique(pd.concat([listed["enrol_id"], listed["test_id"]])))
    embeddings, cohort = random_embeddings(len(utt_ids), seed), random_embeddings(cohort_size, seed + 1)

    def work() -> None:
        listed = read_trials(trials)
        sides = utt_ids.get_indexer(listed["enrol_id"]), utt_ids.get_indexer(listed["test_id"])
        normed = cohort_size > 0
        scores = as_norm_scores(embeddings, *sides, cohort, top_k=300) if normed else cosine_scores(embeddings, *sides)
        error_rates(scores, listed["target"].to_numpy()).summary()

    return work


def score_list_one_by_one(cohort_size: int, seed: int, trials: Path) -> Callable:
    """The same as in SpeechBrain's recipe: a loop over trials, then its EER; with a cohort, 200 trials and no EER."""
    import torch
    from speechbrain.utils.metric_stats import EER

    lines = trials.read_text(encoding="utf-8").splitlines()[: 200 if cohort_size else None]
    utt_ids = sorted({utt_id for line in lines for utt_id in line.split()[1:]})
    embeddings = dict(zip(utt_ids, torch.tensor(random_embeddings(len(utt_ids), seed)), strict=True))
    cohort = torch.tensor(random_embeddings(cohort_size, seed + 1))
    similarity = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)

    def normed(score: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
        nearest = torch.topk(similarity(side.repeat(cohort_size, 1), cohort), k=300)[0]
        return (score - nearest.mean()) / nearest.std()

    def work() -> None:
        by_label = {"1": [], "0": []}
        for line in lines:
            label, *pair = line.split()
            sides = [embeddings[utt_id] for utt_id in pair]
            score = similarity(*sides)
            by_label[label].append(0.5 * sum(normed(score, side) for side in sides) if cohort_size else score)
        if not cohort_size:
            EER(torch.tensor(by_label["1"]), torch.tensor(by_label["0"]))

    return work


def all_pairs(size: int, seed: int, trials: Path) -> Callable:
    """Every pair of embeddings to the EER."""
    from voice_biometrics.metrics.error_rates import error_rates
    from voice_biometrics.scoring.cosine import cosine_scores

    embeddings, speaker = random_embeddings(size, seed), np.arange(size) % 500

    def work() -> None:
        enrol, test = np.triu_indices(size, 1)
        scores, is_target = cosine_scores(embeddings, enrol, test), speaker[enrol] == speaker[test]
        del enrol, test
        error_rates(scores, is_target).equal_error_rate()

    return work


def bootstrap(size: int, seed: int, trials: Path) -> Callable:
    """1,000 replicates over speakers: EER, two minDCFs, FAR and FRR at a threshold, FRR at three FARs."""
    from voice_biometrics.metrics import bootstrap as measures

    wanted = {"eer": measures.Eer(), "far": measures.far_at(2.0), "frr": measures.frr_at(2.0)}
    wanted |= {f"min_dcf_{prior}": measures.MinDcf(prior) for prior in (0.01, 0.05)}
    wanted |= {f"frr_at_{far}": measures.FrrAtFar(far) for far in (0.01, 0.001, 0.0001)}
    scores, *labels_and_speakers = speaker_trials(size, seed)

    def work() -> None:
        resampled = measures.SpeakerBootstrap(*labels_and_speakers, num_replicates=NUM_REPLICATES, seed=seed)
        resampled.intervals(scores, wanted)

    return work


def bootstrap_by_repetition(size: int, seed: int, trials: Path) -> Callable:
    """Two replicates the plain way: repeat each trial as often as drawn, sort, compute EER and minDCF."""
    from voice_biometrics.metrics.error_rates import error_rates

    scores, is_target, enrol, test = speaker_trials(size, seed)
    rng = np.random.default_rng(seed)

    def work() -> None:
        for _ in range(2):
            drawn = rng.multinomial(NUM_SPEAKERS, np.full(NUM_SPEAKERS, 1 / NUM_SPEAKERS))
            times = np.where(is_target, drawn[enrol], drawn[enrol] * drawn[test])
            error_rates(np.repeat(scores, times), np.repeat(is_target, times)).summary()

    return work


def read_score_file(read: Callable[[Path], object], size: int, seed: int, trials: Path) -> Callable:
    """Read a CSV of ``size`` scored trials of 5,000 utterances with VoxCeleb's names, each pair once."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    utt_ids = np.array([f"id{10000 + number // 40}/abcdefghijk/{number % 40:05d}.wav" for number in range(5000)])
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "scores.csv"
    for start in range(0, size, 500_000):
        enrol, test = np.divmod(np.arange(start, min(start + 500_000, size)), 5000)
        table = pd.DataFrame({"enrol_id": utt_ids[enrol], "test_id": utt_ids[test]})
        table["target"], table["score"] = (enrol // 40 == test // 40).astype(int), rng.normal(size=enrol.size)
        table.to_csv(path, mode="a", header=start == 0, index=False)

    def work() -> None:
        read(path)
        folder.cleanup()

    return work


def read_ours(path: Path) -> object:
    """In blocks, checked, each ID stored once."""
    from voice_biometrics.scoring.score_files import read_scores

    return read_scores(path)


def read_as_text(path: Path) -> object:
    """The plain way: all columns as text, then convert and check scores and labels."""
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    score = pd.to_numeric(table["score"], errors="coerce")
    assert table["target"].isin(["0", "1"]).all() and np.isfinite(score).all()
    return table.astype({"target": np.int8, "score": np.float64})


def groups(size: int, seed: int, trials: Path) -> Callable:
    """Rates by gender (also across), age, language and duration, of 200 speakers, with intervals: 25 groups."""
    import pandas as pd

    from voice_biometrics.evaluation.groups import measure_groups
    from voice_biometrics.scoring.scored_trials import ScoredTrials

    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(200), 20)
    durations_s, ages = rng.uniform(1.0, 20.0, speaker.size), rng.integers(5, 80, 200)
    utt_ids, spk_ids = (np.char.add(prefix, np.arange(n).astype(str)) for prefix, n in (("utt", 4000), ("spk", 200)))
    manifest = pd.DataFrame({"ID": utt_ids, "duration": durations_s, "spk_id": spk_ids[speaker], "age": ages[speaker]})
    manifest["gender"] = np.array(["f", "m"])[speaker % 2]
    manifest["language"] = np.array(list("abcdefgh"))[speaker % 8]
    enrol, test = rng.integers(speaker.size, size=(2, size))
    test = np.where(np.arange(size) % 20 == 0, enrol // 20 * 20 + test % 20, test)
    is_target = speaker[enrol] == speaker[test]
    scores = pd.DataFrame({"enrol_id": utt_ids[enrol], "test_id": utt_ids[test], "target": is_target.astype(np.int8)})
    scores["score"] = rng.normal(size=size) + 3.0 * is_target
    return lambda: measure_groups(ScoredTrials("clean", scores, manifest), scores["score"].to_numpy(), threshold=1.5)


JOBS = {
    "metrics": metrics,
    "speechbrain_eer": partial(speechbrain_metric, "EER"),
    "speechbrain_min_dcf": partial(speechbrain_metric, "minDCF"),
    "score_list": score_list,
    "score_list_one_by_one": score_list_one_by_one,
    "all_pairs": all_pairs,
    "bootstrap": bootstrap,
    "bootstrap_by_repetition": bootstrap_by_repetition,
    "read_scores": partial(read_score_file, read_ours),
    "read_as_text": partial(read_score_file, read_as_text),
    "groups": groups,
}


if __name__ == "__main__":
    main()
