"""Calibration, thresholds and error rates of exported embedders, measured on held-out speakers.

A model trained on all speakers is calibrated by cross-validation: several runs of the same hparams each hold out other
speakers, and their trials are pooled.
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
from voice_biometrics.evaluation.evaluate import Evaluation, evaluate
from voice_biometrics.evaluation.trained_run import TrainedRun, plain_node
from voice_biometrics.experiment.hparams import keys_that_affect
from voice_biometrics.inference.embedder import OnnxEmbedder
from voice_biometrics.inference.model_folder import MAX_CURVE_POINTS, MeasuredPoint, Rate, Strict
from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.metrics.operating_points import DOOR, SMART_SPEAKER
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.scored_trials import ScoredTrials

SIZES = {"num_speakers", "out_neurons", "n_neurons"}  # follow from which speakers are held out
MAY_DIFFER = {"seed", "__set_seed", "split_seed", "valid_speakers", "max_trials", "check_audio"}
CURVE_POINTS = 500  # along each of FAR and FRR


@dataclass(frozen=True, eq=False)
class ExportedRun:
    """A run and its embedders by precision."""

    run: TrainedRun
    embedders: Mapping[str, OnnxEmbedder]


def check_calibration_runs(run: TrainedRun, others: Sequence[TrainedRun]) -> None:
    """Raise InputError when the held-out speakers of ``others`` cannot calibrate ``run``.

    Each must have been trained with the same hparams to the last epoch, hold out speakers, and be named once.
    """
    if not run.has_held_out:
        check_finished(run)
    seen: dict[str, TrainedRun] = {}  # by fingerprint
    for other in others:
        check_same_training(other, run)
        check_finished(other)
        other.held_out()
        fingerprint = other.fingerprint()
        if fingerprint in seen:
            raise InputError(f"{other.folder}: the same network as in {seen[fingerprint].folder}; name it once")
        seen[fingerprint] = other


def check_same_training(other: TrainedRun, run: TrainedRun) -> None:
    """Raise InputError, naming the first key, when ``other`` was trained with other hparams than ``run``."""
    theirs, ours = (_training_keys(each.hparams) for each in (other, run))
    for key in [key for key in ours if key in theirs]:  # an older run may lack a key
        if theirs[key] != ours[key]:
            found, expected = (_shown(keys[key]) for keys in (theirs, ours))
            raise InputError(
                f"{other.folder}: was trained with another {key}{found}, expected that of {run.folder}{expected}; "
                "give runs of the same hparams that differ in --valid_speakers, --split_seed and --seed only"
            )


def check_finished(run: TrainedRun) -> None:
    """Raise InputError when the newest checkpoint is not that of the last epoch."""
    epoch, last = run.newest_epoch, run.settings["number_of_epochs"]
    if epoch != last:
        reached = "within its first epoch" if epoch is None else f"after epoch {epoch}"
        raise InputError(f"{run.folder}: was stopped {reached} of {last}; start train.py again to finish it")


def _training_keys(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hparams that determine a training, except for seeds and the choice of held-out speakers."""
    left_out = MAY_DIFFER | SIZES | keys_that_affect("free", "scoring")
    return {key: _without(plain_node(node), left_out) for key, node in hparams.items() if key not in left_out}


def _without(node: Any, keys: set[str]) -> Any:
    """Return a plain node without ``keys`` at any depth."""
    if isinstance(node, dict):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(item, keys) for item in node] if isinstance(node, list) else node


def _shown(value: Any) -> str:
    return "" if isinstance(value, dict | list) else f" ({value!r})"


def score_held_out(sources: Sequence[ExportedRun], precision: str, condition: Condition = CLEAN) -> ScoredTrials:
    """Return the trials of each run's held-out speakers, scored by cosine and pooled.

    Raises InputError when a run held out no speakers, or an utterance cannot be read.
    """
    lists = [_score(source, precision, condition) for source in sources]
    if len(lists) == 1:
        return lists[0]
    tables, utterances = [], []
    for number, trials in enumerate(lists):  # two runs may hold out the same utterance
        names = {column: f"{number}/" + trials.table[column] for column in ("enrol_id", "test_id")}
        tables.append(trials.table.assign(**names))
        utterances.append(trials.utterances.assign(ID=f"{number}/" + trials.utterances["ID"]))
    return ScoredTrials(condition.name, pd.concat(tables, ignore_index=True), pd.concat(utterances, ignore_index=True))


def _score(source: ExportedRun, precision: str, condition: Condition) -> ScoredTrials:
    held_out, sample_rate = source.run.held_out(), source.run.sample_rate
    manifest = held_out.manifest
    readers = [
        partial(_read, sample_rate, condition, *row)
        for row in zip(manifest["ID"], manifest["wav"], manifest["start"], manifest["stop"], strict=True)
    ]
    with tqdm(total=len(readers), desc=f"{precision}, {condition.name}", unit="utt", dynamic_ncols=True) as bar:
        embeddings = source.embedders[precision].embed_many(readers, on_each=bar.update)
    utterances = manifest.assign(duration=manifest["duration"].clip(upper=condition.longest_s))
    return ScoredTrials(condition.name, score_trials(embeddings, pd.Index(manifest["ID"]), held_out.trials), utterances)


def _read(sample_rate: int, condition: Condition, utt_id: str, wav: str, start: int, stop: int) -> np.ndarray:
    return condition(read_audio(wav, sample_rate, start, stop), sample_rate, utt_id)


def measure(trials: ScoredTrials) -> Evaluation:
    """Fit calibration and thresholds on held-out trials; measure both by cross-validation over the speakers.

    Raises InputError as ``Thresholds.from_held_out``.
    """
    found = evaluate([trials], None, [SMART_SPEAKER, DOOR], costs=())
    if found.thresholds is None:
        raise InputError(found.not_calibrated)
    return found


def calibration_entry(measured: Evaluation, file: str, fingerprint: str) -> dict:
    """Return an ``EmbedderEntry`` of ``calibration.json``."""
    thresholds, clean = measured.thresholds, measured.clean
    points = {
        use: _with_fields(MeasuredPoint, asdict(point) | asdict(clean.points[use]))
        for use, point in thresholds.points.items()
    }
    return {
        "file": file,
        "fingerprint": fingerprint,
        "calibration": asdict(thresholds.calibration),
        "operating_points": points,
        "error_rates": _curve(clean.llrs, clean.trials.is_target),
        "eer": _with_fields(Rate, asdict(clean.eer)),
    }


def _with_fields(kind: type[Strict], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that ``kind`` has a field for; those that are an interval as a ``Rate``."""
    chosen = {name: values[name] for name in kind.__struct_fields__}
    return {name: _with_fields(Rate, value) if isinstance(value, dict) else value for name, value in chosen.items()}


def _curve(llrs: np.ndarray, is_target: np.ndarray) -> dict[str, list[float]]:
    """Return FAR and FRR at rising thresholds, dense where one of them is low; the last threshold rejects all.

    That one is the next number above the highest ratio, because JSON has no infinity.
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
