"""Block-wise cosine scores against one cosine per trial, whatever the shape of the trial list."""

import numpy as np
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring import cosine as scoring
from voice_biometrics.scoring.cosine import cosine_scores


def one_by_one(embeddings, enrol_index, test_index):
    """The definition, per trial, in double precision."""
    embeddings = np.asarray(embeddings, np.float64)
    pairs = ((embeddings[enrol], embeddings[test]) for enrol, test in zip(enrol_index, test_index, strict=True))
    return np.array([left @ right / np.linalg.norm(left) / np.linalg.norm(right) for left, right in pairs])


def random_embeddings(num_utterances, seed=0, dims=192):
    return np.random.default_rng(seed).normal(size=(num_utterances, dims)).astype(np.float32)


def all_pairs(num_utterances):
    return np.triu_indices(num_utterances, 1)


def shuffled_pairs(num_utterances):
    enrol, test = all_pairs(num_utterances)
    order = np.random.default_rng(1).permutation(enrol.size)
    return enrol[order], test[order]


def sparse_pairs(num_utterances):
    return tuple(np.random.default_rng(2).integers(0, num_utterances, (2, 3 * num_utterances)))


def one_against_all(num_utterances):
    return np.full(num_utterances, 5), np.arange(num_utterances)


def test_scores_equal_the_cosine_of_each_trial_in_trial_order(monkeypatch):
    for list_of_trials in [all_pairs, shuffled_pairs, sparse_pairs, one_against_all]:
        monkeypatch.setattr(scoring, "ROWS_PER_GATHER", 7)
        embeddings, (enrol, test) = random_embeddings(60), list_of_trials(60)
        for trials_per_block in (1, 100, 2**20):
            monkeypatch.setattr(scoring, "TRIALS_PER_BLOCK", trials_per_block)
            scores = cosine_scores(embeddings, enrol, test)
            assert scores.dtype == np.float32
            assert np.abs(scores - one_by_one(embeddings, enrol, test)).max() < 1e-6


def test_matrix_and_row_by_row_blocks_give_the_same_scores(monkeypatch):
    embeddings, (enrol, test) = random_embeddings(80), sparse_pairs(80)
    for share in (0.0, 2.0):  # always a matrix product, never
        monkeypatch.setattr(scoring, "MIN_FILLED_SHARE", share)
        assert np.abs(cosine_scores(embeddings, enrol, test) - one_by_one(embeddings, enrol, test)).max() < 1e-6


def test_scores_match_hand_computed_angles():
    embeddings = np.array([[2.0, 0.0], [0.0, 0.5], [3.0, 3.0], [-1.0, 0.0]], np.float32)
    scores = cosine_scores(embeddings, np.array([0, 0, 0, 2, 2]), np.array([1, 2, 3, 0, 2]))
    assert scores == pytest.approx([0.0, 0.5**0.5, -1.0, 0.5**0.5, 1.0], abs=1e-6)


def test_scaling_an_embedding_changes_no_score_even_by_extreme_factors():
    for scale in [1e-42, 1e-30, 1e30]:
        embeddings, (enrol, test) = random_embeddings(20), all_pairs(20)
        if scale < 1e-38:  # subnormal numbers keep few digits: the scaled values are the reference
            embeddings[3] = embeddings[3] * np.float32(scale)
            expected = one_by_one(embeddings, enrol, test)
        else:
            expected = one_by_one(embeddings, enrol, test)
            embeddings[3] *= np.float32(scale)
        assert np.abs(cosine_scores(embeddings, enrol, test) - expected).max() < 1e-6


def test_scores_stay_within_one_and_double_precision_stays_double():
    embeddings = np.repeat(random_embeddings(1), 50, axis=0)
    assert np.abs(cosine_scores(embeddings, *all_pairs(50))).max() <= 1.0
    exact = random_embeddings(50).astype(np.float64)
    scores = cosine_scores(exact, *all_pairs(50))
    assert scores.dtype == np.float64
    assert np.abs(scores - one_by_one(exact, *all_pairs(50))).max() < 1e-14


def test_a_bad_embedding_is_named():
    for value, complaint in [(0.0, "all zero"), (np.nan, "not finite"), (-np.inf, "not finite")]:
        embeddings = random_embeddings(4, dims=3)
        embeddings[2] = value
        with pytest.raises(InputError, match=rf"row 2 .*{complaint}"):
            cosine_scores(embeddings, np.array([0]), np.array([1]))
        with pytest.raises(InputError, match=rf"c\.wav .*{complaint}"):
            cosine_scores(embeddings, np.array([0]), np.array([1]), names=["a.wav", "b.wav", "c.wav", "d.wav"])


def test_an_index_without_embedding_is_refused():
    for enrol, test in (([0, 4], [1, 1]), ([0, 1], [1, -1]), ([0, 1], [1])):
        with pytest.raises(ValueError, match="rows of 4 embeddings"):
            cosine_scores(random_embeddings(4), np.array(enrol), np.array(test))
