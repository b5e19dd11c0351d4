"""Embeddings: the same alone and in company, in any order, and whatever else is in the manifest."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tests.conftest import make_voice
from voice_biometrics.common.audio import repeat_to
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.conditions import conditions_named
from voice_biometrics.experiment.hparams import read_command_line
from voice_biometrics.scoring.embeddings import FRONT_TO_EMBEDDING, embed, embed_manifest


@pytest.fixture(scope="module", params=["tests/hparams/tiny.yaml", "hparams/ablations/network/original.yaml"])
def modules(request):
    hparams = read_command_line([request.param], "usage").build()
    return torch.nn.ModuleDict({name: hparams[name] for name in FRONT_TO_EMBEDDING})


@pytest.fixture
def manifest(tmp_path):
    """Six utterances, two of them of equal length and one of 0.1 s."""
    rows = []
    for number, duration_s in enumerate((1.0, 0.8, 1.0, 1.3, 0.1, 2.0)):
        wav = str(tmp_path / f"{number}.wav")
        soundfile.write(wav, make_voice(100 + 20 * number, duration_s, seed=number), 16000)
        rows.append((f"u{number}", duration_s, wav, 0, round(duration_s * 16000), f"s{number}"))
    return pd.DataFrame(rows, columns=["ID", "duration", "wav", "start", "stop", "spk_id"])


def test_an_embedding_does_not_depend_on_its_company(modules, manifest):
    together = embed_manifest(modules, manifest, 16000, "cpu")
    for row in range(len(manifest)):
        alone = embed_manifest(modules, manifest.iloc[[row]].reset_index(drop=True), 16000, "cpu")
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_rows_come_in_the_order_of_the_manifest(modules, manifest):
    forward = embed_manifest(modules, manifest, 16000, "cpu")
    backward = embed_manifest(modules, manifest.iloc[::-1].reset_index(drop=True), 16000, "cpu")
    np.testing.assert_allclose(forward, backward[::-1], rtol=1e-4, atol=1e-5)
    assert np.abs(forward[0] - forward[1]).max() > 1e-3  # they are not all the same


def test_several_threads_give_what_one_gives_and_leave_the_number_of_threads(modules, manifest):
    one = embed_manifest(modules, manifest, 16000, "cpu")
    torch.set_num_threads(2)
    try:
        np.testing.assert_allclose(embed_manifest(modules, manifest, 16000, "cpu"), one, rtol=1e-4, atol=1e-5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_embeddings_are_those_of_the_training_modules_in_evaluation_mode(modules):
    waves = torch.from_numpy(np.stack([make_voice(120, 1.0, seed=3), make_voice(180, 1.0, seed=4)]))
    modules.eval()
    with torch.no_grad():
        lengths = torch.ones(2)
        expected = modules["embedding_model"](
            modules["mean_var_norm"](modules["compute_features"](waves), lengths), lengths
        )
    np.testing.assert_allclose(embed(modules, waves), expected.squeeze(1).numpy(), rtol=1e-5)


def test_an_utterance_that_cannot_be_read_is_named(modules, manifest):
    manifest.loc[2, "stop"] = 99999
    with pytest.raises(InputError, match="2.wav"):
        embed_manifest(modules, manifest, 16000, "cpu")


def test_an_embedding_that_is_not_finite_is_named(modules, manifest):
    broken = torch.nn.ModuleDict(dict(modules))
    broken["embedding_model"] = torch.nn.Module()
    broken["embedding_model"].forward = lambda features, lengths: features[:, :1] * float("nan")
    with pytest.raises(InputError, match="utterance u"):
        embed_manifest(broken, manifest, 16000, "cpu")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_utterance_is_altered_by_its_id_before_it_is_repeated(modules, manifest, num_workers):
    (short,) = conditions_named("short:0.8")
    altered = embed_manifest(modules, manifest, 16000, "cpu", num_workers, alter=short)
    plain = embed_manifest(modules, manifest, 16000, "cpu")
    for row in range(len(manifest)):
        samples, _ = soundfile.read(manifest["wav"][row], dtype="float32")
        cut = repeat_to(short(samples, 16000, manifest["ID"][row]), 8000)
        alone = embed(modules, torch.from_numpy(cut)[None])
        np.testing.assert_allclose(altered[row], alone[0], rtol=1e-4, atol=1e-5)
    unchanged = np.isclose(altered, plain, rtol=1e-4, atol=1e-5).all(axis=1)
    assert unchanged.tolist() == [False, True, False, False, True, False]


def test_a_long_utterance_gets_the_mean_of_its_segments_and_a_short_one_is_whole(modules, manifest):
    found = embed_manifest(modules, manifest, 16000, "cpu", segment_s=0.8)
    whole = embed_manifest(modules, manifest, 16000, "cpu")
    np.testing.assert_allclose(found[[1, 4]], whole[[1, 4]], rtol=1e-4, atol=1e-5)  # 0.8 s and 0.1 s
    samples, _ = soundfile.read(manifest["wav"][5], dtype="float32")  # 2.0 s: three segments from 0, 0.6 and 1.2 s
    segments = torch.from_numpy(np.stack([samples[start : start + 12800] for start in (0, 9600, 19200)]))
    np.testing.assert_allclose(found[5], embed(modules, segments).mean(axis=0), rtol=1e-4, atol=1e-5)


def test_segments_too_short_to_embed_are_refused(modules, manifest):
    with pytest.raises(InputError, match="segment_s is 0.1"):
        embed_manifest(modules, manifest, 16000, "cpu", segment_s=0.1)
