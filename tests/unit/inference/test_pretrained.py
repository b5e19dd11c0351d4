"""The model that comes with the repository: small, and in all its forms the network that its hparams describe."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load_file

from tests.conftest import make_voice
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.scoring.embeddings import FRONT_TO_EMBEDDING, embed

FOLDER = Path("pretrained")
MEGABYTE = 1e6


@pytest.fixture(scope="module")
def modules() -> torch.nn.ModuleDict:
    hparams = load_hyperpyyaml((FOLDER / "speechbrain" / "hyperparams.yaml").read_text())
    hparams["embedding_model"].load_state_dict(load_file(FOLDER / "weights.safetensors"))
    return torch.nn.ModuleDict({name: hparams[name] for name in FRONT_TO_EMBEDDING}).eval()


def test_the_files_are_small_enough_for_a_repository():
    assert (FOLDER / "weights.safetensors").stat().st_size < 8 * MEGABYTE
    assert max(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 10 * MEGABYTE


@pytest.mark.parametrize("precision, least", [("fp32", 0.99999), ("int8", 0.995)])  # on speech: from 0.993
def test_the_weights_and_both_onnx_files_are_one_network(modules, precision, least):
    embedder = Embedder(read_model_folder(FOLDER), precision)  # checks every checksum
    wave = torch.from_numpy(make_voice(120.0, 2.0, seed=0))
    found, expected = (torch.as_tensor(each).flatten() for each in (embedder(wave.numpy()), embed(modules, wave[None])))
    assert torch.cosine_similarity(found, expected, dim=0) > least
