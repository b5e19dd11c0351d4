"""Cohort normalisation against one trial at a time, its invariances, and bad cohorts."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring import as_norm as score_normalisation
from voice_biometrics.scoring.as_norm import (
    as_norm_scores,
    average_by_group,
    check_other_speakers,
    cohort_statistics,
    subtract_cohort_mean,
)


def cosine(left, right):
    return left @ right / np.linalg.norm(left) / np.linalg.norm(right)


def as_norm_of_one_trial(enrol, test, cohort, top_k):
    """The definition, in double precision, as SpeechBrain's recipe loops over trials (deviation of a sample)."""
    score = cosine(enrol, test)
    sides = []
    for side in (enrol, test):
        nearest = sorted((cosine(side, other) for other in cohort), reverse=True)[:top_k]
        sides.append((score - np.mean(nearest)) / np.std(nearest, ddof=1))
    return np.mean(sides)


def random_trials(seed=0, num_utterances=12, num_cohort=40, dims=16):
    """Embeddings, enrolment and test rows of 30 trials, and a cohort, in double precision."""
    rng = np.random.default_rng(seed)
    enrol_index, test_index = rng.integers(0, num_utterances, (2, 30))
    return rng.normal(size=(num_utterances, dims)), enrol_index, test_index, rng.normal(size=(num_cohort, dims))


def test_as_norm_equals_the_definition_one_trial_at_a_time(monkeypatch):
    for top_k, scores_per_block in [(2, 1), (7, 100), (40, 2**24)]:
        monkeypatch.setattr(score_normalisation, "SCORES_PER_BLOCK", scores_per_block)
        embeddings, enrol_index, test_index, cohort = random_trials()
        expected = [
            as_norm_of_one_trial(embeddings[enrol], embeddings[test], cohort, top_k)
            for enrol, test in zip(enrol_index, test_index, strict=True)
        ]
        exact = as_norm_scores(embeddings, enrol_index, test_index, cohort, top_k)
        assert np.abs(exact / expected - 1.0).max() < 1e-10
        single = as_norm_scores(
            embeddings.astype(np.float32), enrol_index, test_index, cohort.astype(np.float32), top_k
        )
        assert np.abs(single / expected - 1.0).max() < 5e-3


def test_as_norm_matches_a_hand_computed_trial():
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0]])
    cohort = np.array([[3.0, 4.0], [4.0, 3.0], [0.0, -1.0]])  # cosines 0.6, 0.8, 0 and 0.8, 0.6, -1
    mean, deviation = cohort_statistics(embeddings, cohort, top_k=2)
    assert mean == pytest.approx([0.7, 0.7]) and deviation == pytest.approx([0.02**0.5] * 2)
    assert as_norm_scores(embeddings, np.array([0]), np.array([1]), cohort, 2) == pytest.approx([-0.7 / 0.02**0.5])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0))
def test_as_norm_ignores_cohort_order_lengths_and_the_side_of_an_utterance(seed, scale):
    embeddings, enrol_index, test_index, cohort = random_trials(seed)
    expected = as_norm_scores(embeddings, enrol_index, test_index, cohort, 10)
    shuffled = np.random.default_rng(seed).permutation(cohort)
    scaled = cohort * np.linspace(scale, 1.0, len(cohort))[:, None]
    for other in (shuffled, scaled):
        assert np.allclose(as_norm_scores(embeddings, enrol_index, test_index, other, 10), expected, atol=1e-9)
    assert np.allclose(as_norm_scores(scale * embeddings, test_index, enrol_index, cohort, 10), expected, atol=1e-9)


def test_averages_are_of_unit_embeddings_in_the_order_of_the_groups():
    embeddings = np.array([[0.0, 2.0], [5.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    averages, names = average_by_group(embeddings, ["b", "a", "b", "b"])
    assert names.tolist() == ["a", "b"]
    assert averages == pytest.approx(np.array([[1.0, 0.0], [1.0, 2.0] / np.sqrt(5.0)]))
    assert np.array_equal(embeddings[0], [0.0, 2.0])


def test_the_cohort_mean_is_taken_away_in_the_precision_of_the_embeddings():
    embeddings = np.array([[1.0, 2.0]], np.float32)
    centred = subtract_cohort_mean(embeddings, np.array([[0.0, 2.0], [1.0, 4.0]]))
    assert centred.dtype == np.float32 and centred.tolist() == [[0.5, -1.0]]
    assert embeddings.tolist() == [[1.0, 2.0]]


def test_a_cohort_with_speakers_of_the_trials_is_refused_by_name():
    check_other_speakers("the cohort", ["a", "b"], ["c", "d"])
    with pytest.raises(InputError, match=r"speaker b is in the cohort and in the trials \(2 such"):
        check_other_speakers("the cohort", ["c", "b", "a"], iter(["b", "c", "x"]))


def test_a_cohort_smaller_than_top_k_is_refused():
    embeddings, _, _, cohort = random_trials()
    for top_k in (41, 1, 0):
        with pytest.raises(InputError, match=f"top_k is {top_k} for a cohort of 40"):
            cohort_statistics(embeddings, cohort, top_k)


def test_a_bad_embedding_of_the_cohort_or_the_trials_is_named():
    for value, complaint in [(0.0, "all zero"), (np.nan, "not finite")]:
        embeddings, _, _, cohort = random_trials()
        cohort[3] = value
        with pytest.raises(InputError, match=rf"row 3 .*{complaint}"):
            cohort_statistics(embeddings, cohort, 5)
        with pytest.raises(InputError, match=rf"row 3 .*{complaint}"):
            average_by_group(cohort, ["a"] * 40)
        if complaint == "not finite":
            with pytest.raises(InputError, match="mean of the cohort"):
                subtract_cohort_mean(embeddings, cohort)


def test_a_cohort_of_one_utterance_many_times_over_is_refused():
    embeddings = random_trials()[0].astype(np.float32)
    with pytest.raises(InputError, match="utterance row 0"):
        cohort_statistics(embeddings, np.ones((30, 16), np.float32), 5)


def test_embeddings_of_a_group_that_cancel_out_are_refused():
    with pytest.raises(InputError, match="group a .*all zero"):
        average_by_group(np.array([[1.0, 0.0], [-3.0, 0.0]]), ["a", "a"])
