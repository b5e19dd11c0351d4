"""The jobs that ``benchmarks/evaluation.py`` times: ours, and the same as its peers do it.

Each takes a size, a seed and the path of a trial list, makes its random input, and returns the seconds of the job.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

DIMS = 192
NUM_REPLICATES = 1000


def scored_trials(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores like log-likelihood ratios, (size,) float64, and labels, one target in twenty."""
    rng = np.random.default_rng(seed)
    is_target = np.arange(size) % 20 == 0
    return 2.0 * rng.normal(size=size) + np.where(is_target, 3.5, -3.5), is_target


def metrics(size: int, seed: int, trials: Path) -> float:
    """EER, minDCF at two costs and C_llr of a list of scores."""
    from voice_biometrics.metrics.error_rates import error_rates
    from voice_biometrics.metrics.llr import cllr

    scores, is_target = scored_trials(size, seed)
    start = time.perf_counter()
    error_rates(scores, is_target).summary()
    cllr(scores, is_target)
    return time.perf_counter() - start


def speechbrain_metric(name: str) -> Callable[[int, int, Path], float]:
    """One of SpeechBrain's metrics of the same list of scores (in single precision, as its recipe has them)."""

    def job(size: int, seed: int, trials: Path) -> float:
        import torch
        from speechbrain.utils import metric_stats

        scores, is_target = scored_trials(size, seed)
        kinds = [torch.tensor(scores[kind], dtype=torch.float32) for kind in (is_target, ~is_target)]
        start = time.perf_counter()
        getattr(metric_stats, name)(*kinds)
        return time.perf_counter() - start

    return job


def random_embeddings(size: int, seed: int) -> np.ndarray:
    """(size, 192) float32."""
    return np.random.default_rng(seed).normal(size=(size, DIMS)).astype(np.float32)


def score_list(cohort_size: int, seed: int, trials: Path) -> float:
    """From a trial list on disk to EER and minDCF; with AS-norm of the top 300 where there is a cohort."""
    import pandas as pd

    from voice_biometrics.common.trial_lists import read_trials
    from voice_biometrics.metrics.error_rates import error_rates
    from voice_biometrics.scoring.as_norm import as_norm_scores
    from voice_biometrics.scoring.cosine import cosine_scores

    listed = read_trials(trials)
    utt_ids = pd.Index(pd.unique(pd.concat([listed["enrol_id"], listed["test_id"]])))
    embeddings, cohort = random_embeddings(len(utt_ids), seed), random_embeddings(cohort_size, seed + 1)
    start = time.perf_counter()
    listed = read_trials(trials)
    enrol, test = utt_ids.get_indexer(listed["enrol_id"]), utt_ids.get_indexer(listed["test_id"])
    if cohort_size:
        scores = as_norm_scores(embeddings, enrol, test, cohort, top_k=300)
    else:
        scores = cosine_scores(embeddings, enrol, test)
    error_rates(scores, listed["target"].to_numpy()).summary()
    return time.perf_counter() - start


def score_list_one_by_one(cohort_size: int, seed: int, trials: Path) -> float:
    """The same as SpeechBrain's recipe does it: a loop over lines, then its EER; with a cohort, 200 trials, no EER."""
    import torch
    from speechbrain.utils.metric_stats import EER

    lines = trials.read_text(encoding="utf-8").splitlines()[: 200 if cohort_size else None]
    utt_ids = sorted({utt_id for line in lines for utt_id in line.split()[1:]})
    embeddings = dict(zip(utt_ids, torch.tensor(random_embeddings(len(utt_ids), seed)), strict=True))
    cohort = torch.tensor(random_embeddings(cohort_size, seed + 1))
    similarity = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    by_label = {"1": [], "0": []}
    start = time.perf_counter()
    for line in lines:
        label, enrol_id, test_id = line.split()
        score = similarity(embeddings[enrol_id], embeddings[test_id])
        if cohort_size:
            sides = []
            for side in (embeddings[enrol_id], embeddings[test_id]):
                nearest = torch.topk(similarity(side.repeat(cohort_size, 1), cohort), k=300)[0]
                sides.append((score - nearest.mean()) / nearest.std())
            score = 0.5 * (sides[0] + sides[1])
        by_label[label].append(score)
    if not cohort_size:
        EER(torch.tensor(by_label["1"]), torch.tensor(by_label["0"]))
    return time.perf_counter() - start


def all_pairs(size: int, seed: int, trials: Path) -> float:
    """Every pair of embeddings to the EER."""
    from voice_biometrics.metrics.error_rates import error_rates
    from voice_biometrics.scoring.cosine import cosine_scores

    embeddings, speaker = random_embeddings(size, seed), np.arange(size) % 500
    start = time.perf_counter()
    enrol, test = np.triu_indices(size, 1)
    scores, is_target = cosine_scores(embeddings, enrol, test), speaker[enrol] == speaker[test]
    del enrol, test
    error_rates(scores, is_target).equal_error_rate()
    return time.perf_counter() - start


