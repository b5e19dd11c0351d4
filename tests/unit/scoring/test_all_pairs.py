"""All pairs in blocks: each once, with its label, in any order and with any number of processes."""

import tracemalloc

import numpy as np
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import Cost, error_rates
from voice_biometrics.metrics.histograms import BIN_WIDTH, count_scores
from voice_biometrics.scoring import all_pairs
from voice_biometrics.scoring.all_pairs import _normalise_and_sort, all_pairs_histogram
from voice_biometrics.scoring.cosine import cosine_scores, normalise_lengths


def voices(num_utterances: int, num_speakers: int, dims: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings around the mean of their speaker, and speakers of unlike numbers of utterances, in no order."""
    rng = np.random.default_rng(num_utterances)
    speakers = (num_speakers * rng.random(num_utterances) ** 2).astype(int)
    means = rng.standard_normal((num_speakers, dims))
    embeddings = 3 * (means[speakers] + rng.standard_normal((num_utterances, dims)))
    return embeddings.astype(np.float32), np.array([f"s{number}" for number in speakers])


@pytest.mark.parametrize("num_utterances", [3, 20, 57, 64])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_every_pair_is_counted_once_with_its_label(monkeypatch, num_utterances, num_processes):
    if num_processes == 1:  # others read the module again
        monkeypatch.setattr(all_pairs, "ROWS", 8)
        monkeypatch.setattr(all_pairs, "COLUMNS", 16)
    elif num_utterances != 57:
        pytest.skip("starting processes takes seconds")
    embeddings, speakers = voices(num_utterances, 2 if num_utterances == 3 else 7)
    enrol, test = np.triu_indices(num_utterances, 1)
    scores, is_target = cosine_scores(embeddings, enrol, test), speakers[enrol] == speakers[test]
    found = all_pairs_histogram(embeddings.copy(), speakers, num_processes)
    for counts, expected in ((found.target, scores[is_target]), (found.nontarget, scores[~is_target])):
        assert counts.sum() == expected.size
        # scores differ by rounding errors, so one at an edge may be in the next bin
        assert np.abs(np.cumsum(counts - count_scores(expected.copy()))).max() <= 1


def test_embeddings_are_normalised_and_sorted_without_a_second_copy():
    embeddings, speakers = voices(10_000, 50, dims=200)
    order = np.argsort(speakers)
    expected = normalise_lengths(embeddings)[order]
    tracemalloc.start()
    _normalise_and_sort(embeddings, order)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(embeddings, expected)
    assert peak < embeddings.nbytes / 3


def test_faults_are_told():
    embeddings, speakers = voices(20, 7)
    with pytest.raises(InputError, match="--processes 0"):
        all_pairs_histogram(embeddings, speakers, 0)
    with pytest.raises(InputError, match="0 non-target"):
        all_pairs_histogram(embeddings, np.array(["a"] * 20))
    embeddings[3] = 0
    with pytest.raises(InputError, match="row 3"):
        all_pairs_histogram(embeddings, speakers)


@pytest.mark.slow
def test_fifty_million_pairs_have_the_figures_of_their_scores():
    embeddings, speakers = voices(10_000, 200)
    enrol, test = np.triu_indices(10_000, 1)
    scores = cosine_scores(embeddings, enrol, test)
    exact = error_rates(scores, speakers[enrol] == speakers[test])
    found = all_pairs_histogram(embeddings, speakers).summary()  # overwrites them
    assert found["num_target"] + found["num_nontarget"] == 49_995_000
    eer, bounds = exact.equal_error_rate()[0], found["eer_bounds"]
    assert bounds[0] - 1e-7 <= eer <= bounds[1] + 1e-7 and bounds[1] - bounds[0] < 1e-4
    assert found["eer"] == pytest.approx(eer, abs=1e-5)
    assert found["eer_threshold"] == pytest.approx(exact.equal_error_rate()[1], abs=2 * BIN_WIDTH)
    for cost, entry in zip((Cost(0.01), Cost(0.05)), found["min_dcf"], strict=True):
        assert entry["value"] == pytest.approx(exact.min_dcf(*cost)[0], abs=1e-4)
        assert entry["bounds"][1] - entry["bounds"][0] < 1e-3
