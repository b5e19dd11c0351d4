"""Starting from another network: what is taken, and that a wrong folder is told by the first mismatch."""

import pytest
import torch
from safetensors.torch import save_file

from voice_biometrics.common.errors import InputError
from voice_biometrics.experiment.checkpoints import WholeCheckpointer
from voice_biometrics.training.transfer import check_transfer, start_from


def network(width: int = 3) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.BatchNorm1d(width))


def head(num_speakers: int = 2) -> torch.nn.Module:
    return torch.nn.Linear(3, num_speakers, bias=False)


def write_run(folder, speakers=("a", "b"), features="mfcc", width: int = 3):
    """Write a run folder of one checkpoint that is best and a later one that is not."""
    (folder / "manifests").mkdir(parents=True)
    (folder / "manifests" / "train.csv").write_text("spk_id\n" + "\n".join(speakers) + "\n")
    (folder / "hyperparams.yaml").write_text(f"sample_rate: 16000\ncompute_features: {features}\nmean_var_norm: x\n")
    for value, eer in ((1.0, 0.1), (2.0, 0.2)):
        parts = {"embedding_model": network(width), "classifier": head(len(speakers))}
        for module in parts.values():
            torch.nn.init.constant_(next(module.parameters()), value)
        WholeCheckpointer(str(folder / "save"), parts).save_checkpoint(meta={"EER": eer})
    return folder


def started(folder, run_folder, **kwargs) -> tuple[float, float]:
    """Return a weight of the network and one of the head, both 7 before."""
    mine, my_head = network(), head(**kwargs)
    for module in (mine, my_head):
        torch.nn.init.constant_(next(module.parameters()), 7.0)
    start_from(folder, mine, my_head, run_folder)
    return mine[0].weight[0, 0].item(), my_head.weight[0, 0].item()


def test_the_best_checkpoint_of_a_run_on_the_same_speakers_gives_network_and_head(tmp_path):
    assert started(write_run(tmp_path / "a"), write_run(tmp_path / "b")) == (1.0, 1.0)


def test_a_run_on_other_speakers_gives_the_network_alone(tmp_path):
    theirs = write_run(tmp_path / "a", speakers=("a", "c"))
    assert started(theirs, write_run(tmp_path / "b")) == (1.0, 7.0)
    theirs = write_run(tmp_path / "c", speakers=("a", "b", "c"))
    assert started(theirs, tmp_path / "b") == (1.0, 7.0)


def test_a_run_without_a_head_gives_the_network_also_to_a_run_without_one(tmp_path):
    theirs, ours = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    for path in theirs.glob("save/CKPT*/classifier.ckpt"):
        path.unlink()
    assert started(theirs, ours) == (1.0, 7.0)
    mine = network()
    start_from(theirs, mine, torch.nn.Identity(), ours)
    assert mine[0].weight[0, 0].item() == 1.0


def test_a_model_folder_gives_the_network(tmp_path):
    for number, (name, prefix) in enumerate(
        (("embedding_model.ckpt", ""), ("weights.safetensors", ""), ("weights.safetensors", "embedding_model."))
    ):
        weights = {prefix + key: torch.full_like(value, 5) for key, value in network().state_dict().items()}
        if prefix:
            weights["classifier.weight"] = torch.zeros(1)
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        (save_file if path.suffix == ".safetensors" else torch.save)(weights, path)
        assert started(path.parent, tmp_path) == (5.0, 7.0), (name, prefix)


def test_a_model_folder_of_other_features_is_refused(tmp_path):
    (tmp_path / "model" / "speechbrain").mkdir(parents=True)
    save_file(network().state_dict(), tmp_path / "model" / "weights.safetensors")
    features = tmp_path / "model" / "speechbrain" / "hyperparams.yaml"
    features.write_text("sample_rate: 16000\ncompute_features: mfcc\nmean_var_norm: x\nmodules: none\n")
    started(tmp_path / "model", write_run(tmp_path / "b"))
    features.write_text(features.read_text().replace("mfcc", "fbank"))
    with pytest.raises(InputError, match="another compute_features"):
        started(tmp_path / "model", tmp_path / "b")


def test_a_mismatch_is_named(tmp_path):
    with pytest.raises(InputError, match=r"0.weight.*\[4, 2\].*\[3, 2\]"):
        started(write_run(tmp_path / "a", width=4), write_run(tmp_path / "b"))
    weights = network().state_dict()
    missing = {key: value for key, value in weights.items() if key != "1.running_mean"}
    foreign = weights | {"2.weight": torch.zeros(1)}
    for given, found in ((missing, "Missing.*1.running_mean"), (foreign, "Unexpected.*2.weight")):
        torch.save(given, tmp_path / "embedding_model.ckpt")
        with pytest.raises(InputError, match=found):
            started(tmp_path, tmp_path)


def test_other_features_are_refused(tmp_path):
    with pytest.raises(InputError, match="another compute_features"):
        started(write_run(tmp_path / "a", features="fbank"), write_run(tmp_path / "b"))


def test_a_run_folder_that_lacks_something_is_told(tmp_path):
    ours = write_run(tmp_path / "ours")
    for number, name in enumerate(("hyperparams.yaml", "manifests/train.csv", "save/CKPT*/embedding_model.ckpt")):
        folder = write_run(tmp_path / str(number))
        for path in folder.glob(name):
            path.unlink()
        with pytest.raises(InputError, match=f"found no {name.removeprefix('save/CKPT*/')}"):
            started(folder, ours)


def test_a_file_of_something_else_than_weights_or_with_code_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "embedding_model.ckpt")
    with pytest.raises(InputError, match="expected tensors by name"):
        started(tmp_path, tmp_path)
    torch.save({"0.weight": print}, tmp_path / "embedding_model.ckpt")  # a pickled function
    with pytest.raises(InputError, match="expected the weights of a network"):
        started(tmp_path, tmp_path)


def test_a_folder_without_a_network_or_with_several_is_told(tmp_path):
    with pytest.raises(InputError, match="found none of them"):
        started(tmp_path, tmp_path)
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(InputError, match="found a.safetensors, b.safetensors"):
        started(tmp_path, tmp_path)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(InputError, match="b.safetensors: expected the weights of a network"):
        started(tmp_path, tmp_path)


def test_settings_that_cannot_be_meant_are_refused():
    settings = {"pretrained": "", "frozen_epochs": 0, "number_of_epochs": 5}
    check_transfer(settings)
    for changes, found in (
        ({"pretrained": "none/such"}, "pretrained none/such: no such folder.*--pretrained FOLDER"),
        ({"pretrained": 3}, "pretrained: expected a folder"),
        ({"frozen_epochs": 2}, "untrained network cannot be frozen"),
        ({"frozen_epochs": 5, "pretrained": "tests"}, "fewer than number_of_epochs, which is 5"),
        ({"frozen_epochs": -1, "pretrained": "tests"}, "frozen_epochs: expected 0 or more"),
        ({"frozen_epochs": 1.5, "pretrained": "tests"}, "frozen_epochs: expected 0 or more"),
    ):
        with pytest.raises(InputError, match=found):
            check_transfer(settings | changes)