def speaker_trials(size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and the speakers of both sides, drawn from 1,251."""
    scores, is_target = scored_trials(size, seed)
    rng = np.random.default_rng(seed + 1)
    enrol = rng.integers(1251, size=size)
    return scores, is_target, enrol, np.where(is_target, enrol, (enrol + rng.integers(1, 1251, size=size)) % 1251)


def bootstrap(size: int, seed: int, trials: Path) -> float:
    """1,000 replicates over speakers: EER, two minDCFs, FAR and FRR at a threshold, FRR at three FARs."""
    from voice_biometrics.metrics import bootstrap as measures

    wanted = {"eer": measures.Eer(), "far": measures.far_at(2.0), "frr": measures.frr_at(2.0)}
    wanted |= {f"min_dcf_{prior}": measures.MinDcf(prior) for prior in (0.01, 0.05)}
    wanted |= {f"frr_at_{far}": measures.FrrAtFar(far) for far in (0.01, 0.001, 0.0001)}
    scores, *labels_and_speakers = speaker_trials(size, seed)
    start = time.perf_counter()
    resampled = measures.SpeakerBootstrap(*labels_and_speakers, num_replicates=NUM_REPLICATES, seed=seed)
    resampled.intervals(scores, wanted)
    return time.perf_counter() - start


def bootstrap_by_repetition(size: int, seed: int, trials: Path) -> float:
    """Two replicates the plain way: the trials repeated as often as drawn, sorted, their EER and minDCF taken."""
    from voice_biometrics.metrics.error_rates import error_rates

    scores, is_target, enrol, test = speaker_trials(size, seed)
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    for _ in range(2):
        drawn = rng.multinomial(1251, np.full(1251, 1 / 1251))
        times = np.where(is_target, drawn[enrol], drawn[enrol] * drawn[test])
        error_rates(np.repeat(scores, times), np.repeat(is_target, times)).summary()
    return time.perf_counter() - start


def score_file(size: int, seed: int, path: Path) -> None:
    """Write a CSV of scored trials of 5,000 utterances of VoxCeleb's names, in pieces; no trial stands twice."""
    import pyarrow
    from pyarrow.csv import CSVWriter, WriteOptions

    rng = np.random.default_rng(seed)
    utt_ids = np.array([f"id{10000 + number // 40}/abcdefghijk/{number % 40:05d}.wav" for number in range(5000)])
    fields = {"enrol_id": "string", "test_id": "string", "target": "int8", "score": "double"}
    options = WriteOptions(quoting_style="none", include_header=False)
    with open(path, "wb") as file:
        file.write(b"enrol_id,test_id,target,score\n")
        with CSVWriter(file, pyarrow.schema(list(fields.items())), write_options=options) as writer:
            for start in range(0, size, 500_000):
                enrol, test = np.divmod(np.arange(start, min(start + 500_000, size)), 5000)
                columns = [utt_ids[enrol], utt_ids[test], enrol // 40 == test // 40, rng.normal(size=enrol.size)]
                named = dict(zip(fields, columns, strict=True)) | {"target": columns[2].astype(np.int8)}
                writer.write(pyarrow.table(named))


def read_file(read: Callable[[Path], object]) -> Callable[[int, int, Path], float]:
    """Read a score file of ``size`` lines."""

    def job(size: int, seed: int, trials: Path) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scores.csv"
            score_file(size, seed, path)
            start = time.perf_counter()
            read(path)
            return time.perf_counter() - start

    return job


def read_ours(path: Path) -> object:
    """By blocks, checked, each ID kept once."""
    from voice_biometrics.scoring.score_files import read_scores

    return read_scores(path)


def read_as_text(path: Path) -> object:
    """The plain way: all columns as text, then scores and labels converted and checked."""
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    score = pd.to_numeric(table["score"], errors="coerce")
    assert table["target"].isin(["0", "1"]).all() and np.isfinite(score).all()
    return table.astype({"target": np.int8, "score": np.float64})


def groups(size: int, seed: int, trials: Path) -> float:
    """Rates by gender (also across), age, language and duration, of 200 speakers, with intervals: 25 groups."""
    import pandas as pd

    from voice_biometrics.evaluation.groups import measure_groups

    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(200), 20)
    ages = rng.integers(5, 80, 200)
    manifest = pd.DataFrame(
        {
            "ID": [f"utt{number}" for number in range(speaker.size)],
            "duration": rng.uniform(1.0, 20.0, speaker.size),
            "spk_id": [f"spk{number}" for number in speaker],
            "gender": np.array(["f", "m"])[speaker % 2],
            "age": ages[speaker],
            "language": np.array(list("abcdefgh"))[speaker % 8],
        }
    )
    enrol, test = rng.integers(speaker.size, size=(2, size))
    test = np.where(np.arange(size) % 20 == 0, enrol // 20 * 20 + test % 20, test)
    is_target = speaker[enrol] == speaker[test]
    utt_ids = manifest["ID"].to_numpy()
    scores = pd.DataFrame({"enrol_id": utt_ids[enrol], "test_id": utt_ids[test], "target": is_target.astype(np.int8)})
    scores["score"] = rng.normal(size=size) + 3.0 * is_target
    start = time.perf_counter()
    measure_groups(scores, manifest, threshold=1.5, num_replicates=NUM_REPLICATES, seed=seed)
    return time.perf_counter() - start


JOBS = {
    "metrics": metrics,
    "speechbrain_eer": speechbrain_metric("EER"),
    "speechbrain_min_dcf": speechbrain_metric("minDCF"),
    "score_list": score_list,
    "score_list_one_by_one": score_list_one_by_one,
    "all_pairs": all_pairs,
    "bootstrap": bootstrap,
    "bootstrap_by_repetition": bootstrap_by_repetition,
    "read_scores": read_file(read_ours),
    "read_as_text": read_file(read_as_text),
    "groups": groups,
}
