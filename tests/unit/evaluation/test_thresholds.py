"""Thresholds chosen on held-out trials, and the figures of a list: they agree with each other and are told as JSON."""

import json

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.evaluate import judge, with_llrs
from voice_biometrics.evaluation.thresholds import Thresholds
from voice_biometrics.metrics.calibration import Calibration
from voice_biometrics.metrics.error_rates import USUAL_COSTS, Cost
from voice_biometrics.metrics.operating_points import DOOR, SMART_SPEAKER, CustomUse, Use
from voice_biometrics.scoring.scored_trials import ScoredTrials

USES = [SMART_SPEAKER, DOOR, CustomUse(Cost(0.5, c_miss=1.0, c_fa=100.0))]


def scored_speakers(num_speakers=20, seed=0, name="clean") -> ScoredTrials:
    """All pairs of 10 utterances of each speaker; short utterances score lower."""
    rng = np.random.default_rng(seed)
    ids = [f"s{speaker:02d}u{number}" for speaker in range(num_speakers) for number in range(10)]
    duration = np.where(np.arange(len(ids)) % 2, 1.0, 4.0)
    utterances = pd.DataFrame({"ID": ids, "spk_id": [utt_id[:3] for utt_id in ids], "duration": duration})
    first, second = np.triu_indices(len(ids), 1)
    target = first // 10 == second // 10
    score = rng.normal(0.6, 0.12, first.size) * np.where(duration[first] * duration[second] > 3, 1.0, 0.7)
    table = pd.DataFrame({"enrol_id": np.array(ids)[first], "test_id": np.array(ids)[second], "target": target * 1})
    return ScoredTrials(
        name, table.assign(score=np.where(target, score, rng.normal(0.0, 0.12, first.size))), utterances
    )


@pytest.fixture(scope="module")
def held_out() -> ScoredTrials:
    return scored_speakers()


@pytest.fixture(scope="module")
def thresholds(held_out) -> Thresholds:
    return Thresholds.from_held_out(held_out, USES, with_durations=False)


def test_a_use_keeps_to_its_far_on_the_trials_it_was_chosen_on(thresholds):
    assert thresholds.held_out["smart_speaker"].far.estimate == pytest.approx(0.01, abs=1e-4)
    assert thresholds.points["door"].max_far == pytest.approx(30 / 19_000)  # 0.01 % is not supported by 19,000
    assert thresholds.points["custom"].threshold == pytest.approx(np.log(100.0))


def test_a_use_that_the_trials_cannot_support_is_refused_with_the_reason(held_out):
    strict = Use("vault", max_far=1e-6, highest_far=1e-6)
    thresholds = Thresholds.from_held_out(held_out, [strict], with_durations=False)
    assert not thresholds.points and "19,000 non-target trials" in thresholds.refused["vault"]


def test_the_figures_of_other_speakers_agree_with_a_count_by_hand(thresholds):
    other = scored_speakers(seed=1)
    figures = with_llrs(judge(other, USUAL_COSTS), thresholds, USUAL_COSTS, are_held_out=False).summary
    for use in thresholds.points:
        accepted = other.scores >= thresholds.score_at(use)
        found = figures["operating_points"][use]
        assert found["num_false_accepts"] == np.count_nonzero(accepted & ~other.is_target)
        assert found["frr"]["estimate"] == np.mean(~accepted[other.is_target])
        assert found["far"]["lower"] <= found["far"]["estimate"] <= found["far"]["upper"]
    assert figures["min_cllr"] < figures["cllr"] <= figures["cllr_interval"][1] < 1.0


def test_durations_as_quality_lower_the_cost_where_short_utterances_score_lower(held_out, thresholds):
    better = Thresholds.from_held_out(held_out, USES, with_durations=True)
    other = scored_speakers(seed=2)
    cost = [
        with_llrs(judge(other, USUAL_COSTS), one, USUAL_COSTS, are_held_out=False).summary["cllr"]
        for one in (better, thresholds)
    ]
    assert cost[0] < 0.95 * cost[1]
    assert better.score_at("door") is None


def test_calibration_json_gives_back_the_calibration_and_the_thresholds(thresholds, tmp_path):
    thresholds.write(tmp_path / "calibration.json", {"speakers": 20})
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert Calibration(**content["calibration"]) == thresholds.calibration
    point = content["operating_points"]["smart_speaker"]
    assert thresholds.calibration.llrs([point["score"]])[0] == pytest.approx(point["threshold"])
    assert point["held_out"]["num_nontarget"] == 19_000
    assert content["from"] == {"speakers": 20}


def test_the_figures_have_intervals_and_marks_and_are_json(held_out):
    figures = json.loads(json.dumps(judge(held_out, USUAL_COSTS).summary))
    assert figures["interval"][0] < figures["eer"] < figures["interval"][1] and figures["num_speakers"] == 20
    assert figures["rocch_eer"] <= figures["eer"]
    assert [entry["support"] for entry in figures["frr_at_far"]] == ["supported", "coarse", "unsupported"]
    assert figures["frr_at_far"][2]["frr"] is None and "interval" not in figures["frr_at_far"][2]
    for entry in figures["min_dcf"]:
        assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]


def test_the_frr_has_intervals_along_the_det_curve(held_out):
    found = judge(held_out, USUAL_COSTS, band_fars=[0.02, 0.1])
    assert found.eer.estimate == found.summary["eer"]
    assert list(found.frr_at) == [0.02, 0.1] and found.frr_at[0.02].estimate > found.frr_at[0.1].estimate


def test_a_manifest_of_other_utterances_is_refused_by_name(held_out):
    trials = ScoredTrials("clean", held_out.table, held_out.utterances.iloc[1:])
    with pytest.raises(InputError, match="trial 1: enrol_id s00u0 is not among the 199 utterances"):
        _ = trials.bootstrap
