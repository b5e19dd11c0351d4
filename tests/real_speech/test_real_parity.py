"""Real speech of half a second to a minute through every form of a model: the same embedding, the same EER."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition

import export
from tests.conftest import make_voice
from tests.run_folders import write_run_folder
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export import package as package
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.embeddings import MIN_DURATION_S, embed

PRETRAINED = Path(__file__).parents[2] / "pretrained"
DURATIONS_S = (0.5, 3.0, 60.0)


@pytest.fixture(scope="module")
def corpus(shared, tmp_path_factory) -> Path:
    """Twelve real speakers, four utterances each."""
    folder = tmp_path_factory.mktemp("corpus")
    for speaker in sorted((shared / "corpora" / "speechocean762" / "WAVE").iterdir())[::10][:12]:
        (folder / speaker.name).mkdir()
        for file in sorted(speaker.iterdir())[:4]:
            (folder / speaker.name / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def speech(corpus) -> np.ndarray:
    return np.concatenate([read_audio(file, 16000) for file in sorted(corpus.rglob("*.flac"))])


@pytest.fixture(scope="module")
def cuts(speech) -> list[np.ndarray]:
    """A cut of real speech and a synthetic voice of each duration."""
    real = [np.resize(speech, round(16000 * duration_s)) for duration_s in DURATIONS_S]
    return real + [make_voice(120, duration_s, seed=0) for duration_s in DURATIONS_S]


def by_speechbrain(layout: Path):
    """The model as SpeechBrain's own class loads it."""
    stock = SpeakerRecognition.from_hparams(source=str(layout), savedir=str(layout))
    return lambda samples: stock.encode_batch(torch.from_numpy(samples)[None])[0, 0].numpy()


def embed_all(waves: list[np.ndarray], form) -> np.ndarray:
    least = round(MIN_DURATION_S * 16000)
    return np.stack([form(repeat_to(wave, least)) for wave in waves]).astype(np.float64)


def smallest_cosine(first: np.ndarray, second: np.ndarray) -> float:
    return ((first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)).min()


def test_run_folder_onnx_and_speechbrain_agree_on_real_speech_and_int8_nearly(
    corpus, cuts, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(package, "CARD_CONDITIONS", ("telephone",))
    folder = write_run_folder(tmp_path_factory.mktemp("run"), corpus)
    export.main([str(folder)])
    run, model = TrainedRun(folder), read_model_folder(folder / "model")
    held_out = run.held_out()
    waves = [read_audio(wav, 16000) for wav in held_out.manifest["wav"]] + cuts

    def eer_of(embeddings: np.ndarray) -> float:
        ids = pd.Index(held_out.manifest["ID"])
        scored = score_trials(embeddings[: len(ids)], ids, held_out.trials)
        return equal_error_rate(scored["score"].to_numpy(), scored["target"].to_numpy() == 1)[0]

    expected = embed_all(waves, lambda samples: embed(run.modules, torch.from_numpy(samples)[None])[0])
    middle = expected.mean(axis=0)  # an untrained network gives everybody nearly the same
    for form in (Embedder(model, "fp32"), by_speechbrain(folder / "model" / "speechbrain")):
        found = embed_all(waves, form)
        assert smallest_cosine(found, expected) > 0.99999
        assert smallest_cosine(found - middle, expected - middle) > 0.9999
        assert eer_of(found) == pytest.approx(eer_of(expected), abs=1e-6)
    quantised = embed_all(waves, Embedder(model, "int8"))
    assert smallest_cosine(quantised, expected) > 0.999
    assert eer_of(quantised) == pytest.approx(eer_of(expected), abs=0.02)
    assert model.embedder("fp32").eer.estimate == pytest.approx(eer_of(expected), abs=1e-6)


def test_the_pretrained_folder_and_its_layout_for_speechbrain_agree(cuts):
    if not PRETRAINED.is_dir():
        pytest.skip("there is no pretrained/ here")
    onnx = embed_all(cuts, Embedder(read_model_folder(PRETRAINED)))
    assert smallest_cosine(onnx, embed_all(cuts, by_speechbrain(PRETRAINED / "speechbrain"))) > 0.99999
