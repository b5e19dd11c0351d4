"""Scored trials to figures and pictures: metrics.json, det.png, scores.png, and a few lines on screen."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from voice_biometrics.files import write_json
from voice_biometrics.intervals import bootstrap_intervals
from voice_biometrics.measures import Eer
from voice_biometrics.metrics import error_rates, summary
from voice_biometrics.plots import plot_score_histograms
from voice_biometrics.plots_det import DetCurve, plot_det

NUM_REPLICATES = 1000  # of the bootstrap; with 1,000 the ends of the interval are steady to a few per cent of its width


def write_evaluation(
    scores: pd.DataFrame, folder: Path, origin: dict, p_targets: Sequence[float], speaker_of: pd.Series | None = None
) -> dict:
    """Write metrics.json, det.png and scores.png to ``folder``, and return the metrics.

    ``scores`` has the columns ``enrol_id``, ``test_id``, ``target`` (1 or 0) and ``score``; ``origin`` says what was
    scored and goes into metrics.json as it is. With ``speaker_of`` (a speaker for each utterance ID) the EER gets its
    95 % interval over speakers. Rates are fractions.
    """
    values, is_target = scores["score"].to_numpy(), scores["target"].to_numpy() == 1
    metrics = {**origin, **summary(values, is_target, p_targets)}
    if speaker_of is not None:
        speakers = [scores[column].map(speaker_of).to_numpy() for column in ("enrol_id", "test_id")]
        found = bootstrap_intervals(
            values, is_target, *speakers, {"eer": Eer()}, num_replicates=NUM_REPLICATES, seed=0
        )["eer"]
        metrics["eer_95_percent_interval"] = [found.lower, found.upper]
    rates = error_rates(values, is_target)
    write_json(metrics, folder / "metrics.json")
    plot_det([DetCurve.of(f"{len(scores):,} trials", rates)], folder / "det.png")
    thresholds = {"EER": metrics["eer_threshold"]}
    thresholds |= {f"minDCF, p_target {dcf['p_target']:g}": dcf["threshold"] for dcf in metrics["min_dcf"]}
    plot_score_histograms(values, is_target, thresholds, folder / "scores.png")
    return metrics


def say_metrics(metrics: dict, folder: Path) -> None:
    """Print the figures and where they were written."""
    num_target, num_nontarget = metrics["num_target"], metrics["num_nontarget"]
    print(f"Trials   {num_target + num_nontarget:,}: {num_target:,} target, {num_nontarget:,} non-target")
    print(f"EER      {100 * metrics['eer']:.2f} %   accepting a score of {metrics['eer_threshold']:.4f} or more")
    if "eer_95_percent_interval" in metrics:
        lower, upper = (f"{100 * end:.2f}" for end in metrics["eer_95_percent_interval"])
        print(f"         {lower} to {upper} % is its 95 % interval over {metrics['num_speakers']} speakers")
    for dcf in metrics["min_dcf"]:
        costs = f"p_target {dcf['p_target']:g}, c_miss {dcf['c_miss']:g}, c_fa {dcf['c_fa']:g}"
        print(f"minDCF   {dcf['value']:.4f}   {costs}")
    if metrics.get("chose_checkpoint"):
        print("Note     these held-out speakers also chose the checkpoint, so the EER is a little too good")
    print(f"Written  {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
