"""What a report says of how well a system works: sections made of an evaluation's figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from voice_biometrics import report_pictures as pictures
from voice_biometrics.calibration import Calibration
from voice_biometrics.comparison import ComparedFigure, comparison_frame
from voice_biometrics.evaluation import Evaluation, Judged
from voice_biometrics.figures import ScoreFigures
from voice_biometrics.metrics import Cost
from voice_biometrics.operating_points import PointResult, in_words
from voice_biometrics.report import BigFigure, Block, Headline, Section, Table, Text
from voice_biometrics.report_words import in_per_cent, number, per_cent

USES = {
    "smart_speaker": "a smart speaker: convenience first, one stranger in a hundred may be let in",
    "door": "a door: safety first, one stranger in ten thousand may be let in, or as few as the trials can speak of",
    "custom": "your own costs and prior",
}

MOST_WORDED = 3  # lists of trials whose error rates are said in words; the table has all
MOST_COLUMNS = 3  # lists of trials side by side; the table of conditions has all
DCF_WORDS = (
    "minDCF and actDCF are normalised detection costs (1: no better than always deciding the same), both errors "
    "costing 1 unless said; minDCF at the best threshold, actDCF at the one that the calibration and the costs give."
)


def headline(evaluation: Evaluation, chose_checkpoint: bool) -> Section:
    """The EER of the clean trials and under each condition, and what it rests on."""
    clean = evaluation.clean.summary
    figures = [_big_eer(judged) for judged in evaluation.lists]
    words = (
        f"{clean['num_target'] + clean['num_nontarget']:,} trials, {clean['num_target']:,} of them target trials, of "
        f"{clean['num_speakers']} speakers. Ranges are 95 % intervals over speakers: what other speakers of this kind "
        "might have given."
    )
    if len(evaluation.lists) > 1:
        words += (
            "\n\nWhere each speaker was recorded in one session on one device, level and channel give the speaker "
            "away, and the clean figure flatters. Under a condition every file has an alteration of its own."
        )
    if chose_checkpoint:
        words += "\n\nThese held-out speakers also chose the checkpoint, so that the figures are a little too good."
    return Section("Equal error rate", [Headline(figures), Text(words)])


def _big_eer(judged: Judged) -> BigFigure:
    """The EER of one list of trials."""
    eer = judged.by_score.eer
    return BigFigure(f"EER, {judged.name}", per_cent(eer.estimate), f"{per_cent(eer.lower)} to {per_cent(eer.upper)}")


def decisions(evaluation: Evaluation) -> Section:
    """Thresholds for stated uses, in words and as a table."""
    title = "Whom it lets in, and whom it refuses"
    thresholds = evaluation.thresholds
    if thresholds is None:
        return Section(title, [Text(f"No thresholds: {evaluation.not_calibrated}.")])
    blocks: list[Block] = [Text(_where_from(evaluation))]
    rows = []
    for use, point in thresholds.points.items():
        blocks.append(Text(f"{use}: for {USES[use]}. Its threshold: {point.rule}."))
        measured = _measured(evaluation, use)
        blocks += [Text(in_words(f"{use}, {name}", result)) for name, result in measured[:MOST_WORDED]]
        threshold = f"{point.threshold:.2f}", _score(thresholds.score_at(use))
        rows += [(use, name, *threshold, in_per_cent(found.far), in_per_cent(found.frr)) for name, found in measured]
    columns = ("use", "trials", "threshold, LLR", "threshold, score", "strangers let in (FAR), %", "refused (FRR), %")
    blocks.append(Table(columns, rows, "One threshold a use, on all trials", columns[2:]))
    blocks += [Text(f"No threshold for {use}: {reason}.") for use, reason in thresholds.refused.items()]
    return Section(title, blocks)


def _where_from(evaluation: Evaluation) -> str:
    """Say which speakers the thresholds come from."""
    calibration = evaluation.thresholds.calibration
    words = (
        f"Scores became log-likelihood ratios (LLR) by logistic regression on {calibration.num_target:,} target and "
        f"{calibration.num_nontarget:,} non-target trials of "
    )
    if evaluation.on_itself:
        words += (
            "these very speakers, by cross-validation: the ratio of a trial comes from trials of other speakers. The "
            "thresholds were chosen on these ratios, so the FAR that a use asks for is met here by construction."
        )
    else:
        words += "held-out speakers, who are neither in training nor in these trials. There the thresholds were chosen."
    if calibration.ridge:
        words += " Those trials are perfectly separable, so the slope was held down: take the ratios as rough."
    return words


def _measured(evaluation: Evaluation, use: str) -> list[tuple[str, PointResult]]:
    """Return where a threshold was measured and what came out: held-out speakers, then each list of trials."""
    held_out = [] if evaluation.on_itself else [("held-out speakers", evaluation.thresholds.held_out[use])]
    return held_out + [(judged.name, judged.by_llr.points[use]) for judged in evaluation.lists]


def _score(score: float | None) -> str:
    return "depends on duration" if score is None else f"{score:.4f}"


def accuracy(evaluation: Evaluation, folder: Path) -> Section:
    """All figures of the first lists of trials, a column each, the main ones of all, and the curves."""
    lists = evaluation.lists[:MOST_COLUMNS]
    rows = [_row("EER", lists, lambda summary: per_cent(summary["eer"], summary["interval"]))]
    rows.append(_row("EER on the ROC's convex hull", lists, lambda summary: per_cent(summary["rocch_eer"])))
    for place, entry in enumerate(lists[0].summary["min_dcf"]):
        costs = Cost(*(entry[key] for key in Cost._fields)).in_words()
        rows.append(_row(f"minDCF, {costs}", lists, lambda summary, place=place: _dcf(summary["min_dcf"][place])))
        if lists[0].by_llr:
            rows.append(_row(f"actDCF, {costs}", lists, lambda summary, place=place: _dcf(summary["act_dcf"][place])))
    for place, at_far in enumerate(lists[0].summary["frr_at_far"]):
        title = f"FRR at FAR {100 * at_far['max_far']:g} %"
        rows.append(_row(title, lists, lambda summary, place=place: _frr(summary["frr_at_far"][place])))
    if lists[0].by_llr:
        rows.append(_row("C_llr, bits", lists, lambda summary: number(summary["cllr"], summary["cllr_interval"])))
    rows.append(_row("minC_llr, bits", lists, lambda summary: number(summary["min_cllr"])))
    table = Table(("", *(judged.name for judged in lists)), rows, "All figures, with 95 % intervals over speakers")
    remarks = [entry["remark"] for entry in lists[0].summary["frr_at_far"] if entry["remark"]]
    blocks: list[Block] = [table, Text(DCF_WORDS), *(Text(f"{remark}.") for remark in remarks)]
    if len(lists) > 1:
        blocks += [*_conditions(evaluation.lists), pictures.conditions_picture(evaluation, folder)]
    curves = {judged.name: judged.by_score for judged in evaluation.lists if judged.by_score.frr_at}
    blocks += [pictures.det_picture(curves, folder / "det.png"), pictures.roc_picture(evaluation, folder)]
    return Section("Accuracy", blocks)


def _conditions(lists: Sequence[Judged]) -> list[Table]:
    """The main figures of each list of trials, a row each, where they are too many for columns."""
    if len(lists) <= MOST_COLUMNS:
        return []
    rows = []
    for judged in lists:
        at_far, dcf = judged.summary["frr_at_far"][0], judged.summary["min_dcf"][0]
        rows.append((judged.name, in_per_cent(judged.by_score.eer), _frr(at_far), _dcf(dcf)))
    costs, max_far = lists[0].summary["min_dcf"][0], lists[0].summary["frr_at_far"][0]["max_far"]
    columns = ("trials", "EER, %", f"FRR at FAR {100 * max_far:g} %", f"minDCF, p_target {costs['p_target']:g}")
    return [Table(columns, rows, "Every condition")]


def _row(title: str, lists: Sequence[Judged], word: Callable[[dict], str]) -> tuple[str, ...]:
    """Return a row of a table that has a column for each list."""
    return (title, *(word(judged.summary) for judged in lists))


def _dcf(entry: dict) -> str:
    return number(entry["value"], entry.get("interval"))


def _frr(entry: dict) -> str:
    if entry["frr"] is None:
        return "too few trials"
    return per_cent(entry["frr"], entry.get("interval")) + (", coarse" if entry["support"] == "coarse" else "")


def comparison(
    evaluation: Evaluation,
    others: Mapping[str, ScoreFigures],
    compared: Mapping[str, list[ComparedFigure]],
    folder: Path,
) -> list[Section]:
    """How other systems do on the same trials; no section where there is none."""
    if not others:
        return []
    blocks: list[Block] = [
        Text(
            "Differences are this system less the other, with 95 % intervals over speakers, both systems being "
            "resampled alike. An interval that holds 0 means: not distinguishable on these trials."
        )
    ]
    for name, found in compared.items():
        frame = comparison_frame(found, ("this system", name))
        blocks.append(
            Table(list(frame.columns), frame.to_numpy().tolist(), f"Against {name}", list(frame.columns)[1:-1])
        )
    curves = {"this system": evaluation.clean.by_score, **others}
    return [Section("Against other systems", [*blocks, pictures.det_picture(curves, folder / "det_systems.png")])]


def calibration(evaluation: Evaluation, folder: Path) -> Section:
    """Whether scores and ratios mean what they say."""
    blocks: list[Block] = [pictures.histogram_picture(evaluation, folder)]
    if evaluation.thresholds:
        words = _calibration_loss(evaluation.clean.summary, evaluation.thresholds.calibration)
        blocks += [Text(words), pictures.calibration_picture(evaluation, folder)]
    return Section("Scores and calibration", blocks)


def _calibration_loss(summary: dict, fitted: Calibration) -> str:
    """Say what C_llr is made of."""
    cllr, best = summary["cllr"], summary["min_cllr"]
    words = f"C_llr is {number(cllr)} bits; 1 bit is what ignoring the scores costs. "
    if fitted.quality_slopes:
        return words + f"No calibration of the scores alone reaches less than {number(best)}; durations have a say too."
    return words + f"The best calibration of these scores would reach {number(best)}; ours loses {number(cllr - best)}."
