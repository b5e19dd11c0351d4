"""What a model's scores mean, measured on speakers that it never heard: calibration, thresholds, error rates.

The trials are those of a run's held-out speakers; or, for a model that was trained on all speakers, those of several
runs of the same kind, each of which held out others: cross-validation over speakers, pooled.

Runs whose held-out speakers say what the scores of another run mean: of the same kind, finished, each once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.conditions import CLEAN, Condition
from voice_biometrics.evaluation.thresholds import Thresholds
from voice_biometrics.evaluation.trained_run import TrainedRun, plain_node
from voice_biometrics.experiment.hparams import keys_that_affect
from voice_biometrics.inference.embedder import OnnxEmbedder
from voice_biometrics.inference.model_folder import MAX_CURVE_POINTS
from voice_biometrics.metrics.bootstrap import Interval, bootstrap_intervals
from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.metrics.operating_points import DOOR, SMART_SPEAKER, OperatingPoint
from voice_biometrics.metrics.resampling import Cllr, Eer, far_at, frr_at
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.scored_trials import ScoredTrials

SIZES = {"num_speakers", "out_neurons", "n_neurons"}  # follow from who is held out
MAY_DIFFER = {"seed", "__set_seed", "split_seed", "valid_speakers", "max_trials", "check_audio"}
ADVICE = "give runs of the same hparams that differ in --valid_speakers, --split_seed and --seed only"


def check_calibration_runs(run: TrainedRun, others: Sequence[TrainedRun]) -> None:
    """Raise InputError when the held-out speakers of ``others`` could not tell what the scores of ``run`` mean.

    That is: one was trained otherwise, stopped early, held out nobody, or is named twice.
    """
    if not run.has_held_out:
        check_finished(run)
    seen: dict[str, TrainedRun] = {}  # fingerprint -> run
    for other in others:
        other.check_same_modules(run.nodes, "runs of the same hparams to --calibration_from")
        check_same_training(other, run)
        check_finished(other)
        other.held_out()
        fingerprint = other.fingerprint()
        if fingerprint in seen:
            raise InputError(f"{other.folder}: the same network as that of {seen[fingerprint].folder}; name it once")
        seen[fingerprint] = other


def check_same_training(other: TrainedRun, run: TrainedRun) -> None:
    """Raise InputError, naming the first key, when ``other`` was trained otherwise than ``run``."""
    theirs, ours = (_training_keys(each.hparams) for each in (other, run))
    for key in [key for key in ours if key in theirs]:  # a key that is younger than one of the runs tells nothing
        if theirs[key] != ours[key]:
            found, expected = (_shown(keys[key]) for keys in (theirs, ours))
            raise InputError(
                f"{other.folder}: was trained with another {key}{found}, expected that of {run.folder}{expected}; "
                f"{ADVICE}"
            )


def check_finished(run: TrainedRun) -> None:
    """Raise InputError when the newest checkpoint is not that of the last epoch."""
    epoch, last = run.newest_epoch, run.settings["number_of_epochs"]
    if epoch != last:
        reached = "within its first epoch" if epoch is None else f"after epoch {epoch}"
        raise InputError(f"{run.folder}: was stopped {reached} of {last}; start train.py again to let it finish")


def held_out_more_than_once(runs: Sequence[TrainedRun]) -> int:
    """Return how many speakers were held out by more than one of the runs."""
    speakers = pd.Series([speaker for run in runs for speaker in run.held_out().manifest["spk_id"].unique()])
    return int((speakers.value_counts() > 1).sum())


def _training_keys(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return what training follows from, other than the seeds and who is held out."""
    left_out = MAY_DIFFER | SIZES | keys_that_affect("free", "scoring")
    return {key: _without(plain_node(node), left_out) for key, node in hparams.items() if key not in left_out}


def _without(node: Any, keys: set[str]) -> Any:
    """Return a plain node without these keys, wherever they stand in it."""
    if isinstance(node, dict):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(item, keys) for item in node] if isinstance(node, list) else node


def _shown(value: Any) -> str:
    """Word a value that fits a line."""
    return "" if isinstance(value, dict | list) else f" ({value!r})"


SEED = 0  # of the resamples
CURVE_POINTS = 500  # along each of FAR and FRR


@dataclass(frozen=True, eq=False)
class Source:
    """A run that held speakers out, with its two embedders by precision."""

    run: TrainedRun
    embedders: Mapping[str, OnnxEmbedder]


@dataclass(frozen=True, eq=False)
class Measured:
    """The held-out trials of one precision, and what follows from them.

    llrs : (trials,) log-likelihood ratios, each from a calibration on other speakers.
    figures : ``eer`` and ``cllr`` (bits) with 95 % intervals over speakers.
    """

    trials: ScoredTrials
    thresholds: Thresholds
    llrs: np.ndarray
    figures: dict[str, Interval]


