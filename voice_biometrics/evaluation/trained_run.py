"""A trained run: its best checkpoint, its held-out speakers, and the trials to evaluate it on.

The ``hyperparams.yaml`` of a run builds objects, so a run folder is a program: load only run folders that you trust.
"""

import hashlib
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
from speechbrain.utils.distributed import infer_device
from tqdm import tqdm

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import data_roots, read_utterances
from voice_biometrics.common.trial_lists import make_trials, read_trials, resolve_trials
from voice_biometrics.evaluation.conditions import CLEAN, Condition
from voice_biometrics.evaluation.thresholds import Thresholds
from voice_biometrics.experiment.checkpoints import WholeCheckpointer
from voice_biometrics.experiment.hparams import (
    as_yaml,
    keys_that_affect,
    merged_tree,
    plain_settings,
    read_command_line,
)
from voice_biometrics.scoring.embeddings import (
    FRONT_TO_EMBEDDING,
    MIN_DURATION_S,
    embed_manifest,
    resolve_num_workers,
)
from voice_biometrics.scoring.enrolment import draw_enrolment, read_enrolment
from voice_biometrics.scoring.scored_trials import ScoredTrials
from voice_biometrics.scoring.scorer import Scorer, Scoring

WEIGHTS = "embedding_model"
DRAW_SEED = 0  # of enrolment utterances


@dataclass(frozen=True)
class TrialSet:
    """Utterances and the trials among them."""

    name: str  # also of the evaluation folder
    manifest_file: Path
    manifest: pd.DataFrame
    trials: pd.DataFrame
    trials_file: Path | None  # None: all pairs of the manifest, or models drawn from it
    is_held_out: bool  # the speakers that selected the best checkpoint
    enrolment: pd.DataFrame | None = None  # model_id, utt_id: the utterances that each model averages

    def enrolled_with(self, num_utterances: int) -> "TrialSet":
        """Return trials of models of ``num_utterances`` utterances, drawn per speaker, against all other utterances."""
        enrolment, trials = draw_enrolment(self.manifest, num_utterances, DRAW_SEED, str(self.manifest_file))
        name = f"{self.name}_enrolled_with_{num_utterances}"
        return replace(self, name=name, trials=trials, trials_file=None, enrolment=enrolment)

    @property
    def utterances_per_model(self) -> int:
        """Median number of utterances per model; 1 without models."""
        return 1 if self.enrolment is None else int(self.enrolment.groupby("model_id").size().median())


