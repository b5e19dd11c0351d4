"""The pictures of a report, drawn from an evaluation into its folder."""

from collections.abc import Mapping
from pathlib import Path

from voice_biometrics.evaluation import Evaluation
from voice_biometrics.figures import ScoreFigures
from voice_biometrics.groups import GroupReport
from voice_biometrics.plots import plot_score_histograms
from voice_biometrics.plots_calibration import plot_calibration
from voice_biometrics.plots_det import Band, DetCurve, plot_det, plot_roc_near_zero
from voice_biometrics.plots_eers import GroupEer, plot_condition_eers, plot_group_eers
from voice_biometrics.plots_embeddings import plot_embedding_map
from voice_biometrics.report import Picture


def det_picture(figures: Mapping[str, ScoreFigures], path: Path) -> Picture:
    """Draw DET curves: of conditions, or of systems."""
    plot_det([_curve(name, found) for name, found in figures.items()], path)
    caption = "False rejections against false accepts at every threshold; the dot is the EER. Lower left is better."
    return Picture(path, f"DET curves: {', '.join(figures)}", caption)


def roc_picture(evaluation: Evaluation, folder: Path) -> Picture:
    """Draw the clean trials' ROC near a FAR of zero, with the operating points."""
    clean = evaluation.clean
    points = clean.by_llr.points if clean.by_llr else {}
    plot_roc_near_zero(
        [_curve(clean.name, clean.by_score)], clean.by_score.rates.num_nontarget, points, folder / "roc.png"
    )
    caption = "Where strangers are let in rarely: what the right speakers pay for it, and what the trials can speak of."
    return Picture(folder / "roc.png", "ROC near a FAR of zero, with operating points", caption)


def histogram_picture(evaluation: Evaluation, folder: Path) -> Picture:
    """Draw the clean trials' scores and the thresholds in use."""
    clean, thresholds = evaluation.clean, {}
    if evaluation.thresholds:
        scores = {use: evaluation.thresholds.score_at(use) for use in evaluation.thresholds.points}
        thresholds = {use: score for use, score in scores.items() if score is not None}
    thresholds |= {"EER": clean.summary["eer_threshold"]}
    plot_score_histograms(clean.trials.scores, clean.trials.is_target, thresholds, folder / "scores.png")
    caption = "Scores of target and non-target trials; what lies right of a threshold is accepted."
    return Picture(folder / "scores.png", "histograms of target and non-target scores with thresholds", caption)


def calibration_picture(evaluation: Evaluation, folder: Path) -> Picture:
    """Draw what the log-likelihood ratios state against what was observed."""
    clean = evaluation.clean
    plot_calibration(clean.llrs, clean.trials.is_target, folder / "calibration.png")
    caption = (
        "On the diagonal the ratios tell the truth; a line steeper than it means too modest, a flatter one too bold."
    )
    return Picture(folder / "calibration.png", "observed against stated log-likelihood ratios", caption)


def conditions_picture(evaluation: Evaluation, folder: Path) -> Picture:
    """Draw the EERs under all conditions side by side."""
    plot_condition_eers({judged.name: judged.by_score.eer for judged in evaluation.lists}, folder / "conditions.png")
    caption = "Equal error rates with 95 % intervals over speakers."
    return Picture(folder / "conditions.png", "EER under each condition, with intervals", caption)


def embedding_picture(evaluation: Evaluation, folder: Path) -> Picture:
    """Draw the map of the clean trials' embeddings."""
    trials = evaluation.clean.trials
    plot_embedding_map(trials.embeddings, trials.utterances["spk_id"].to_numpy(), folder / "embeddings.png")
    caption = "Each dot an utterance. Two of the embedding's many dimensions: clouds that overlap here may not in all."
    return Picture(folder / "embeddings.png", "map of the utterances' embeddings, coloured by speaker", caption)


def groups_picture(groups: GroupReport, folder: Path) -> Picture:
    """Draw the EER of each group."""
    rows = [
        GroupEer(
            table.title,
            row.name,
            *((row.eer.estimate, row.eer.lower, row.eer.upper) if row.eer else (None, None, None)),
            row.num_speakers,
            row.num_target + row.num_nontarget,
        )
        for table in groups.tables
        for row in table.rows
    ]
    plot_group_eers(rows, groups.overall.eer, folder / "groups.png")
    caption = "EER of each group with its 95 % interval over speakers; the line is that of all trials."
    return Picture(folder / "groups.png", "EER by group, with intervals", caption)


def _curve(name: str, figures: ScoreFigures) -> DetCurve:
    """Return the curve of a list of trials, with its band."""
    return DetCurve.of(name, figures.rates, Band.of(figures.frr_at))