def score_held_out(sources: Sequence[Source], precision: str, condition: Condition = CLEAN) -> ScoredTrials:
    """Score the trials of the speakers that each run held out, by cosine, and pool them.

    Raises InputError when a run held out nobody, or an utterance cannot be read.
    """
    lists = [_score(source, precision, condition) for source in sources]
    if len(lists) == 1:
        return lists[0]
    tables, utterances = [], []
    for number, trials in enumerate(lists):  # the same utterance may be held out twice, by two models
        names = {column: f"{number}/" + trials.table[column] for column in ("enrol_id", "test_id")}
        tables.append(trials.table.assign(**names))
        utterances.append(trials.utterances.assign(ID=f"{number}/" + trials.utterances["ID"]))
    return ScoredTrials(condition.name, pd.concat(tables, ignore_index=True), pd.concat(utterances, ignore_index=True))


def _score(source: Source, precision: str, condition: Condition) -> ScoredTrials:
    run, embedder = source.run, source.embedders[precision]
    held_out = run.held_out()
    manifest = held_out.manifest
    readers = [
        partial(_read, run.sample_rate, condition, *row)
        for row in zip(manifest["ID"], manifest["wav"], manifest["start"], manifest["stop"], strict=True)
    ]
    with tqdm(total=len(readers), desc=f"{precision}, {condition.name}", unit="utt", dynamic_ncols=True) as bar:
        embeddings = embedder.embed_many(readers, on_each=bar.update)
    utterances = manifest.assign(duration=manifest["duration"].clip(upper=condition.longest_s))
    return ScoredTrials(condition.name, score_trials(embeddings, pd.Index(manifest["ID"]), held_out.trials), utterances)


def _read(sample_rate: int, condition: Condition, utt_id: str, wav: str, start: int, stop: int) -> np.ndarray:
    return condition(read_audio(wav, sample_rate, start, stop), sample_rate, utt_id)


def measure(trials: ScoredTrials) -> Measured:
    """Calibrate on held-out trials, choose the thresholds and measure them, by cross-validation over the speakers.

    Raises InputError as ``Thresholds.from_held_out``.
    """
    thresholds = Thresholds.from_held_out(trials, [SMART_SPEAKER, DOOR], with_durations=False)
    llrs = thresholds.llrs(trials, are_held_out=True)
    measures = {"eer": (trials.scores, Eer()), "cllr": (llrs, Cllr())}
    found = {
        name: bootstrap_intervals(values, trials.is_target, *trials.speakers(), {name: figure}, seed=SEED)[name]
        for name, (values, figure) in measures.items()
    }
    return Measured(trials, thresholds, llrs, found)


def rates_under(measured: Measured, trials: ScoredTrials, point: OperatingPoint) -> dict[str, Interval]:
    """Return ``eer``, and ``far`` and ``frr`` at an operating point, of the same trials under another condition."""
    llrs = measured.thresholds.llrs(trials, are_held_out=True)
    figures = {"far": far_at(point.threshold), "frr": frr_at(point.threshold)}
    speakers = trials.speakers()
    rates = bootstrap_intervals(llrs, trials.is_target, *speakers, figures, seed=SEED)
    return rates | bootstrap_intervals(trials.scores, trials.is_target, *speakers, {"eer": Eer()}, seed=SEED)


def calibration_entry(measured: Measured, file: str, fingerprint: str) -> dict:
    """Return what ``calibration.json`` says of one embedder."""
    thresholds = measured.thresholds
    return {
        "file": file,
        "fingerprint": fingerprint,
        "calibration": thresholds.calibration.to_dict(),
        "operating_points": {
            use: {
                "threshold": point.threshold,
                "max_far": point.max_far,
                "support": point.support,
                "rule": point.rule,
                **_counts_and_rates(asdict(thresholds.held_out[use])),
            }
            for use, point in thresholds.points.items()
        },
        "error_rates": _curve(measured.llrs, measured.trials.is_target),
        "eer": _rate(asdict(measured.figures["eer"])),
    }


def _counts_and_rates(result: dict) -> dict:
    counts = ("num_false_accepts", "num_false_rejects", "num_target", "num_nontarget")
    return {name: _rate(result[name]) for name in ("far", "frr")} | {name: result[name] for name in counts}


def _rate(interval: Mapping) -> dict:
    return {name: interval[name] for name in ("estimate", "lower", "upper")}


def _curve(llrs: np.ndarray, is_target: np.ndarray) -> dict[str, list[float]]:
    """Return the error rates at some thresholds, dense where FAR or FRR is low; rising thresholds, "reject all" last.

    Reject all is the number above the highest ratio, since JSON has no infinity.
    """
    rates = error_rates(llrs, is_target)
    far_steps = np.geomspace(1.0, 0.5 / rates.num_nontarget, CURVE_POINTS)
    frr_steps = np.geomspace(0.5 / rates.num_target, 1.0, CURVE_POINTS)
    last = rates.thresholds.size - 1
    by_far = np.searchsorted(-rates.far, -far_steps, side="left")  # the first point whose FAR is at most the step
    by_frr = np.searchsorted(rates.frr, frr_steps, side="left")
    chosen = np.unique(np.clip(np.concatenate([[0], by_far, by_frr, [last]]), 0, last))
    assert chosen.size <= MAX_CURVE_POINTS
    llr = rates.thresholds[chosen]
    llr[-1] = np.nextafter(llrs.max(), np.inf)
    return {"llr": llr.tolist(), "far": rates.far[chosen].tolist(), "frr": rates.frr[chosen].tolist()}
