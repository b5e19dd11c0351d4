"""Report of an evaluation: ``report.md``, ``report.html``, ``metrics.json`` and plots; and a summary on the screen."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from voice_biometrics.common.files import sha256_of, write_json
from voice_biometrics.common.markdown import (
    Markdown,
    bullets,
    code_block,
    escaped,
    facts,
    paragraphs,
    picture,
    section,
    table,
)
from voice_biometrics.evaluation.comparison import ComparedFigure, align_scores, compare_systems
from voice_biometrics.evaluation.evaluate import Evaluation, Judged, judge
from voice_biometrics.evaluation.groups import GroupReport, GroupTable, measure_groups, worst_speakers, worst_trials
from voice_biometrics.metrics.bootstrap import SEED as BOOTSTRAP_SEED
from voice_biometrics.metrics.bootstrap import Interval
from voice_biometrics.metrics.calibration import SEED as FOLDS_SEED
from voice_biometrics.metrics.calibration import Calibration
from voice_biometrics.metrics.error_rates import Cost
from voice_biometrics.metrics.formatting import in_per_cent, number, per_cent
from voice_biometrics.metrics.operating_points import PointResult, in_words
from voice_biometrics.report.writer import write_report
from voice_biometrics.scoring.scored_trials import ScoredTrials

MOST_COLUMNS = 3  # lists of trials side by side or in words; further ones are in the tables only
WORST_OF_EACH_KIND = 10
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "scipy", "pandas", "matplotlib")
RATES = {"eer": "EER, %", "far": "FAR, %", "frr": "FRR, %"}
USES = {
    "smart_speaker": "for a smart speaker: convenience first, a FAR of one in a hundred",
    "door": "for a door: security first, a FAR of one in ten thousand or the lowest that the trials support",
    "custom": "for your own costs and prior",
}
DCF_WORDS = (
    "minDCF and actDCF are normalised detection costs: 1 is the cost of always making the same decision. Both errors "
    "cost 1 unless stated. minDCF is at the best threshold, actDCF at the one given by the calibration and the costs."
)


@dataclass(frozen=True)
class Subject:
    """The evaluated system or score file.

    title : of the report. folder : to write to. command : that made it. facts : name -> value.
    files : listed with their checksums. chose_checkpoint : the best checkpoint was chosen on these speakers as well.
    units : what intervals are over, "speakers" unless they are not known.
    """

    title: str
    folder: Path
    command: str
    facts: Mapping[str, object]
    files: Sequence[Path]
    chose_checkpoint: bool = False
    units: str = "speakers"


def write_evaluation(
    evaluation: Evaluation, subject: Subject, against: Sequence[ScoredTrials], costs: Sequence[Cost]
) -> dict:
    """Write the report and its plots to ``subject.folder``, and return the content of metrics.json.

    ``against`` : other systems' scores of the same trials. Raises InputError where their trials differ.
    """
    from voice_biometrics.report.plots import draw_evaluation  # here, since bad input need not wait for matplotlib

    subject.folder.mkdir(parents=True, exist_ok=True)
    clean = evaluation.clean.trials
    others = [replace(other, table=align_scores(clean.table, other.table, other.name)) for other in against]
    compared = {other.name: compare_systems(clean, other.scores, costs) for other in others}
    curves = {other.name: judge(other, costs, list(evaluation.clean.frr_at)) for other in others}
    decided = _decided(evaluation)
    by_llr = decided[1] is evaluation.clean.llrs
    groups = measure_groups(clean, *decided[1:], None if by_llr else evaluation.clean.eer)
    draw_evaluation(evaluation, groups, curves, subject.folder)
    sections = [
        _headline(evaluation, subject),
        _decisions(evaluation),
        _accuracy(evaluation),
        *([_comparison(compared)] if compared else []),
        _calibration(evaluation),
        _errors_by_speaker(groups, clean, *decided),
        _how_made(subject),
    ]
    write_report(subject.title, sections, subject.folder)
    metrics = {"command": subject.command, **subject.facts, "chose_checkpoint": subject.chose_checkpoint}
    metrics |= evaluation.to_dict() | {"groups": asdict(groups)}
    metrics["against"] = {name: [asdict(figure) for figure in figures] for name, figures in compared.items()}
    write_json(metrics, subject.folder / "metrics.json")
    return metrics


def print_summary(evaluation: Evaluation, subject: Subject) -> None:
    """Print the main figures and where the report is."""
    clean = evaluation.clean.summary
    print(
        f"Trials   {clean['num_target'] + clean['num_nontarget']:,}: {clean['num_target']:,} target, "
        f"{clean['num_nontarget']:,} non-target, of {clean['num_speakers']:,} {subject.units}"
    )
    for judged in evaluation.lists:
        print(f"EER      {per_cent(judged.summary['eer'], judged.summary['interval'])}   {judged.name}")
    for dcf in clean["min_dcf"]:
        print(f"minDCF   {number(dcf['value'], dcf['interval'])}   p_target {dcf['p_target']:g}")
    if evaluation.thresholds:
        print(f"C_llr    {number(clean['cllr'], clean['cllr_interval'])} bits; minimum {number(clean['min_cllr'])}")
        for use, result in evaluation.clean.points.items():
            print(f"Use      {in_words(use, result)}")
    else:
        print(f"Note     no thresholds: {evaluation.not_calibrated}")
    if subject.chose_checkpoint:
        print("Note     the checkpoint was chosen on these held-out speakers, so the EER is slightly optimistic")
    print(f"Report   {subject.folder / 'report.html'} (also report.md, metrics.json and the plots)")


def _headline(evaluation: Evaluation, subject: Subject) -> Markdown:
    """Return the EER of each list of trials, as large figures."""
    clean = evaluation.clean.summary
    figures = [
        Markdown(
            f"EER, {escaped(judged.name)}: **{per_cent(judged.eer.estimate)}** (95 % interval {_ends(judged.eer)})"
        )
        for judged in evaluation.lists
    ]
    texts = [
        f"{clean['num_target'] + clean['num_nontarget']:,} trials, {clean['num_target']:,} of them target trials, of "
        f"{clean['num_speakers']:,} {subject.units}. All intervals are 95 % bootstrap intervals over them."
    ]
    if len(evaluation.lists) > 1:
        texts.append(
            "Where each speaker was recorded in one session on one device, level and channel help to recognise the "
            "speaker, and the clean EER is optimistic. Under a condition every file is altered differently."
        )
    if subject.chose_checkpoint:
        texts.append("The checkpoint was chosen on these held-out speakers, so the figures are slightly optimistic.")
    return section("Equal error rate", bullets(figures), paragraphs(*texts))


def _ends(interval: Interval) -> str:
    return f"{per_cent(interval.lower)} to {per_cent(interval.upper)}"


def _decisions(evaluation: Evaluation) -> Markdown:
    """Return the threshold of each use, in words and as a table."""
    title, found = "Decision thresholds", evaluation.thresholds
    if found is None:
        return section(title, paragraphs(f"No thresholds: {evaluation.not_calibrated}."))
    texts, rows = [_origin(evaluation)], []
    for use, point in found.points.items():
        texts.append(f"{use}: {USES[use]}. Threshold: {point.rule}.")
        measured = _measured(evaluation, use)
        texts += [in_words(f"{use}, {name}", result) for name, result in measured[:MOST_COLUMNS]]
        score = found.score_at(use)
        threshold = f"{point.threshold:.2f}", "depends on duration" if score is None else f"{score:.4f}"
        rows += [(use, name, *threshold, in_per_cent(rates.far), in_per_cent(rates.frr)) for name, rates in measured]
    columns = (
        "use", "trials", "threshold, LLR", "threshold, score", "false accepts (FAR), %", "false rejects (FRR), %",
    )  # fmt: skip
    refused = paragraphs(*(f"No threshold for {use}: {reason}." for use, reason in found.refused.items()))
    caption = "One threshold per use, on all trials"
    return section(title, paragraphs(*texts), table(columns, rows, caption, left=columns[:2]), refused)


def _origin(evaluation: Evaluation) -> str:
    """Return a sentence on the speakers that the thresholds come from."""
    calibration = evaluation.thresholds.calibration
    words = (
        "Scores are calibrated to log-likelihood ratios (LLR) by logistic regression on "
        f"{calibration.num_target:,} target and {calibration.num_nontarget:,} non-target trials of "
    )
    if evaluation.on_itself:
        words += (
            "these same speakers, with cross-validation: the LLR of a trial comes from trials of other speakers. The "
            "thresholds were chosen on these LLRs, so the FAR that a use requires is met here by construction."
        )
    else:
        words += (
            "held-out speakers, who are neither in training nor in these trials. The thresholds were chosen on them."
        )
    if calibration.ridge:
        words += " Those trials are perfectly separable, so the slope was regularised: the LLRs are approximate."
    return words


def _measured(evaluation: Evaluation, use: str) -> list[tuple[str, PointResult]]:
    """Return the error rates at a threshold, on held-out speakers and on each list of trials."""
    held_out = [] if evaluation.on_itself else [("held-out speakers", evaluation.thresholds.held_out[use])]
    return held_out + [(judged.name, judged.points[use]) for judged in evaluation.lists]


def _accuracy(evaluation: Evaluation) -> Markdown:
    """Return all figures of the first lists of trials, the main ones of the others, and the curves."""
    lists = evaluation.lists[:MOST_COLUMNS]
    columns = ("", *(judged.name for judged in lists))
    remarks = [f"{entry['remark']}." for entry in lists[0].summary["frr_at_far"] if entry["remark"]]
    blocks = [
        table(columns, _all_figures(lists), "All figures, with 95 % intervals over speakers"),
        paragraphs(DCF_WORDS, *remarks),
    ]
    if len(evaluation.lists) > MOST_COLUMNS:
        blocks.append(_every_condition(evaluation.lists))
    if len(evaluation.lists) > 1:
        alt = "EER under each condition, with intervals"
        blocks.append(picture("conditions.png", alt, "Equal error rates with 95 % intervals over speakers."))
    caption = "False rejects against false accepts at every threshold; the dot is the EER. Lower left is better."
    blocks.append(picture("det.png", "DET curves", caption))
    caption = "False rejects at low FARs, and how low a FAR the trials support."
    blocks.append(picture("roc.png", "ROC near a FAR of zero, with operating points", caption))
    return section("Accuracy", *blocks)


def _all_figures(lists: Sequence[Judged]) -> list[tuple[str, ...]]:
    """Return the rows of a table that has a column for each list of trials."""
    rows = []

    def add(title: str, in_cell: Callable[[dict], str]) -> None:
        rows.append((title, *(in_cell(judged.summary) for judged in lists)))

    has_llrs, first = lists[0].llrs is not None, lists[0].summary
    add("EER", lambda summary: per_cent(summary["eer"], summary["interval"]))
    add("EER on the ROC's convex hull", lambda summary: per_cent(summary["rocch_eer"]))
    for place, entry in enumerate(first["min_dcf"]):
        costs = Cost(*(entry[key] for key in Cost._fields)).in_words()
        for name, key in (("minDCF", "min_dcf"), ("actDCF", "act_dcf"))[: 1 + has_llrs]:
            add(f"{name}, {costs}", lambda summary, key=key, place=place: _dcf(summary[key][place]))
    for place, entry in enumerate(first["frr_at_far"]):
        title = f"FRR at FAR {100 * entry['max_far']:g} %"
        add(title, lambda summary, place=place: _frr(summary["frr_at_far"][place]))
    if has_llrs:
        add("C_llr, bits", lambda summary: number(summary["cllr"], summary["cllr_interval"]))
    add("minC_llr, bits", lambda summary: number(summary["min_cllr"]))
    return rows


def _every_condition(lists: Sequence[Judged]) -> Markdown:
    """Return the main figures of each list of trials, a row each."""
    rows = []
    for judged in lists:
        at_far, dcf = judged.summary["frr_at_far"][0], judged.summary["min_dcf"][0]
        rows.append((judged.name, in_per_cent(judged.eer), _frr(at_far), _dcf(dcf)))
    columns = ("trials", "EER, %", f"FRR at FAR {100 * at_far['max_far']:g} %", f"minDCF, p_target {dcf['p_target']:g}")
    return table(columns, rows, "Every condition")


def _dcf(entry: dict) -> str:
    return number(entry["value"], entry.get("interval"))


def _frr(entry: dict) -> str:
    if entry["frr"] is None:
        return "too few trials"
    return per_cent(entry["frr"], entry.get("interval")) + (", coarse" if entry["support"] == "coarse" else "")


def _comparison(compared: Mapping[str, list[ComparedFigure]]) -> Markdown:
    """Return the differences from other systems on the same trials."""
    blocks = [
        paragraphs(
            "Differences are this system minus the other, with 95 % intervals over speakers; both systems are "
            "resampled alike. If an interval includes 0, the systems cannot be distinguished on these trials."
        )
    ]
    for name, found in compared.items():
        columns = ("figure", "this system", name, "difference (95 % interval)", "p-value", "remark")
        rows = [_compared(figure) for figure in found]
        blocks.append(table(columns, rows, f"Against {name}", left=[columns[0], columns[-1]]))
    caption = "False rejects against false accepts at every threshold; the dot is the EER. Lower left is better."
    return section("Comparison with other systems", *blocks, picture("det_systems.png", "DET curves", caption))


def _compared(figure: ComparedFigure) -> tuple[str, ...]:
    """Return a row of the comparison; rates are in per cent."""
    in_words = in_per_cent if figure.unit == "%" else number
    values = (in_words(value) for value in (figure.value_a, figure.value_b, figure.difference))
    p_value = "< 0.001" if figure.difference.p_value < 0.001 else f"{figure.difference.p_value:.3f}"
    return figure.name + (", %" if figure.unit == "%" else ""), *values, p_value, figure.remark


def _calibration(evaluation: Evaluation) -> Markdown:
    """Return the distributions of the scores, and how well their LLRs are calibrated."""
    caption = "Scores of target and non-target trials; scores to the right of a threshold are accepted."
    blocks = [picture("scores.png", "histograms of target and non-target scores with thresholds", caption)]
    if evaluation.thresholds:
        blocks.append(paragraphs(_calibration_loss(evaluation.clean.summary, evaluation.thresholds.calibration)))
        caption = (
            "LLRs on the diagonal are well calibrated; a steeper line is underconfident, a flatter one overconfident."
        )
        blocks.append(picture("calibration.png", "observed against stated log-likelihood ratios", caption))
    return section("Scores and calibration", *blocks)


def _calibration_loss(summary: dict, fitted: Calibration) -> str:
    """Return a sentence on the parts of C_llr: loss by discrimination and by calibration."""
    cllr, best = summary["cllr"], summary["min_cllr"]
    words = f"C_llr is {number(cllr)} bits; ignoring the scores would cost 1 bit. "
    if fitted.quality_slopes:
        return words + f"The best calibration of the scores alone, without durations, would reach {number(best)}."
    return words + f"The best calibration of these scores would reach {number(best)}; ours loses {number(cllr - best)}."


def _decided(evaluation: Evaluation) -> tuple[str, np.ndarray, float]:
    """Return the threshold that all groups are held to, in words; the scores or LLRs it applies to; and its value.

    It is that of the first use, or of the EER where there is no calibration.
    """
    clean, found = evaluation.clean, evaluation.thresholds
    scores = clean.trials.scores
    if found and found.points:
        use, point = next(iter(found.points.items()))
        score = found.score_at(use)
        if score is None:
            return f"that of {use}, LLR {point.threshold:.2f}", clean.llrs, point.threshold
        return f"that of {use}, score {score:.4f}", scores, score
    threshold = clean.summary["eer_threshold"]
    if threshold is None:  # tied scores: only a threshold above all of them is at the EER
        return "one above all scores, which rejects every trial", scores, np.nextafter(scores.max(), np.inf)
    return f"that of the EER, score {threshold:.4f}", scores, threshold


def _errors_by_speaker(
    groups: GroupReport, trials: ScoredTrials, words: str, scores: np.ndarray, threshold: float
) -> Markdown:
    """Return error rates by group, the worst speakers, the worst trials and the map of embeddings."""
    blocks = [
        paragraphs(
            f"One threshold for all: {words}. The trials of a group have both sides in it. Of many groups some differ "
            "by chance: look for intervals that are far apart."
        ),
        *(_group_table(found) for found in groups.tables),
        paragraphs(*(f"No groups by {column}: {reason}." for column, reason in groups.skipped.items())),
        _speaker_table(worst_speakers(trials, scores, threshold)),
        _trial_table(worst_trials(trials, scores, threshold, WORST_OF_EACH_KIND)),
    ]
    if groups.tables:
        caption = "EER of each group with its 95 % interval over speakers; the line is the EER of all trials."
        blocks.insert(1, picture("groups.png", "EER by group, with intervals", caption))
    if trials.embeddings is not None:
        caption = (
            "Each dot is an utterance. Only two of many dimensions: clouds that overlap here may be apart in others."
        )
        blocks.append(picture("embeddings.png", "map of the utterances' embeddings, coloured by speaker", caption))
    return section("Errors by group and speaker", *blocks)


def _group_table(found: GroupTable) -> Markdown:
    """Return the groups of one column of metadata, a row each, and remarks."""
    rows = []
    for row in found.rows:
        rates = [in_per_cent(rate) if (rate := getattr(row, key)) else None for key in RATES]
        rows.append((row.name, row.num_speakers, row.num_target, row.num_nontarget, *rates))
    columns = ("group", "speakers", "target trials", "non-target trials", *RATES.values())
    remarks = [f"{row.name}: {row.remark}." for row in found.rows if row.remark]
    remarks += [f"{found.remark}."] if found.remark else []
    groups = table(columns, rows, f"By {found.title}")
    return Markdown(f"{groups}\n\n{escaped(' '.join(remarks))}" if remarks else groups)


def _speaker_table(worst: pd.DataFrame) -> Markdown:
    """Return the speakers with the highest mean of FRR and FAR."""
    rows = [
        (
            row.spk_id,
            f"{row.num_false_rejects:,} of {row.num_target:,}",
            per_cent(row.frr) if row.num_target else None,
            f"{row.num_false_accepts:,} of {row.num_nontarget:,}",
            per_cent(row.far) if row.num_nontarget else None,
            f"{row.confused_with} ({row.num_confused:,} of {row.num_met:,})" if row.num_confused else None,
        )
        for row in worst.itertuples()
    ]
    columns = ("speaker", "false rejects", "FRR", "false accepts", "FAR", "most often confused with")
    return table(columns, rows, "The ten speakers with the most errors, by the mean of FRR and FAR")


def _trial_table(worst: pd.DataFrame) -> Markdown:
    """Return the errors farthest from the threshold."""
    sides = [f"{side}_{'wav' if f'{side}_wav' in worst else 'id'}" for side in ("enrol", "test")]
    rows = [
        (row["error"], f"{row['score']:.4f}", row["enrol_spk_id"], row[sides[0]], row["test_spk_id"], row[sides[1]])
        for row in worst.to_dict("records")
    ]
    columns = ("error", "score", "speaker enrolled", "enrolment", "speaker tested", "test")
    caption = f"The false accepts and false rejects farthest from the threshold, up to {WORST_OF_EACH_KIND} each"
    return table(columns, rows, f"{caption}: listen to them", left=set(columns) - {"score"})


def _how_made(subject: Subject) -> Markdown:
    """Return the command, facts of the run, seeds, versions and checksums."""
    seeds = f"bootstrap {BOOTSTRAP_SEED}, folds {FOLDS_SEED}; conditions: from each utterance's ID"
    known = {
        **subject.facts,
        "seeds": seeds,
        "bootstrap": "1,000 draws of speakers",
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        **{name: found for name in PACKAGES if (found := _version(name))},
        **{f"SHA-256 of {file.name}": sha256_of(file) for file in subject.files},
    }
    return section("How this report was made", code_block(subject.command), facts(known))


def _version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
