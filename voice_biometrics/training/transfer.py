"""Transfer learning: start from a trained network.

``pretrained`` is a folder with one of these, in this order:

- ``save/CKPT*``: a run folder; its best checkpoint, and its head if the training speakers are the same;
- ``embedding_model.ckpt``: the layout of SpeechBrain's published models (a local copy; nothing is downloaded);
- one ``*.safetensors`` with the tensor names of the network, with or without the prefix ``embedding_model.``: as in a
  model folder, whose ``speechbrain/hyperparams.yaml`` defines the features.
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
FRONT_END = ("sample_rate", "compute_features", "mean_var_norm")  # hparams keys that define the features


def check_transfer(settings: dict[str, Any]) -> None:
    """Raise InputError for invalid ``pretrained`` and ``frozen_epochs``."""
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
    """Load the network of ``folder`` into ``network``, and its head into ``head`` if the speakers are the same.

    ``run_folder`` is that of the new run, with manifests and hparams. Raises InputError, naming the first mismatch, if
    ``folder`` has no network, a different one, or one for other features.
    """
    checkpoint = WholeCheckpointer(str(folder / "save")).find_best() if (folder / "save").is_dir() else None
    if checkpoint is None:
        path = find_weights(folder)
        exported = folder / "speechbrain" / "hyperparams.yaml"
        if exported.is_file():
            _check_front_end(folder, exported, run_folder)
        _load(network, read_weights(path), path)
        logger.info("Starting from the network %s", path)
        return
    _check_run_folder(folder, checkpoint)
    _check_front_end(folder, folder / "hyperparams.yaml", run_folder)
    path = checkpoint.paramfiles[NETWORK]
    _load(network, read_weights(path), path)
    has_heads = HEAD in checkpoint.paramfiles and any(True for _ in head.parameters())
    same = has_heads and _speakers(folder) == _speakers(run_folder)
    if same:
        _load(head, read_weights(checkpoint.paramfiles[HEAD]), checkpoint.paramfiles[HEAD])
    logger.info("Starting from the network %s; %s", path, "and its head" if same else "without its head")


def find_weights(folder: Path) -> Path:
    """Return the weights file of a folder; InputError if there is none, or several."""
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without executing code in it; InputError if it cannot be read."""
    try:
        is_safe = path.suffix == ".safetensors"
        weights = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged archive makes torch or safetensors raise
        raise InputError(f"{path}: expected the weights of a network, found {type(error).__name__}: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise InputError(f"{path}: expected tensors by name, the weights of a network, found something else")
    return weights


def _load(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load ``weights`` into ``module``; InputError names the missing, unknown and misshapen tensors."""
    prefix = f"{NETWORK}."
    if any(name.startswith(prefix) for name in weights):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        found = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: a different network from that of the hparams: {found}") from error


def _check_run_folder(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise InputError if a folder with checkpoints is not a run folder of train.py."""
    missing = [] if NETWORK in checkpoint.paramfiles else [f"{NETWORK}.ckpt in {checkpoint.path}"]
    missing += [name for name in ("hyperparams.yaml", "manifests/train.csv") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"pretrained {folder}: expected a run folder of train.py, found no {missing[0]}")


def _check_front_end(folder: Path, hparams_file: Path, run_folder: Path) -> None:
    """Raise InputError if the features of a network differ from those of the new run."""
    files = (hparams_file, run_folder / "hyperparams.yaml")
    theirs, ours = (YAML().load(file.read_text("utf-8")) for file in files)
    for key in FRONT_END:
        if repr(theirs.get(key)) != repr(ours.get(key)):
            raise InputError(f"pretrained {folder}: trained with another {key}; give hparams of the same features")


def _speakers(folder: Path) -> list[str]:
    """Return the training speakers of a run folder, in the order of the head's outputs."""
    return sorted(pd.read_csv(folder / "manifests" / "train.csv", usecols=["spk_id"], dtype=str)["spk_id"].unique())
