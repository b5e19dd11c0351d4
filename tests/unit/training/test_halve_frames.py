"""A network for features every 20 ms, turned into one for features every 10 ms, gives the same embeddings."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from voice_biometrics.models.fast_ecapa import FastECAPA

SCRIPT = Path(__file__).parents[3] / "recipes" / "common_voice" / "halve_frames.py"


def run(*arguments: Path) -> None:
    spec = importlib.util.spec_from_file_location("halve_frames", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([str(argument) for argument in arguments])


def network(kernel_sizes: list[int]) -> FastECAPA:
    torch.manual_seed(1)
    options = {"attention_channels": 8, "lin_neurons": 6, "res2net_scale": 2, "se_channels": 8}
    return FastECAPA(4, channels=[8, 8, 8, 8, 16], kernel_sizes=kernel_sizes, dilations=[1, 2, 3, 4, 1], **options)


def test_the_same_embeddings_of_twice_as_many_frames(tmp_path):
    theirs, ours = network([5, 3, 3, 3, 1]), network([9, 5, 5, 5, 1]).eval()
    theirs(torch.randn(4, 60, 4))  # the statistics of its normalisations
    save_file(theirs.eval().state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "calibration.json").write_text("{}")
    features = torch.randn(2, 400, 4)
    twice = features.repeat_interleave(2, dim=1)
    assert torch.cosine_similarity(theirs(features), ours(twice), dim=-1).max() < 0.9
    run(tmp_path, tmp_path / "longer")
    ours.load_state_dict(load_file(tmp_path / "longer" / "weights.safetensors"))
    similarity = torch.cosine_similarity(theirs(features), ours(twice), dim=-1)
    assert (tmp_path / "longer" / "calibration.json").read_text() == "{}"
    assert similarity.min() > 0.999  # both reflect at the ends, over half the time


def test_a_folder_without_a_network_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, tmp_path / "longer")
    assert ended.value.code == 2 and "safetensors" in capsys.readouterr().err
    assert not (tmp_path / "longer").exists()


def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path, capsys):
    save_file(network([5, 3, 3, 3, 1]).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, tmp_path / "weights.safetensors")
    assert ended.value.code == 2 and "weights.safetensors" in capsys.readouterr().err
