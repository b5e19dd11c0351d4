"""A finished training run as its folder tells it: the trained modules, and the speakers that it held out.

Reading the hparams of a run builds objects, so a run folder is a program: never read one that you do not trust.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from speechbrain.utils.checkpoints import Checkpoint

from data_prep.settings import Settings
from data_prep.trials import read_trials, resolve_trials
from voice_biometrics.checkpoints import WholeCheckpointer
from voice_biometrics.dataio import read_utterances
from voice_biometrics.embedding import FRONT_TO_EMBEDDING, MIN_DURATION_S
from voice_biometrics.errors import InputError
from voice_biometrics.hparams import merged_tree, plain_settings, read_command_line

WEIGHTS = "embedding_model"


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run folder whose best checkpoint is loaded.

    settings : the plain keys of its hparams. hparams : all of them as YAML nodes, references resolved.
    nodes : those that ``modules`` were built from. newest_epoch : of the newest checkpoint; None when it was saved
        within an epoch.
    checkpoint : the one that was loaded; held_out_chose_it : because its EER on the held-out speakers was the lowest.
    """

    folder: Path
    settings: dict[str, Any]
    hparams: CommentedMap
    nodes: CommentedMap
    modules: torch.nn.ModuleDict
    checkpoint: Checkpoint
    held_out_chose_it: bool
    newest_epoch: int | None

    @classmethod
    def read(cls, folder: Path, data_folder: str | None = None, newest: bool = False) -> "FinishedRun":
        """Read a run folder; it is not changed.

        Arguments
        ---------
        folder : as ``train.py`` left it, perhaps moved since.
        data_folder : where the corpus is now, if not where it was.
        newest : load the newest checkpoint, not that of the lowest EER on held-out speakers.

        Raises
        ------
        InputError : nothing was trained there, or the checkpoint is damaged.
        """
        hparams_file = folder / "hyperparams.yaml"
        if not hparams_file.is_file() or not (folder / "save").is_dir():
            raise InputError(f"{folder}: expected a run folder with hyperparams.yaml and save/; train first: train.py")
        tree = merged_tree(hparams_file)
        settings = plain_settings(tree, "")
        if data_folder is not None:
            settings["data_folder"] = data_folder
        nodes = CommentedMap({name: tree[name] for name in FRONT_TO_EMBEDDING})
        modules = torch.nn.ModuleDict(load_hyperpyyaml(as_yaml(nodes)))
        checkpointer = WholeCheckpointer(folder / "save", recoverables={WEIGHTS: modules[WEIGHTS]})
        checkpoint = checkpointer.load_newest() if newest else checkpointer.load_best()
        chosen = not newest and "EER" in checkpoint.meta
        newest_epoch = checkpointer.find_checkpoint().meta.get("epoch")
        return cls(folder, settings, tree, nodes, modules.eval(), checkpoint, chosen, newest_epoch)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.settings["sample_rate"]

    @property
    def dims(self) -> int:
        """Numbers in an embedding."""
        return self.settings["embedding_dim"]

    @cached_property
    def training(self) -> pd.DataFrame:
        """The manifest of the training part, ``wav`` as it was written."""
        return pd.read_csv(self.training_manifest, dtype={"ID": str, "spk_id": str})

    @property
    def training_manifest(self) -> Path:
        """The file of it."""
        return self._manifests / "train.csv"

    def utterances(self, part: str) -> pd.DataFrame:
        """Return the manifest of a part, "train" or "valid", with the files as they are now."""
        settings = Settings(corpus=self.settings["corpus"], data_folder=self.settings["data_folder"])
        return read_utterances(self._manifests / f"{part}.csv", settings.replacements())

    @property
    def held_out_somebody(self) -> bool:
        """Whether there are speakers to measure on."""
        return (self._manifests / "valid.csv").is_file()

    def held_out(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return manifest and trials of the held-out speakers.

        Raises InputError when nobody was held out, or one of them was trained on.
        """
        if not self.held_out_somebody:
            raise InputError(
                f"{self.folder}: held out nobody, so that nothing tells what its scores mean; train runs of the same "
                "kind that hold out some speakers each (--valid_speakers 0.2 --split_seed 1, 2, ...) and name their "
                "folders: --calibration_from RUN_FOLDER ..."
            )
        manifest_file, trials_file = self._manifests / "valid.csv", self._manifests / "valid_trials.csv"
        manifest = self.utterances("valid")
        heard = sorted(set(manifest["spk_id"]) & set(self.training["spk_id"]))
        if heard:
            raise InputError(
                f"{manifest_file}: speaker {heard[0]} was trained on, so the error rates would be too good"
            )
        return manifest, resolve_trials(read_trials(trials_file), pd.Index(manifest["ID"]), str(trials_file))

    @property
    def _manifests(self) -> Path:
        own = self.folder / "manifests"
        return own if own.is_dir() else Path(self.settings["manifest_folder"])

    def fingerprint(self) -> str:
        """Return the digest, 64 hex digits, of what an embedding follows from: weights, features, least duration."""
        digest = hashlib.sha256()
        facts = {"nodes": plain_node(self.nodes), "sample_rate": self.sample_rate, "min_duration_s": MIN_DURATION_S}
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in sorted(self.modules[WEIGHTS].state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def run_of_command_line(arguments: Sequence[str], usage: str) -> FinishedRun:
    """Read the run that is named by its folder, or by the arguments that ``train.py`` had.

    ``--data_folder`` may follow a run folder. Raises InputError when the arguments build other modules than were
    trained.
    """
    if arguments and Path(arguments[0]).is_dir():
        folder = Path(arguments[0])
        arguments = [str(folder / "hyperparams.yaml"), *arguments[1:]]
        return FinishedRun.read(folder, read_command_line(arguments, usage).settings["data_folder"])
    asked = read_command_line(list(arguments), usage)
    run = FinishedRun.read(Path(asked.settings["output_folder"]), asked.settings["data_folder"])
    num_speakers = run.training["spk_id"].nunique()
    resolved = resolve_references(asked.text, f"{asked.overrides}\nnum_speakers: {num_speakers}".strip()).read()
    check_same_modules(run, YAML().load(resolved), "the arguments that it was trained with, or the run folder alone")
    return run


def check_same_modules(run: FinishedRun, nodes: Mapping, advice: str) -> None:
    """Raise InputError when ``nodes`` would build other modules than those of the run."""
    for name, node in run.nodes.items():
        if plain_node(node) != plain_node(nodes[name]):
            raise InputError(f"{run.folder}: was trained with another {name}; give {advice}")


def as_yaml(tree: CommentedMap) -> str:
    """Return a tree as text."""
    stream, yaml = io.StringIO(), YAML()
    yaml.width = 10_000
    yaml.dump(tree, stream)
    return stream.getvalue()


def plain_node(node: Any) -> Any:
    """Return a YAML node as plain values, its tag among them: comments and anchors do not matter."""
    if isinstance(node, Mapping):
        tag = getattr(getattr(node, "tag", None), "value", None)
        return {"tag": tag} | {str(key): plain_node(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain_node(item) for item in node]
    return node if node is None or isinstance(node, bool | str) else float(node)
