"""Runs whose held-out speakers say what the scores of another run mean: of the same kind, finished, each once."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from voice_biometrics.deploy.finished_run import FinishedRun, check_same_modules, plain_node
from voice_biometrics.errors import InputError
from voice_biometrics.run_folder import FREE_KEYS

PATHS = {"output_folder", "manifest_folder", "save_folder", "checkpoints_dir", "save_file"}
SIZES = {"num_speakers", "out_neurons", "n_neurons"}  # follow from who is held out
MAY_DIFFER = {"name", "seed", "__set_seed", "split_seed", "valid_speakers", "max_trials", "check_audio"}
ADVICE = "give runs of the same hparams that differ in --valid_speakers, --split_seed and --seed only"


def check_calibration_runs(run: FinishedRun, others: Sequence[FinishedRun]) -> None:
    """Raise InputError when the held-out speakers of ``others`` could not tell what the scores of ``run`` mean.

    That is: one was trained otherwise, stopped early, held out nobody, or is named twice.
    """
    if not run.held_out_somebody:
        check_finished(run)
    seen: dict[str, FinishedRun] = {}  # fingerprint -> run
    for other in others:
        check_same_modules(other, run.nodes, "runs of the same hparams to --calibration_from")
        check_same_training(other, run)
        check_finished(other)
        other.held_out()
        fingerprint = other.fingerprint()
        if fingerprint in seen:
            raise InputError(f"{other.folder}: the same network as that of {seen[fingerprint].folder}; name it once")
        seen[fingerprint] = other


def check_same_training(other: FinishedRun, run: FinishedRun) -> None:
    """Raise InputError, naming the first key, when ``other`` was trained otherwise than ``run``."""
    theirs, ours = (_training_keys(each.hparams) for each in (other, run))
    for key in [key for key in ours if key in theirs]:  # a key that is younger than one of the runs tells nothing
        if theirs[key] != ours[key]:
            found, expected = (_shown(keys[key]) for keys in (theirs, ours))
            raise InputError(
                f"{other.folder}: was trained with another {key}{found}, expected that of {run.folder}{expected}; "
                f"{ADVICE}"
            )


def check_finished(run: FinishedRun) -> None:
    """Raise InputError when the newest checkpoint is not that of the last epoch."""
    epoch, last = run.newest_epoch, run.settings["number_of_epochs"]
    if epoch != last:
        reached = "within its first epoch" if epoch is None else f"after epoch {epoch}"
        raise InputError(f"{run.folder}: was stopped {reached} of {last}; start train.py again to let it finish")


def held_out_more_than_once(runs: Sequence[FinishedRun]) -> int:
    """Return how many speakers were held out by more than one of the runs."""
    speakers = pd.Series([speaker for run in runs for speaker in run.held_out()[0]["spk_id"].unique()])
    return int((speakers.value_counts() > 1).sum())


def _training_keys(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return what training follows from, other than the seeds and who is held out."""
    left_out = MAY_DIFFER | PATHS | SIZES | FREE_KEYS
    return {key: _without(plain_node(node), left_out) for key, node in hparams.items() if key not in left_out}


def _without(node: Any, keys: set[str]) -> Any:
    """Return a plain node without these keys, wherever they stand in it."""
    if isinstance(node, dict):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(item, keys) for item in node] if isinstance(node, list) else node


def _shown(value: Any) -> str:
    """Word a value that fits a line."""
    return "" if isinstance(value, dict | list) else f" ({value!r})"
