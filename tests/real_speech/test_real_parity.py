"""Real speech of half a second to a minute through every form of a model: the same embedding, the same EER."""

from pathlib import Path

import numpy as np
import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition

import export
from benchmarks.parity import REFERENCE, eer_of, embed_all, forms_of, held_out, lengths, rows_cosines
from tests.run_folders import write_run_folder
from voice_biometrics.common.audio import read_audio
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export import package as package
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder

PRETRAINED = Path(__file__).parents[2] / "pretrained"
DURATIONS_S = np.array([0.5, 3.0, 60.0])


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


def test_run_folder_onnx_and_speechbrain_agree_on_real_speech_and_int8_nearly(
    corpus, speech, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(package, "CARD_CONDITIONS", ("telephone",))
    folder = write_run_folder(tmp_path_factory.mktemp("run"), corpus)
    export.main([str(folder)])
    run = TrainedRun(folder)
    manifest, trials = held_out(run, None)
    waves = [read_audio(wav, 16000) for wav in manifest["wav"]] + lengths(speech, 16000, DURATIONS_S)
    found = {name: embed_all(waves, form, name) for name, form in forms_of(run, folder / "model").items()}
    eers = {name: eer_of(embeddings[: len(manifest)], manifest, trials) for name, embeddings in found.items()}
    for name in ("ONNX fp32", "speechbrain/"):
        assert rows_cosines(found[name], found[REFERENCE]).min() > 0.99999
        middle = found[REFERENCE].mean(axis=0)  # an untrained network gives everybody nearly the same
        assert rows_cosines(found[name] - middle, found[REFERENCE] - middle).min() > 0.9999
        assert eers[name] == pytest.approx(eers[REFERENCE], abs=1e-6)
    assert rows_cosines(found["ONNX int8"], found[REFERENCE]).min() > 0.999
    assert eers["ONNX int8"] == pytest.approx(eers[REFERENCE], abs=0.02)
    assert read_model_folder(folder / "model").embedder("fp32").eer.estimate == pytest.approx(eers[REFERENCE], abs=1e-6)


def test_the_pretrained_folder_and_its_layout_for_speechbrain_agree(speech):
    if not PRETRAINED.is_dir():
        pytest.skip("there is no pretrained/ here")
    onnx, layout = Embedder(read_model_folder(PRETRAINED)), str(PRETRAINED / "speechbrain")
    stock = SpeakerRecognition.from_hparams(source=layout, savedir=layout)
    waves = lengths(speech, 16000, DURATIONS_S)

    def by_speechbrain(wave: np.ndarray) -> np.ndarray:
        return stock.encode_batch(torch.from_numpy(wave)[None])[0, 0].numpy()

    theirs = embed_all(waves, by_speechbrain, "SpeechBrain")
    assert rows_cosines(embed_all(waves, onnx, "ONNX"), theirs).min() > 0.99999