class TrainedRun:
    """A run folder with its best checkpoint loaded. The folder is only read, and may have been moved.

    Attributes
    ----------
    folder : the run folder.
    hparams : its hparams as YAML nodes, references resolved.
    settings : the hparams with plain values. Keys that may change after training can be set on the command line.
    nodes : the hparams that ``modules`` were built from.
    modules : features, normalisation and embedding network, in evaluation mode, on the CPU until they embed.
    device : to embed on.
    checkpoint : the one that was loaded.
    held_out_chose_it : ``checkpoint`` had the lowest EER on the held-out speakers.
    whitened : the share of ``export.whitening.whiten`` that was folded into the network.
    newest_epoch : epoch of the newest checkpoint; None when it was saved within an epoch.
    """

    def __init__(self, folder: Path, data_folder: str | None = None, newest: bool = False) -> None:
        """Load the checkpoint of the lowest EER on held-out speakers, or the newest.

        Arguments
        ---------
        folder : written by ``train.py``.
        data_folder : where the corpus is now, if it was moved.
        newest : load the newest checkpoint.

        Raises
        ------
        InputError : nothing was trained there, or the checkpoint is damaged.
        """
        hparams_file = folder / "hyperparams.yaml"
        if not hparams_file.is_file() or not (folder / "save").is_dir():
            raise InputError(
                f"{folder}: expected a run folder with hyperparams.yaml and save/; train first: python train.py"
            )
        self.folder = folder
        text = with_speechbrain_class(as_yaml(merged_tree(hparams_file)))
        self.hparams = YAML().load(text)
        self.settings = plain_settings(text)
        if data_folder is not None:
            self.settings["data_folder"] = data_folder
        self.nodes = CommentedMap({name: self.hparams[name] for name in FRONT_TO_EMBEDDING})
        self.modules = torch.nn.ModuleDict(load_hyperpyyaml(as_yaml(self.nodes))).eval()
        self.device = infer_device()
        self.whitened = 0.0
        recoverables = {WEIGHTS: self.modules[WEIGHTS]}
        if any(folder.glob("save/CKPT*/normalizer.ckpt")):  # older runs have none
            recoverables["normalizer"] = self.modules["mean_var_norm"]
        checkpointer = WholeCheckpointer(folder / "save", recoverables=recoverables)
        self.checkpoint = checkpointer.load_newest() if newest else checkpointer.load_best()
        self.held_out_chose_it = not newest and "EER" in self.checkpoint.meta
        self.newest_epoch = checkpointer.find_checkpoint().meta.get("epoch")

    @classmethod
    def from_command_line(cls, arguments: Sequence[str], usage: str) -> "TrainedRun":
        """Load the run that is named by its folder, or by the arguments of ``train.py``, and ``--key value ...``.

        Raises InputError when the arguments of ``train.py`` build other modules than those that were trained.
        """
        folder = Path(arguments[0]) if arguments and Path(arguments[0]).is_dir() else None
        if folder:
            arguments = [str(folder / "hyperparams.yaml"), *arguments[1:]]
        asked = read_command_line(list(arguments), usage)
        run = cls(folder or Path(asked.settings["output_folder"]))
        may_change = keys_that_affect("free", "scoring") | {"corpus"}
        run.settings |= {key: value for key, value in asked.settings.items() if key in may_change}
        run.device = asked.run_opts.device or run.device
        if not folder:
            nodes = YAML().load(with_speechbrain_class(resolve_references(asked.text, asked.overrides).read()))
            for name, node in run.nodes.items():
                if plain_node(node) != plain_node(nodes[name]):
                    raise InputError(
                        f"{run.folder}: was trained with another {name}; give the arguments of its training, or the "
                        "run folder alone"
                    )
        return run

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.settings["sample_rate"]

    @property
    def dims(self) -> int:
        """Dimensions of an embedding."""
        return self.settings["embedding_dim"]

    @property
    def num_head_parameters(self) -> int:
        """Trained parameters of the head, which is not among ``modules``; 0 without a head."""
        path = self.checkpoint.path / "classifier.ckpt"
        return sum(weights.numel() for weights in torch.load(path).values()) if path.is_file() else 0

    def fingerprint(self) -> str:
        """Return a SHA-256 digest of all that determines an embedding: weights, features and the minimum duration."""
        digest = hashlib.sha256()
        facts = {"nodes": plain_node(self.nodes), "sample_rate": self.sample_rate, "min_duration_s": MIN_DURATION_S}
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in sorted(self.modules[WEIGHTS].state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def manifests(self) -> Path:
        """The folder of the manifests."""
        own = self.folder / "manifests"
        return own if own.is_dir() else Path(self.settings["manifest_folder"])

    @cached_property
    def training(self) -> pd.DataFrame:
        """The manifest of the training part as it was written, with ``$data_root``."""
        return pd.read_csv(self.manifests / "train.csv", dtype={"ID": str, "spk_id": str})

    def utterances(self, manifest_file: Path) -> pd.DataFrame:
        """Return a manifest whose audio files were found."""
        return read_utterances(manifest_file, data_roots(self.settings["corpus"], self.settings["data_folder"]))

    @property
    def has_held_out(self) -> bool:
        """Speakers were held out of training."""
        return (self.manifests / "valid.csv").is_file()

    def held_out(self) -> TrialSet:
        """Return the trials of the held-out speakers; InputError when there are none, or one was trained on."""
        if not self.has_held_out:
            raise InputError(
                f"{self.folder}: no speakers were held out, so nothing calibrates its scores; train runs of the same "
                "hparams that hold some out (--valid_speakers 0.2 --split_seed 1, 2, ...) and name their folders: "
                "--calibration_from RUN_FOLDER ..."
            )
        return self._own_trials("valid")

    def trial_set(
        self,
        manifest_file: Path | None = None,
        trials_file: Path | None = None,
        enrolment_file: Path | None = None,
        enrol_with: int = 1,
    ) -> TrialSet:
        """Return the trials of the given files; by default those of the run's test part, or of its held-out speakers.

        ``enrolment_file`` defines models of several utterances, which ``trials_file`` names; ``enrol_with`` draws so
        many utterances of each speaker as its model. Raises InputError when a file is at fault, a trial names an
        unknown utterance, or a speaker was trained on.
        """
        if manifest_file is not None:
            found = self._named_trials(manifest_file, trials_file, enrolment_file)
        elif trials_file is not None or enrolment_file is not None:
            raise InputError("--test_trials and --enrolment: give their --test_manifest as well")
        elif (self.manifests / "test.csv").is_file():
            found = self._own_trials("test")
        elif self.has_held_out:
            found = self._own_trials("valid")
        else:
            raise InputError("the run has no test part and no held-out speakers: name trials with --test_manifest")
        return found if enrol_with == 1 else found.enrolled_with(enrol_with)

    def _own_trials(self, part: str) -> TrialSet:
        """Return the trials of the run's own test part or held-out speakers."""
        found = self._named_trials(self.manifests / f"{part}.csv", self.manifests / f"{part}_trials.csv")
        return replace(found, name=part, is_held_out=part == "valid")

    def _named_trials(
        self, manifest_file: Path, trials_file: Path | None, enrolment_file: Path | None = None
    ) -> TrialSet:
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
        manifest = self.utterances(manifest_file)
        shared = sorted(set(self.training["spk_id"]) & set(manifest["spk_id"]))
        if shared:
            raise InputError(
                f"{manifest_file}: speaker {shared[0]} was trained on ({len(shared)} such), so the error rates would "
                "be too low; take other speakers, or rename spk_id where different people share a name"
            )
        return manifest

    @cached_property
    def scoring(self) -> Scoring:
        """The scoring that the settings ask for."""
        return Scoring.from_hparams(self.settings)

    @cached_property
    def scorer(self) -> Scorer:
        """The scorer; its cohort, if it needs one, is the training part."""
        if not self.scoring.needs_cohort:
            return Scorer(self.scoring)
        cohort = self.utterances(self.manifests / "train.csv")
        return Scorer(self.scoring, self.embed(cohort), cohort["spk_id"].to_numpy())

    def embed(self, manifest: pd.DataFrame, condition: Condition = CLEAN, progress: tqdm | None = None) -> np.ndarray:
        """Return embeddings (utterances, dims) of a manifest, each utterance altered by ``condition``."""
        rate, segment_s = self.settings["sample_rate"], self.settings["segment_s"]
        workers = resolve_num_workers(self.settings["num_workers"], self.device)
        modules = self.modules.to(self.device)
        return embed_manifest(modules, manifest, rate, self.device, workers, condition, segment_s, progress)

    def score(self, trial_set: TrialSet, condition: Condition = CLEAN) -> ScoredTrials:
        """Return the scored trials; each utterance is embedded once under ``condition``."""
        scorer = self.scorer
        embeddings = self.embed(trial_set.manifest, condition)
        utterances = trial_set.manifest.assign(duration=trial_set.manifest["duration"].clip(upper=condition.longest_s))
        return scorer.score(condition.name, embeddings, utterances, trial_set.trials, trial_set.enrolment)

    def held_out_trials(self, trial_set: TrialSet) -> ScoredTrials | None:
        """Return scored trials of the held-out speakers, with models of as many utterances as in ``trial_set``.

        None when ``trial_set`` has these speakers itself, or no speakers were held out.
        """
        if trial_set.is_held_out or not self.has_held_out:
            return None
        held_out = self.held_out()
        if trial_set.utterances_per_model > 1:
            held_out = held_out.enrolled_with(trial_set.utterances_per_model)
        return self.score(held_out)

    def facts(self, trial_set: TrialSet) -> dict[str, object]:
        """Return a description of the evaluation for the report and metrics.json."""
        return {
            "run folder": str(self.folder),
            "checkpoint": f"{self.checkpoint.path.name}, of epoch {self.checkpoint.meta.get('epoch')}",
            "seed of the training": self.settings["seed"],
            "scoring": self.scoring.in_words(),
            "trials": str(trial_set.trials_file or f"made from {trial_set.manifest_file}"),
            "utterances": len(trial_set.manifest),
            "utterances enrolled": trial_set.utterances_per_model,
        }

    def files(self, trial_set: TrialSet) -> list[Path]:
        """Return the files that the evaluation depends on, for their checksums."""
        weights = self.checkpoint.path / f"{WEIGHTS}.ckpt"
        return [path for path in (weights, trial_set.manifest_file, trial_set.trials_file) if path]

    def save_thresholds(self, thresholds: Thresholds, trial_set: TrialSet) -> None:
        """Write ``calibration.json``, or ``calibration_enrolled_with_<N>.json``, to the run folder."""
        num_enrolled = trial_set.utterances_per_model
        name = "calibration.json" if num_enrolled == 1 else f"calibration_enrolled_with_{num_enrolled}.json"
        origin = {
            "speakers": "held-out speakers of this run",
            "checkpoint": self.checkpoint.path.name,
            "scoring": asdict(self.scoring) | {"segment_s": self.settings["segment_s"]},
            "utterances_enrolled": num_enrolled,
        }
        thresholds.write(self.folder / name, origin)


def with_speechbrain_class(text: str) -> str:
    """Return hparams that name SpeechBrain's ECAPA_TDNN for FastECAPA: equal weights, and exports load without us."""
    return text.replace(
        "voice_biometrics.models.fast_ecapa.FastECAPA", "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
    )


def plain_node(node: Any) -> Any:
    """Return a YAML node as plain values for comparison: tags are kept, comments and anchors are not."""
    if isinstance(node, Mapping):
        tag = getattr(getattr(node, "tag", None), "value", None)
        return {"tag": tag} | {str(key): plain_node(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain_node(item) for item in node]
    return node if node is None or isinstance(node, bool | str) else float(node)
