"""A trained run and the trials to judge it by."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from speechbrain.utils.distributed import infer_device

from data_prep.prepare import read_record
from data_prep.settings import Settings
from data_prep.trials import make_trials, read_trials, resolve_trials
from voice_biometrics.dataio import read_utterances
from voice_biometrics.embedding import FRONT_TO_EMBEDDING, embed_manifest
from voice_biometrics.errors import InputError
from voice_biometrics.hparams import Run, read_command_line
from voice_biometrics.trial_scores import score_trials


@dataclass
class TrialSet:
    """Utterances and the trials among them."""

    name: str  # of the folder that the evaluation goes to
    manifest_file: Path
    manifest: pd.DataFrame
    trials: pd.DataFrame
    chose_checkpoint: bool  # the trials are those that the best checkpoint was chosen by


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
        self.replacements = Settings.from_hparams(run.settings).replacements()
        self.device = run.run_opts.device or infer_device()
        self.modules = torch.nn.ModuleDict({name: self.hparams[name] for name in FRONT_TO_EMBEDDING}).to(self.device)
        self.checkpoint = self.hparams["checkpointer"].load_best()

    @classmethod
    def from_command_line(cls, arguments: list[str], usage: str) -> "TrainedRun":
        """Load the run that ``train.py`` with the same arguments trained."""
        return cls(read_command_line(arguments, usage))

    def trial_set(self, manifest_file: Path | None, trials_file: Path | None) -> TrialSet:
        """Return the trials of the named files, or of the run's test part, or of its held-out speakers.

        Raises InputError when a file is at fault, a trial names an unknown utterance, or a speaker was trained on.
        """
        if manifest_file is None and trials_file is not None:
            raise InputError("--test_trials: give its --test_manifest as well")
        part = "test" if (self.manifests / "test.csv").is_file() else "valid"
        own = manifest_file is None
        if own:
            manifest_file, trials_file = self.manifests / f"{part}.csv", self.manifests / f"{part}_trials.csv"
            if not manifest_file.is_file():
                raise InputError("the run has no test part and held out nobody: name trials with --test_manifest")
        manifest = read_utterances(manifest_file, self.replacements)
        self._check_unheard(manifest, manifest_file)
        if trials_file is None:
            trials = make_trials(manifest, None, seed=0)
        else:
            trials = resolve_trials(read_trials(trials_file), pd.Index(manifest["ID"]), str(trials_file))
        name = part if own else (trials_file or manifest_file).stem
        return TrialSet(name, manifest_file, manifest, trials, own and part == "valid")

    def _check_unheard(self, manifest: pd.DataFrame, manifest_file: Path) -> None:
        """Raise InputError when a speaker of the trials was trained on."""
        trained = pd.read_csv(self.manifests / "train.csv", usecols=["spk_id"], dtype=str)["spk_id"]
        shared = sorted(set(trained) & set(manifest["spk_id"]))
        if shared:
            raise InputError(
                f"{manifest_file}: speaker {shared[0]} was trained on ({len(shared)} such), so the error rate would "
                "mean nothing; take other speakers, or rename spk_id where they are other people of the same name"
            )

    def score(self, trial_set: TrialSet) -> pd.DataFrame:
        """Return the trials with their cosine scores, each utterance being embedded once."""
        embeddings = embed_manifest(
            self.modules, trial_set.manifest, self.hparams["sample_rate"], self.device, self.hparams["num_workers"]
        )
        return score_trials(embeddings, pd.Index(trial_set.manifest["ID"]), trial_set.trials)

    def describe(self, trial_set: TrialSet) -> dict:
        """Say what is evaluated, for metrics.json."""
        return {
            "command": f"python eval_eer.py {self.command_line}",
            "manifest": str(trial_set.manifest_file),
            "num_speakers": int(trial_set.manifest["spk_id"].nunique()),
            "num_utterances": len(trial_set.manifest),
            "checkpoint": self.checkpoint.path.name,
            "epoch": self.checkpoint.meta.get("epoch"),
            "chose_checkpoint": trial_set.chose_checkpoint,
        }
