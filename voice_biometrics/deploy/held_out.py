"""What a model's scores mean, measured on speakers that it never heard: calibration, thresholds, error rates.

The trials are those of a run's held-out speakers; or, for a model that was trained on all speakers, those of several
runs of the same kind, each of which held out others: cross-validation over speakers, pooled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd
from tqdm import tqdm

from voice_biometrics.audio import read_audio
from voice_biometrics.conditions import CLEAN, Condition
from voice_biometrics.deploy.embedder import OnnxEmbedder
from voice_biometrics.deploy.finished_run import FinishedRun
from voice_biometrics.deploy.model_folder import MAX_CURVE_POINTS
from voice_biometrics.intervals import Interval, bootstrap_intervals
from voice_biometrics.measures import Cllr, Eer, far_at, frr_at
from voice_biometrics.metrics import error_rates
from voice_biometrics.operating_points import DOOR, SMART_SPEAKER, OperatingPoint
from voice_biometrics.scored_trials import ScoredTrials
from voice_biometrics.thresholds import Thresholds
from voice_biometrics.trial_scores import score_trials

SEED = 0  # of the resamples
CURVE_POINTS = 500  # along each of FAR and FRR


@dataclass(frozen=True, eq=False)
class Source:
    """A run that held speakers out, with its two embedders by precision."""

    run: FinishedRun
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
    manifest, trials = run.held_out()
    readers = [
        partial(_read, run.sample_rate, condition, *row)
        for row in zip(manifest["ID"], manifest["wav"], manifest["start"], manifest["stop"], strict=True)
    ]
    with tqdm(total=len(readers), desc=f"{precision}, {condition.name}", unit="utt", dynamic_ncols=True) as bar:
        embeddings = embedder.embed_many(readers, on_each=bar.update)
    utterances = manifest.assign(duration=manifest["duration"].clip(upper=condition.longest_s))
    return ScoredTrials(condition.name, score_trials(embeddings, pd.Index(manifest["ID"]), trials), utterances)


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
