"""Whitening of what differs within speakers: the matrix, and the network that it is folded into."""

import numpy as np
import pytest

from tests.conftest import write_speakers
from tests.run_folders import write_run_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export.whitening import whiten, whitening, within_speakers


@pytest.fixture
def run(tmp_path) -> TrainedRun:
    corpus = write_speakers(tmp_path / "corpus", num_speakers=5, num_utterances=3, duration_s=0.6)
    return TrainedRun(write_run_folder(tmp_path / "run", corpus, "--augment_noise", "1", num_held_out=2))


def test_each_speaker_counts_the_same():
    embeddings = np.array([[1, 0], [0, 1], *[[3, 4], [3, 4]] * 5], float)
    found = within_speakers(embeddings, np.array(["a"] * 2 + ["b"] * 10))
    np.testing.assert_allclose(found, np.array([[0.25, -0.25], [-0.25, 0.25]]) / 2, atol=1e-12)


def test_all_of_it_makes_the_covariance_the_identity_and_none_of_it_changes_nothing():
    rows = np.random.default_rng(0).normal(size=(50, 4)) @ np.diag([1, 2, 3, 4])
    covariance = rows.T @ rows / 50
    matrix = whitening(covariance, 1.0)
    np.testing.assert_allclose(matrix @ covariance @ matrix, np.eye(4) * np.trace(covariance) / 4, atol=1e-9)
    np.testing.assert_allclose(whitening(covariance, 0.0), np.eye(4), atol=1e-12)


def test_it_is_a_linear_map_of_the_embeddings_and_another_model(run):
    utterances = run.utterances(run.manifests / "train.csv")
    before, fingerprint = run.embed(utterances), run.fingerprint()
    whiten(run, 0.5)
    after = run.embed(utterances)
    matrix = np.linalg.lstsq(before, after, rcond=None)[0]
    np.testing.assert_allclose(before @ matrix, after, atol=1e-4)
    assert np.abs(after - before).max() > 0.01 and run.fingerprint() != fingerprint and run.whitened == 0.5


def test_a_share_above_1_and_a_network_without_a_last_layer_are_refused(run):
    with pytest.raises(InputError, match=r"--whiten 1\.5"):
        whiten(run, 1.5)
    del run.modules["embedding_model"].fc
    with pytest.raises(InputError, match="no last layer fc"):
        whiten(run, 0.2)
