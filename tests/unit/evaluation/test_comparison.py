"""Two systems on the same trials: alignment, differences, speakers found from targets, and what does not fit."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import make_trials
from voice_biometrics.evaluation.comparison import align_scores, compare_systems, speakers_of_targets
from voice_biometrics.metrics.error_rates import Cost, error_rates
from voice_biometrics.scoring.scored_trials import ScoredTrials

MANIFEST = pd.DataFrame({"ID": [f"u{number}" for number in range(80)], "spk_id": [f"s{n // 4}" for n in range(80)]})
SPEAKER_OF = MANIFEST.set_index("ID")["spk_id"]
TRIALS = make_trials(MANIFEST, None, seed=0)


def system(distance, seed):
    noise = np.random.default_rng(seed).normal(size=len(TRIALS))
    return TRIALS.assign(score=noise + distance * TRIALS["target"])


def compared(a, b):
    """Compare two tables of the same trials at one cost."""
    return compare_systems(
        ScoredTrials("clean", a, MANIFEST), align_scores(a, b, "B")["score"].to_numpy(), [Cost(0.05)]
    )


def test_trials_are_aligned_whatever_their_order_and_the_type_of_their_columns():
    a, b = system(2.0, 0), system(2.0, 1)
    shuffled = b.sample(frac=1.0, random_state=0).astype({"enrol_id": "category", "test_id": "category"})
    for other in (b, shuffled, b.astype({"enrol_id": object, "test_id": object})):
        aligned = align_scores(a, other, "B")
        assert aligned["score"].tolist() == b["score"].tolist()
        assert aligned["test_id"].tolist() == a["test_id"].tolist()


def test_values_are_those_of_the_metrics_and_the_difference_is_theirs():
    a, b = system(2.5, 0), system(1.5, 1)
    figures = compared(a, b.sample(frac=1.0, random_state=0))
    assert [figure.name for figure in figures] == ["EER", "minDCF, p_target 0.05", "FRR at FAR 1 %"]
    target = TRIALS["target"]
    rates = [error_rates(scores["score"], target) for scores in (a, b)]
    expected = [(each.equal_error_rate()[0], each.min_dcf(0.05)[0], each.frr_at_far(0.01)[0]) for each in rates]
    for figure, value_a, value_b in zip(figures, *expected, strict=True):
        assert (figure.value_a, figure.value_b) == (value_a, value_b)
        assert figure.difference.estimate == pytest.approx(value_a - value_b, abs=1e-12)
        assert figure.difference.lower < figure.difference.upper < 0.0
        assert figure.difference.num_speakers == 20
    assert figures[0].difference.p_value < 0.05


def test_a_system_does_not_differ_from_itself_and_swapping_turns_the_sign():
    a, b = system(2.0, 0), system(2.1, 1)
    for figure in compared(a, a):
        assert figure.difference.estimate == 0.0 and figure.difference.p_value == pytest.approx(1.0)
    for one, other in zip(compared(a, b), compared(b, a), strict=True):
        assert one.difference.estimate == -other.difference.estimate
        assert one.difference.p_value == pytest.approx(other.difference.p_value, abs=1e-9)


def test_an_frr_that_the_trials_cannot_tell_is_marked_or_left_out():
    coarse = compared(system(2.0, 0), system(2.0, 1))[-1]
    assert coarse.remark == "" and coarse.name == "FRR at FAR 1 %"
    some = (TRIALS["target"] == 1) | (np.arange(len(TRIALS)) % 2 == 0)
    marked = compared(system(2.0, 0)[some], system(2.0, 1)[some])[-1]
    assert "known coarsely" in marked.remark
    few = (TRIALS["target"] == 1) | (np.arange(len(TRIALS)) % 20 == 0)
    names = [figure.name for figure in compared(system(2, 0)[few], system(2, 1)[few])]
    assert names == ["EER", "minDCF, p_target 0.05"]


def test_systems_with_other_trials_are_refused_with_their_numbers_and_an_example():
    a, b = system(2.0, 0), system(2.0, 1)
    with pytest.raises(
        InputError, match=r"none is only in this system; 2 only in y.csv \(such as u0 u1\); score the same"
    ):
        align_scores(a.iloc[2:], b, "y.csv")
    turned = b.rename(columns={"enrol_id": "test_id", "test_id": "enrol_id"})
    with pytest.raises(
        InputError, match=r"3,160 only in this system \(such as u0 u1\); 3,160 only in B \(such as u1 u0\)"
    ):
        align_scores(a, turned, "B")
    with pytest.raises(InputError, match=r"trial u0 u1 has target 1 in this system, 0 in B \(1 such"):
        align_scores(a, b.assign(target=b["target"] * (b.index > 0)), "B")


def test_speakers_are_found_from_targets():
    found = speakers_of_targets(TRIALS)
    assert found.index.is_unique and set(found.index) == set(MANIFEST["ID"])
    assert found.groupby(SPEAKER_OF).nunique().eq(1).all() and found.nunique() == 20
    assert found["u3"] == "u0"
    chain = pd.DataFrame({"enrol_id": ["a", "c", "a"], "test_id": ["b", "b", "d"], "target": [1, 1, 0]})
    assert speakers_of_targets(chain).to_dict() == {"a": "a", "b": "a", "c": "a", "d": "d"}
