"""A trained run and the trials to judge it by.

A finished training run as its folder tells it: the trained modules, and the speakers that it held out.

Reading the hparams of a run builds objects, so a run folder is a program: never read one that you do not trust.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from speechbrain.utils.checkpoints import Checkpoint
from speechbrain.utils.distributed import infer_device

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import data_roots, read_record, read_utterances
from voice_biometrics.common.trial_lists import make_trials, read_trials, resolve_trials
from voice_biometrics.evaluation.conditions import CLEAN, Condition
from voice_biometrics.evaluation.thresholds import Thresholds
from voice_biometrics.experiment.checkpoints import WholeCheckpointer
from voice_biometrics.experiment.hparams import Run, merged_tree, plain_settings, read_command_line
from voice_biometrics.scoring.embeddings import FRONT_TO_EMBEDDING, MIN_DURATION_S, embed_manifest
from voice_biometrics.scoring.enrolment import draw_enrolment, read_enrolment
from voice_biometrics.scoring.scored_trials import ScoredTrials
from voice_biometrics.scoring.scorer import Scorer, Scoring

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
        roots = data_roots(self.settings["corpus"], self.settings["data_folder"])
        return read_utterances(self._manifests / f"{part}.csv", roots)

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


DRAW_SEED = 0  # of enrolment utterances


@dataclass(frozen=True)
class TrialSet:
    """Utterances and the trials among them."""

    name: str  # of the folder that the evaluation goes to
    manifest_file: Path
    manifest: pd.DataFrame
    trials: pd.DataFrame
    trials_file: Path | None  # None: they were made from the manifest
    is_held_out: bool  # the speakers are those that the best checkpoint was chosen by
    enrolment: pd.DataFrame | None = None  # model_id, utt_id, where models of several utterances are enrolled

    def enrolled_with(self, num_utterances: int) -> "TrialSet":
        """Return the trials of models of so many drawn utterances against all other utterances."""
        enrolment, trials = draw_enrolment(self.manifest, num_utterances, DRAW_SEED, str(self.manifest_file))
        name = f"{self.name}_enrolled_with_{num_utterances}"
        return replace(self, name=name, trials=trials, trials_file=None, enrolment=enrolment)

    @property
    def utterances_per_model(self) -> int:
        """How many utterances a model is made of, in the middle of all models; 1 without models."""
        return 1 if self.enrolment is None else int(self.enrolment.groupby("model_id").size().median())


class TrainedRun:
    """The run folder of a finished or stopped training, with its best checkpoint loaded."""

    def __init__(self, run: Run) -> None:
        """Raises InputError when the run was not trained, or its checkpoint does not fit."""
        self.folder = Path(run.settings["output_folder"])
        self.manifests = Path(run.settings["manifest_folder"])
        record = read_record(self.manifests)
        if not record:
            raise InputError(f"{self.folder}: nothing was trained here: python train.py {run.command_line}")
        self.command_line = run.command_line
        self.hparams = run.build(record["num_speakers"])
        self.scoring = Scoring.from_hparams(self.hparams)
        self.replacements = data_roots(run.settings["corpus"], run.settings["data_folder"])
        self.device = run.run_opts.device or infer_device()
        self.modules = torch.nn.ModuleDict({name: self.hparams[name] for name in FRONT_TO_EMBEDDING}).to(self.device)
        self.checkpoint = self.hparams["checkpointer"].load_best()

    @classmethod
    def from_command_line(cls, arguments: list[str], usage: str) -> "TrainedRun":
        """Load the run that ``train.py`` with the same arguments trained."""
        return cls(read_command_line(arguments, usage))

    def trial_set(
        self,
        manifest_file: Path | None = None,
        trials_file: Path | None = None,
        enrolment_file: Path | None = None,
        enrol_with: int = 1,
    ) -> TrialSet:
        """Return the trials of the named files, or of the run's test part, or of its held-out speakers.

        ``enrolment_file`` names models of several utterances, which stand in ``trials_file``; ``enrol_with`` makes
        them: so many utterances of each speaker. Raises InputError when a file is at fault, a trial names an unknown
        utterance, or a speaker was trained on.
        """
        if manifest_file is None:
            if trials_file is not None or enrolment_file is not None:
                raise InputError("--test_trials and --enrolment: give their --test_manifest as well")
            found = self._own_trials("test") or self._own_trials("valid")
            if found is None:
                raise InputError("the run has no test part and held out nobody: name trials with --test_manifest")
        else:
            found = self._named_trials(manifest_file, trials_file, enrolment_file)
        return found if enrol_with == 1 else found.enrolled_with(enrol_with)

    def held_out_trials(self, trial_set: TrialSet) -> ScoredTrials | None:
        """Return the scored trials of the held-out speakers, with models of as many utterances as ``trial_set`` has.

        None when ``trial_set`` is of these very speakers, or nobody was held out.
        """
        held_out = None if trial_set.is_held_out else self._own_trials("valid")
        if held_out is None:
            return None
        if trial_set.utterances_per_model > 1:
            held_out = held_out.enrolled_with(trial_set.utterances_per_model)
        return self.score(held_out)

    def _own_trials(self, part: str) -> TrialSet | None:
        """Return the trials of the run's own test part or held-out speakers, None where it has none."""
        manifest_file, trials_file = self.manifests / f"{part}.csv", self.manifests / f"{part}_trials.csv"
        if not manifest_file.is_file():
            return None
        manifest = self._unheard(manifest_file)
        trials = resolve_trials(read_trials(trials_file), pd.Index(manifest["ID"]), str(trials_file))
        return TrialSet(part, manifest_file, manifest, trials, trials_file, is_held_out=part == "valid")

    def _named_trials(self, manifest_file: Path, trials_file: Path | None, enrolment_file: Path | None) -> TrialSet:
        """Return the trials of named files."""
        manifest = self._unheard(manifest_file)
        enrolment = None if enrolment_file is None else read_enrolment(enrolment_file, manifest)
        if trials_file is None:
            if enrolment is not None:
                raise InputError("--enrolment: give the --test_trials whose enrol_id are its models")
            trials = make_trials(manifest, None, seed=0)
        else:
            models = [] if enrolment is None else enrolment["model_id"].unique()
            trials = resolve_trials(read_trials(trials_file), pd.Index([*manifest["ID"], *models]), str(trials_file))
        name = (trials_file or manifest_file).stem
        return TrialSet(name, manifest_file, manifest, trials, trials_file, is_held_out=False, enrolment=enrolment)

    def _unheard(self, manifest_file: Path) -> pd.DataFrame:
        """Return a manifest, or raise InputError when a speaker of it was trained on."""
        manifest = read_utterances(manifest_file, self.replacements)
        shared = sorted(set(self._trained_speakers) & set(manifest["spk_id"]))
        if shared:
            raise InputError(
                f"{manifest_file}: speaker {shared[0]} was trained on ({len(shared)} such), so the error rate would "
                "mean nothing; take other speakers, or rename spk_id where they are other people of the same name"
            )
        return manifest

    @cached_property
    def _trained_speakers(self) -> pd.Series:
        return pd.read_csv(self.manifests / "train.csv", usecols=["spk_id"], dtype=str)["spk_id"]

    @cached_property
    def scorer(self) -> Scorer:
        """The scorer that the hparams ask for; its cohort, where it needs one, are the training speakers."""
        if not self.scoring.needs_cohort:
            return Scorer(self.scoring)
        cohort = read_utterances(self.manifests / "train.csv", self.replacements)
        return Scorer(self.scoring, self.embed(cohort), cohort["spk_id"].to_numpy())

    def embed(self, manifest: pd.DataFrame, condition: Condition = CLEAN) -> np.ndarray:
        """Return the embeddings (utterances, dims) of a manifest's utterances, each under ``condition``."""
        rate, workers, segment_s = (self.hparams[key] for key in ("sample_rate", "num_workers", "segment_s"))
        return embed_manifest(self.modules, manifest, rate, self.device, workers, condition, segment_s)

    def score(self, trial_set: TrialSet, condition: Condition = CLEAN) -> ScoredTrials:
        """Return the scored trials, each utterance being embedded once under ``condition``."""
        embeddings = self.embed(trial_set.manifest, condition)
        utterances = trial_set.manifest.assign(duration=trial_set.manifest["duration"].clip(upper=condition.longest_s))
        return self.scorer.score(condition.name, embeddings, utterances, trial_set.trials, trial_set.enrolment)

    def facts(self, trial_set: TrialSet) -> dict[str, object]:
        """Say what is evaluated, for the report and metrics.json."""
        return {
            "run folder": str(self.folder),
            "checkpoint": f"{self.checkpoint.path.name}, of epoch {self.checkpoint.meta.get('epoch')}",
            "seed of the training": self.hparams["seed"],
            "scoring": self.scoring.in_words(),
            "trials": str(trial_set.trials_file or f"made from {trial_set.manifest_file}"),
            "utterances": len(trial_set.manifest),
            "utterances enrolled": trial_set.utterances_per_model,
        }

    def files(self, trial_set: TrialSet) -> list[Path]:
        """Return the files whose checksums say what was evaluated."""
        weights = [self.checkpoint.path / "embedding_model.ckpt"]
        return [*weights, *filter(None, [trial_set.manifest_file, trial_set.trials_file])]

    def save_thresholds(self, thresholds: Thresholds, trial_set: TrialSet) -> None:
        """Keep calibration and thresholds with the model: ``calibration.json``, models of several utterances apart."""
        num_enrolled = trial_set.utterances_per_model
        name = "calibration.json" if num_enrolled == 1 else f"calibration_enrolled_with_{num_enrolled}.json"
        origin = {
            "speakers": "held-out speakers of this run",
            "checkpoint": self.checkpoint.path.name,
            "scoring": asdict(self.scoring) | {"segment_s": self.hparams["segment_s"]},
            "utterances_enrolled": num_enrolled,
        }
        thresholds.write(self.folder / name, origin)
