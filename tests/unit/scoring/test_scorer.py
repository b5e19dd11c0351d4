"""Scores as the hparams say, models of several utterances, and a cohort that must be of other speakers."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring.as_norm import as_norm_scores
from voice_biometrics.scoring.enrolment import draw_enrolment, read_enrolment, with_models
from voice_biometrics.scoring.scorer import Scorer, Scoring

UTTERANCES = pd.DataFrame(
    {
        "ID": [f"{speaker}{number}" for speaker in "abc" for number in range(4)] + ["d0"],
        "spk_id": [*"aaaabbbbcccc", "d"],
        "duration": np.arange(13.0) + 1.0,
        "wav": [f"{number}.wav" for number in range(13)],
    }
)
TRIALS = pd.DataFrame({"enrol_id": ["a0", "a0", "b1"], "test_id": ["a1", "b0", "c2"], "target": [1, 0, 0]})


@pytest.fixture
def embeddings() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(13, 6)) + np.repeat(np.eye(4, 6) * 4, [4, 4, 4, 1], axis=0)


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(1).normal(size=(20, 6)) + 0.5, np.repeat([f"t{number}" for number in range(5)], 4)


def test_without_scoring_keys_a_score_is_the_cosine(embeddings):
    found = Scorer(Scoring()).score("clean", embeddings, UTTERANCES, TRIALS)
    one, other = embeddings[4 + 1], embeddings[8 + 2]
    assert found.scores[2] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_cohorts_mean_is_taken_away(embeddings, cohort):
    found = Scorer(Scoring(subtract_mean=True), *cohort).score("clean", embeddings, UTTERANCES, TRIALS)
    moved = Scorer(Scoring()).score("clean", embeddings - cohort[0].mean(axis=0), UTTERANCES, TRIALS)
    np.testing.assert_allclose(found.scores, moved.scores)


def test_as_norm_uses_the_cohort_of_utterances_or_of_speakers(embeddings, cohort):
    by_utterance = Scorer(Scoring(as_norm_top=5, as_norm_cohort="utterances"), *cohort)
    by_speaker = Scorer(Scoring(as_norm_top=5), *cohort)
    expected = as_norm_scores(embeddings, np.array([0, 0, 5]), np.array([1, 4, 10]), cohort[0], 5)
    np.testing.assert_allclose(by_utterance.score("clean", embeddings, UTTERANCES, TRIALS).scores, expected)
    assert not np.allclose(by_speaker.score("clean", embeddings, UTTERANCES, TRIALS).scores, expected)


def test_a_cohort_with_a_speaker_of_the_trials_is_refused(embeddings, cohort):
    speakers = np.where(cohort[1] == "t0", "b", cohort[1])
    with pytest.raises(InputError, match="speaker b .*cohort"):
        Scorer(Scoring(subtract_mean=True), cohort[0], speakers).score("clean", embeddings, UTTERANCES, TRIALS)


def test_unknown_scoring_is_refused():
    for keys, named in (({"as_norm_cohort": "x"}, "speakers or utterances"), ({"as_norm_top": 1}, "as_norm_top is 1")):
        with pytest.raises(InputError, match=named):
            Scoring(**keys)


def test_every_other_utterance_is_tried_against_every_model():
    enrolment, trials = draw_enrolment(UTTERANCES, 3, seed=0, name="test")
    assert enrolment.groupby("model_id").size().to_dict() == {"model-a": 3, "model-b": 3, "model-c": 3}
    assert len(trials) == 3 * 4 and trials["target"].sum() == 3  # d has no model, its utterance is tried
    assert not set(trials["test_id"]) & set(enrolment["utt_id"])
    assert draw_enrolment(UTTERANCES, 3, seed=0, name="test")[0].equals(enrolment)
    assert not draw_enrolment(UTTERANCES, 3, seed=1, name="test")[0].equals(enrolment)


def test_more_utterances_than_anybody_has_are_told():
    with pytest.raises(InputError, match="no speaker has 4 utterances"):
        draw_enrolment(UTTERANCES, 4, seed=0, name="test")


def test_a_model_is_the_average_of_its_utterances_and_lasts_as_long_as_all(embeddings):
    enrolment = pd.DataFrame({"model_id": ["m", "m"], "utt_id": ["c0", "c3"]})
    both, utterances = with_models(embeddings, UTTERANCES, enrolment)
    model = utterances.iloc[13]
    assert (model["ID"], model["spk_id"], model["duration"], model["wav"]) == ("m", "c", 21.0, "8.wav + 11.wav")
    units = embeddings[[8, 11]] / np.linalg.norm(embeddings[[8, 11]], axis=1, keepdims=True)
    expected = units.sum(axis=0) / np.linalg.norm(units.sum(axis=0))
    np.testing.assert_allclose(both[13], expected)


def test_a_model_of_several_utterances_is_scored(embeddings):
    enrolment, trials = draw_enrolment(UTTERANCES, 2, seed=0, name="test")
    found = Scorer(Scoring()).score("clean", embeddings, UTTERANCES, trials, enrolment)
    assert len(found.scores) == len(trials) and found.of_sides("spk_id")[0][0] == "a"


def test_a_faulty_enrolment_list_is_named_by_line(tmp_path):
    for rows, named in (
        ("m,a9\n", "line 2: model m, utterance a9"),
        ("m,a0\nm,b0\n", "line 3: .*utterance b0: second speaker"),
        ("a0,a1\n", "line 2: model a0"),
        ("m,a0\nm,a0\n", "line 3: .*repeated"),
        ("", "expected rows of model_id and utt_id"),
    ):
        (tmp_path / "enrol.csv").write_text("model_id,utt_id\n" + rows)
        with pytest.raises(InputError, match=named):
            read_enrolment(tmp_path / "enrol.csv", UTTERANCES)


def test_a_sound_enrolment_list_is_read(tmp_path):
    (tmp_path / "enrol.csv").write_text("\ufeffmodel_id,utt_id\r\nm,a0\r\nm,a1\r\n", encoding="utf-8")
    assert read_enrolment(tmp_path / "enrol.csv", UTTERANCES)["utt_id"].tolist() == ["a0", "a1"]
