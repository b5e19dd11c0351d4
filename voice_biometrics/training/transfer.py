"""Transfer learning: begin with a network that was trained elsewhere, on the same or on other speakers.

``pretrained`` names a folder, and the first of these that is there is taken:

- ``save/CKPT*``: a run folder of ours; its best checkpoint, and its head where it was trained on the same speakers;
- ``embedding_model.ckpt``: the layout of SpeechBrain's published models (nothing is downloaded: give a local copy);
- one ``*.safetensors``, its tensors named as in the network, with or without ``embedding_model.`` in front: a model
  folder of ours has one, and its ``speechbrain/hyperparams.yaml`` says which features it was trained for.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from speechbrain.utils.checkpoints import Checkpoint
from torch import Tensor, nn

from voice_biometrics.common.errors import InputError
from voice_biometrics.experiment.checkpoints import WholeCheckpointer

logger = logging.getLogger(__name__)

NETWORK, HEAD = "embedding_model", "classifier"
FRONT_END = ("sample_rate", "compute_features", "mean_var_norm")  # hparams keys that a network was trained for


def check_transfer(settings: dict[str, Any]) -> None:
    """Raise InputError for ``pretrained`` and ``frozen_epochs`` that cannot be meant, before anything is prepared."""
    folder, frozen, epochs = (settings[key] for key in ("pretrained", "frozen_epochs", "number_of_epochs"))
    if not isinstance(folder, str):
        raise InputError(f"hparams key pretrained: expected a folder, found {folder!r}")
    if folder and not Path(folder).is_dir():
        raise InputError(f"pretrained {folder}: no such folder; train that network first, or give --pretrained FOLDER")
    if not isinstance(frozen, int) or isinstance(frozen, bool) or frozen < 0:
        raise InputError(f"hparams key frozen_epochs: expected 0 or more epochs, found {frozen!r}")
    if frozen and not folder:
        raise InputError(f"frozen_epochs {frozen}: an untrained network cannot be frozen; give --pretrained FOLDER")
    if frozen and frozen >= epochs:
        raise InputError(f"frozen_epochs {frozen}: expected fewer than number_of_epochs, which is {epochs}")


def start_from(folder: Path, network: nn.Module, head: nn.Module, run_folder: Path) -> None:
    """Load the network of ``folder`` into ``network``, and its head into ``head`` where the speakers are the same.

    ``run_folder`` is that of the run that begins, its manifests and hparams being written. Raises InputError, naming
    the first mismatch, when ``folder`` holds no network, another one, or one of other features.
    """
    checkpoint = WholeCheckpointer(str(folder / "save")).find_best() if (folder / "save").is_dir() else None
    if checkpoint is None:
        path = _find_weights(folder)
        exported = folder / "speechbrain" / "hyperparams.yaml"
        if exported.is_file():
            _check_front_end(folder, exported, run_folder)
        _load(network, _read_weights(path), path)
        logger.info("The network begins as %s", path)
        return
    _check_run_folder(folder, checkpoint)
    _check_front_end(folder, folder / "hyperparams.yaml", run_folder)
    path = checkpoint.paramfiles[NETWORK]
    _load(network, _read_weights(path), path)
    same = _speakers(folder) == _speakers(run_folder)
    if same:
        _load(head, _read_weights(checkpoint.paramfiles[HEAD]), checkpoint.paramfiles[HEAD])
    logger.info("The network begins as %s; %s", path, "so does its head" if same else "other speakers: a new head")


def _find_weights(folder: Path) -> Path:
    """Return the file of a folder that holds the network; InputError when there is none, or several."""
    published = folder / f"{NETWORK}.ckpt"
    if published.is_file():
        return published
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise InputError(
            f"pretrained {folder}: expected save/CKPT* of a run folder, {NETWORK}.ckpt or one *.safetensors, found "
            f"{', '.join(path.name for path in found) or 'none of them'}"
        )
    return found[0]


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; InputError when it cannot be read. No code in it is executed."""
    try:
        is_safe = path.suffix == ".safetensors"
        weights = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged archive makes torch or safetensors raise
        raise InputError(f"{path}: expected the weights of a network, found {type(error).__name__}: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise InputError(f"{path}: expected tensors by name, the weights of a network, found something else")
    return weights


def _load(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load ``weights`` into ``module``; InputError naming the first tensor that is missing, unknown or misshapen."""
    prefix = f"{NETWORK}."
    if any(name.startswith(prefix) for name in weights):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path}: another network than that of these hparams: tensor {name} has the shape "
                f"{found.get(name, 'none, it is missing')} there, expected {expected.get(name, 'none, it is unknown')}"
            )
    module.load_state_dict(weights)


def _check_run_folder(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise InputError when a folder with checkpoints is no run folder of ours."""
    missing = [f"{part}.ckpt in {checkpoint.path}" for part in (NETWORK, HEAD) if part not in checkpoint.paramfiles]
    missing += [name for name in ("hyperparams.yaml", "manifests/train.csv") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"pretrained {folder}: expected a run folder of train.py, found no {missing[0]}")


def _check_front_end(folder: Path, hparams_file: Path, run_folder: Path) -> None:
    """Raise InputError when the hparams of a network and of the run that begins have different features."""
    files = (hparams_file, run_folder / "hyperparams.yaml")
    theirs, ours = (YAML().load(file.read_text("utf-8")) for file in files)
    for key in FRONT_END:
        if repr(theirs.get(key)) != repr(ours.get(key)):
            raise InputError(f"pretrained {folder}: trained with another {key}; give hparams of the same features")


def _speakers(folder: Path) -> list[str]:
    """Return the training speakers of a run folder, in the order of the head's outputs."""
    return sorted(pd.read_csv(folder / "manifests" / "train.csv", usecols=["spk_id"], dtype=str)["spk_id"].unique())
