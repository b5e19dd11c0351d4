"""What held-out speakers tell: pooled runs, the error curve, calibration entries that the reader takes."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.model_folders import FINGERPRINTS, toy_calibration, write_toy_model_folder
from voice_biometrics.export import calibration as held_out
from voice_biometrics.export.calibration import calibration_entry, measure, rates_under, score_held_out
from voice_biometrics.inference.model_folder import read_model_folder, write_sums
from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.scoring.scored_trials import ScoredTrials


def make_trials(num_speakers=12, num_utterances=5, seed=0) -> ScoredTrials:
    """Return all pairs of utterances, targets scoring 0.6 and non-targets 0.2 in the middle."""
    rng = np.random.default_rng(seed)
    ids = [f"s{speaker}u{number}" for speaker in range(num_speakers) for number in range(num_utterances)]
    utterances = pd.DataFrame({"ID": ids, "spk_id": [name.split("u")[0] for name in ids], "duration": 3.0})
    first, second = np.triu_indices(len(ids), 1)
    target = utterances["spk_id"].to_numpy()[first] == utterances["spk_id"].to_numpy()[second]
    scores = rng.normal(np.where(target, 0.6, 0.2), 0.15)
    names = np.array(ids)
    table = pd.DataFrame(
        {"enrol_id": names[first], "test_id": names[second], "target": target.astype(int), "score": scores}
    )
    return ScoredTrials("clean", table, utterances)


@pytest.fixture(scope="module")
def measured():
    return measure(make_trials())


def test_an_entry_is_what_the_reader_of_a_model_folder_takes(measured, tmp_path):
    folder = write_toy_model_folder(tmp_path / "model")
    content = toy_calibration(FINGERPRINTS)
    entry = calibration_entry(measured, "embedder.onnx", FINGERPRINTS["fp32"])
    content["embedders"]["fp32"] = entry
    (folder / "calibration.json").write_text(json.dumps(content))
    write_sums(folder)
    read = read_model_folder(folder).embedder("fp32")
    assert read.calibration == measured.thresholds.calibration
    point = read.operating_points["smart_speaker"]
    assert point.support == "coarse" and point.num_nontarget == 1650
    assert point.far.lower <= point.far.estimate <= 0.01 < point.far.upper


def test_the_curve_has_the_rates_of_all_trials_at_its_thresholds(measured):
    curve = calibration_entry(measured, "a", "b")["error_rates"]
    llr, far, frr = (np.array(curve[key]) for key in ("llr", "far", "frr"))
    is_target = measured.trials.is_target
    for threshold, rate, other in zip(llr, far, frr, strict=True):
        assert np.mean(measured.llrs[~is_target] >= threshold) == pytest.approx(rate)
        assert np.mean(measured.llrs[is_target] < threshold) == pytest.approx(other)
    assert llr.size <= 1002 and (far[0], frr[0], far[-1], frr[-1]) == (1, 0, 0, 1)


def test_the_curve_keeps_every_far_that_a_user_may_ask_for_within_a_hundredth(measured):
    curve = calibration_entry(measured, "a", "b")["error_rates"]
    rates = error_rates(measured.llrs, measured.trials.is_target)
    for max_far in (0.2, 0.05, 0.01, 0.003):
        frr, _ = rates.frr_at_far(max_far)
        kept = np.flatnonzero(np.array(curve["far"]) <= max_far)[0]
        assert curve["frr"][kept] == pytest.approx(frr, abs=0.01)


def test_ratios_are_judged_by_other_speakers(measured):
    own = measured.thresholds.calibration.llrs(measured.trials.scores)
    assert np.abs(measured.llrs - own).max() > 0.01
    assert np.median(np.abs(measured.llrs - own)) < 1


def test_worse_scores_of_the_same_trials_give_worse_rates_at_the_same_threshold(measured):
    rng = np.random.default_rng(1)
    table = measured.trials.table
    worse = table.assign(score=table["score"] + rng.normal(0.1, 0.1, len(table)))
    point = measured.thresholds.points["smart_speaker"]
    rates = rates_under(measured, ScoredTrials("noise", worse, measured.trials.utterances), point)
    assert rates["eer"].estimate > measured.figures["eer"].estimate
    assert rates["far"].estimate > 2 * measured.thresholds.held_out["smart_speaker"].far.estimate


def test_runs_are_pooled_by_speaker_and_an_utterance_of_two_runs_counts_for_each(monkeypatch):
    lists = iter([make_trials(8, seed=1), make_trials(10, seed=2)])
    monkeypatch.setattr(held_out, "_score", lambda *args: next(lists))
    pooled = score_held_out(["first run", "second run"], "fp32")
    assert len(pooled.utterances) == 40 + 50 == pooled.utterances["ID"].nunique()
    assert pooled.utterances["spk_id"].nunique() == 10
    assert len(pooled.table) == 780 + 1225
    assert (pooled.table["enrol_id"].str[0] == pooled.table["test_id"].str[0]).all()  # no trial of two models
    enrol, test = pooled.speakers()
    np.testing.assert_array_equal(enrol == test, pooled.is_target)
