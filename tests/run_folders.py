"""A finished run without the training: a network of toy size with random weights, and its held-out speakers."""

from pathlib import Path

import torch
from hyperpyyaml import resolve_references

from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.experiment.hparams import read_command_line

TINY = "tests/hparams/tiny.yaml"


def write_run_folder(
    folder: Path, corpus: Path, *more: str, num_held_out: int = 9, epoch: int = 2, hparams: str = TINY
) -> Path:
    """Write what ``train.py`` leaves: manifests, hyperparams.yaml and a checkpoint. ``more`` are further arguments."""
    own = ["--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(folder)]
    run = read_command_line([hparams, *own, "--valid_speakers", str(num_held_out), *more], "")
    num_speakers = prepare(Settings.from_hparams(run.settings), folder / "manifests")["num_speakers"]
    (folder / "hyperparams.yaml").write_text(resolve_references(run.text, run.overrides).read())
    built = run.build()
    head = built["classifier"](out_neurons=num_speakers)
    built["checkpointer"].add_recoverable("classifier", head)
    _look_trained(built["embedding_model"])
    eer = {"EER": 0.1} if num_held_out else {}
    built["checkpointer"].save_checkpoint(meta={"epoch": epoch, **eer})
    return folder


def _look_trained(network: torch.nn.Module) -> None:
    """Give each batch normalisation scales, shifts and statistics that are not those of a new one."""
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
