"""sherpa-onnx with ``embedder.sherpa.onnx``: the embeddings and the decisions of ``verify.py``."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load_file

import export
from tests.conftest import make_speech, write_speakers
from tests.run_folders import write_run_folder
from voice_biometrics.common.audio import read_audio
from voice_biometrics.export import package
from voice_biometrics.export.onnx_export import engine_metadata, export_onnx, write_metadata
from voice_biometrics.inference import Recognizer
from voice_biometrics.inference.model_folder import ENGINE_NAME, read_model_folder
from voice_biometrics.scoring.embeddings import FRONT_TO_EMBEDDING

sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs sherpa-onnx, in requirements-dev.txt")
PRETRAINED = Path(__file__).parents[2] / "pretrained"


class Engine:
    """sherpa-onnx as an application uses it."""

    def __init__(self, model: Path) -> None:
        config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(model), num_threads=1)
        assert config.validate()
        self.extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        stream = self.extractor.create_stream()
        stream.accept_waveform(16000, samples)
        stream.input_finished()
        assert self.extractor.is_ready(stream)
        return np.array(self.extractor.compute(stream))


def check_same(engine: Engine, model: Path, speakers: list[list[Path]], store: Path) -> float:
    """Assert that embeddings and decisions on two files each are the ``Recognizer``'s; return the rate accepted."""
    recognizer, manager = Recognizer(model, store), sherpa_onnx.SpeakerEmbeddingManager(engine.extractor.dim)
    score_at, decisions = recognizer.entry.calibration.score_at, []
    for name, (file, _) in enumerate(speakers):
        recognizer.enrol(str(name), [file])
        assert manager.add(str(name), engine(read_audio(file, 16000)))
    for _, file in speakers:
        samples = read_audio(file, 16000)
        ours, theirs = recognizer.embed(samples), engine(samples)
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.9999
        for name in map(str, range(len(speakers))):
            verdict = recognizer.verify(name, file)
            assert manager.score(name, theirs) == pytest.approx(verdict.score, abs=1e-3)
            assert manager.verify(name, theirs, score_at(verdict.point.threshold)) == verdict.is_accepted
            decisions.append(verdict.is_accepted)
        found = recognizer.identify(file)
        assert manager.search(theirs, score_at(found.point.threshold)) == (found.name or "")
    return float(np.mean(decisions))


def test_a_model_folder_of_a_run_with_kaldis_features_serves_sherpa_onnx(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "CARD_CONDITIONS", ("telephone",))
    corpus = write_speakers(tmp_path / "corpus", num_speakers=12, num_utterances=5, duration_s=0.8)
    run = write_run_folder(tmp_path / "run", corpus, hparams="tests/hparams/tiny_kaldi.yaml")
    export.main([str(run)])
    model = run / "model"
    assert f"  {ENGINE_NAME}\n" in (model / "SHA256SUMS").read_text()
    assert f"| `{ENGINE_NAME}` |" in (model / "MODEL_CARD.md").read_text()
    speakers = [[tmp_path / f"{pitch_hz}-{number}.wav" for number in range(2)] for pitch_hz in (100, 130, 160, 200)]
    for file in (file for files in speakers for file in files):
        pitch_hz, number = map(int, file.stem.split("-"))
        soundfile.write(file, make_speech(pitch_hz, 3.0, seed=number), 16000)
    check_same(Engine(model / ENGINE_NAME), model, speakers, tmp_path / "voices.db")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """The file of pretrained/; made of its weights if it is a folder without one."""
    if (PRETRAINED / ENGINE_NAME).is_file():
        return PRETRAINED / ENGINE_NAME
    hparams = load_hyperpyyaml((PRETRAINED / "speechbrain" / "hyperparams.yaml").read_text())
    hparams["embedding_model"].load_state_dict(load_file(PRETRAINED / "weights.safetensors"))
    modules = torch.nn.ModuleDict({name: hparams[name] for name in FRONT_TO_EMBEDDING}).eval()
    path, dims = tmp_path_factory.mktemp("engine") / ENGINE_NAME, read_model_folder(PRETRAINED).embedding_dim
    export_onnx(modules, dims, path, for_engines=True)
    write_metadata(path, engine_metadata(16000, dims))
    return path


def test_the_pretrained_model_decides_the_same_in_sherpa_onnx_on_real_speech(shared, pretrained, tmp_path):
    folders = sorted((shared / "corpora" / "speechocean762" / "WAVE").iterdir())[::10]
    speakers = [sorted(folder.iterdir())[:2] for folder in folders]
    assert len(speakers) >= 12
    assert 0 < check_same(Engine(pretrained), PRETRAINED, speakers, tmp_path / "voices.db") < 1
