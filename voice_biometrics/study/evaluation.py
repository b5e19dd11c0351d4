"""Score one finished run of a study on the study's held-out speakers: ``evaluation.py TRIALS [HPARAMS] [--key ...]``.

TRIALS is a folder with ``valid.csv`` (``wav`` without ``$data_root``) and ``valid_trials.csv``, the same for all runs;
the rest are the arguments of train.py. Started by run_ablations.py. Writes to ``<run folder>/study``, for each
condition (clean, channel): ``<condition>.parquet`` (scores) and ``<condition>.npy`` (the EER of all trials and of each
draw of speakers, see ``paired.speaker_draws``); and, last, ``figures.json``: EER, minDCF, size, multiplications, time.
"""

import sys
from pathlib import Path

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import numpy as np
import pandas as pd

from data_prep.trials import read_trials
from voice_biometrics.conditions import CLEAN, Condition, conditions_named
from voice_biometrics.dataio import read_utterances
from voice_biometrics.errors import tell_input_errors
from voice_biometrics.files import write_json, written_whole
from voice_biometrics.metrics import Cost, summary
from voice_biometrics.study.costs import count_macs, count_parameters, describe_hardware, time_inference
from voice_biometrics.study.paired import speaker_draws
from voice_biometrics.trained_run import TrainedRun
from voice_biometrics.trial_scores import write_scores

CONDITIONS = (CLEAN, *conditions_named("channel"))


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Load the run's best checkpoint, score under each condition, and write the figures."""
    trials_folder, rest = Path(arguments[0]), arguments[1:]
    run = TrainedRun.from_command_line(rest, __doc__)
    manifest = read_utterances(trials_folder / "valid.csv", {})
    trials = read_trials(trials_folder / "valid_trials.csv")
    folder = run.folder / "study"
    figures = {condition.name: evaluate(run, manifest, trials, condition, folder) for condition in CONDITIONS}
    write_json({**figures, **costs(run), **run_facts(run, manifest)}, folder / "figures.json")


def evaluate(
    run: TrainedRun, manifest: pd.DataFrame, trials: pd.DataFrame, condition: Condition, folder: Path
) -> dict[str, object]:
    """Score ``trials`` under one condition, write scores and draws, and return EER and minDCF."""
    scored = run.scorer.score(condition.name, run.embed(manifest, condition), manifest, trials)
    write_scores(scored.table, folder / f"{condition.name}.parquet")
    with written_whole(folder / f"{condition.name}.npy") as temporary:
        np.save(temporary, speaker_draws(scored.table, manifest.set_index("ID")["spk_id"]))
    found = summary(scored.scores, scored.is_target, [Cost(p_target) for p_target in run.hparams["p_targets"]])
    return {"eer": found["eer"], "min_dcf": {f"{dcf['p_target']:g}": dcf["value"] for dcf in found["min_dcf"]}}


def costs(run: TrainedRun) -> dict:
    """Return sizes, multiplications and time of a run's network; the time is on the CPU."""
    network = run.modules.values()
    rate = run.hparams["sample_rate"]
    return {
        "num_parameters": count_parameters(network),
        "num_parameters_with_head": count_parameters([*network, run.hparams["classifier"]]),
        "macs_3s": count_macs(run.modules, rate),
        "inference_s": time_inference(run.modules, rate),
        "inference_hardware": describe_hardware("cpu", 1),
    }


def run_facts(run: TrainedRun, manifest: pd.DataFrame) -> dict:
    """Return the checkpoint that was judged, and by how many speakers."""
    return {"epoch": run.checkpoint.meta.get("epoch"), "num_valid_speakers": int(manifest["spk_id"].nunique())}


if __name__ == "__main__":
    main(sys.argv[1:])
