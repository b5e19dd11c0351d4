"""The worst speakers and trials, from a list small enough to count by hand."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.groups import worst_speakers, worst_trials

MANIFEST = pd.DataFrame(
    {"ID": ["a1", "a2", "b1", "b2", "c1", "c2", "d1"], "spk_id": list("aabbccd"), "wav": [f"{n}.wav" for n in range(7)]}
)
SCORES = pd.DataFrame(
    [
        ("a1", "a2", 1, 0.2),  # missed by 0.3
        ("b1", "b2", 1, 0.9),
        ("c1", "c2", 1, 0.5),  # on the threshold: accepted
        ("a1", "b1", 0, 0.6),  # let in by 0.1
        ("b2", "a2", 0, 0.7),  # let in by 0.2
        ("c1", "a1", 0, 0.9),  # let in by 0.4
        ("c1", "b1", 0, 0.1),
        ("c2", "b1", 0, 0.5),  # let in by 0.0
        ("d1", "b1", 0, 0.0),
    ],
    columns=["enrol_id", "test_id", "target", "score"],
)


@pytest.mark.parametrize("scores", [SCORES, SCORES.astype({"enrol_id": "category", "test_id": "category"})])
def test_speakers_are_ordered_by_the_mean_of_their_rates(scores):
    table = worst_speakers(scores, MANIFEST, 0.5)
    assert table["spk_id"].tolist() == ["a", "c", "b"]  # d has no error
    assert table["num_target"].tolist() == [1, 1, 1] and table["num_false_rejects"].tolist() == [1, 0, 0]
    assert table["num_nontarget"].tolist() == [3, 3, 5] and table["num_false_accepts"].tolist() == [3, 2, 3]
    np.testing.assert_allclose(table["frr"], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(table["far"], [1.0, 2 / 3, 3 / 5])
    np.testing.assert_allclose(table["mean_error"], [1.0, 1 / 3, 0.3])
    assert table["confused_with"].tolist() == ["b", "a", "a"]  # c: 1 of 1 with a comes before 1 of 2 with b
    assert table["num_confused"].tolist() == [2, 1, 2] and table["num_met"].tolist() == [2, 1, 2]
    assert worst_speakers(scores, MANIFEST, 0.5, count=1)["spk_id"].tolist() == ["a"]


def test_a_rate_without_trials_is_left_out_of_the_mean_and_nobody_confused_is_none():
    table = worst_speakers(SCORES, MANIFEST, 0.0).set_index("spk_id")
    assert np.isnan(table.loc["d", "frr"]) and table.loc["d", "mean_error"] == table.loc["d", "far"] == 1.0
    strict = worst_speakers(SCORES, MANIFEST, 0.95).set_index("spk_id")
    assert list(strict.index) == ["a", "b", "c"] and strict["confused_with"].isna().all()
    assert strict["num_confused"].tolist() == [0, 0, 0]


def test_trials_are_ordered_by_their_distance_from_the_threshold():
    table = worst_trials(SCORES, MANIFEST, 0.5)
    assert table["error"].tolist() == ["false accept", "false reject"] + ["false accept"] * 3
    assert table[["enrol_id", "test_id"]].to_numpy().tolist() == [
        ["c1", "a1"], ["a1", "a2"], ["b2", "a2"], ["a1", "b1"], ["c2", "b1"],
    ]  # fmt: skip
    np.testing.assert_allclose(table["distance"], [0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-12)
    first = table.iloc[0]
    assert (first["score"], first["enrol_wav"], first["test_wav"]) == (0.9, "4.wav", "0.wav")
    assert (first["enrol_spk_id"], first["test_spk_id"]) == ("c", "a")
    assert worst_trials(SCORES, MANIFEST, 0.5, count=2)["score"].tolist() == [0.9, 0.2]


def test_a_system_without_errors_has_no_worst():
    sound = SCORES.assign(score=SCORES["target"])
    assert worst_speakers(sound, MANIFEST, 0.5).empty and worst_trials(sound, MANIFEST, 0.5).empty


def test_an_utterance_that_is_not_in_the_manifest_is_named():
    with pytest.raises(InputError, match="trial 9: enrol_id d1 is not among the 6 utterances"):
        worst_speakers(SCORES, MANIFEST.iloc[:6], 0.5)
