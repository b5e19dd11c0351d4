"""What a report says of how well a system works: sections made of an evaluation's figures.

An evaluation written down: report.html, report.md, metrics.json and pictures; and a few lines on screen.

What a report says of the people behind the trials: groups, the worst speakers and trials, the map of voices.

The pictures of a report, drawn from an evaluation into its folder.

What a report says of how it was made, so that somebody else can make it again.
"""

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from voice_biometrics.common.files import write_json
from voice_biometrics.evaluation import evaluate as figures
from voice_biometrics.evaluation import thresholds
from voice_biometrics.evaluation.comparison import ComparedFigure, compare_systems, comparison_frame
from voice_biometrics.evaluation.evaluate import Evaluation, Judged, ScoreFigures, score_figures
from voice_biometrics.evaluation.groups import GroupReport, GroupTable, measure_groups, worst_speakers, worst_trials
from voice_biometrics.metrics.calibration import Calibration
from voice_biometrics.metrics.error_rates import Cost
from voice_biometrics.metrics.formatting import in_per_cent, number, per_cent
from voice_biometrics.metrics.operating_points import PointResult, in_words
from voice_biometrics.report.plots import (
    Band,
    DetCurve,
    GroupEer,
    plot_calibration,
    plot_condition_eers,
    plot_det,
    plot_embedding_map,
    plot_group_eers,
    plot_roc_near_zero,
    plot_score_histograms,
)
from voice_biometrics.report.writer import (
    BigFigure,
    Block,
    Code,
    Facts,
    Headline,
    Picture,
    Section,
    Table,
    Text,
    write_report,
)
from voice_biometrics.scoring.scored_trials import ScoredTrials


@dataclass(frozen=True)
class Subject:
    """What was evaluated, for the report.

    title : of the report. folder : where it goes. command : that made it. facts : name -> value.
    files : whose checksums are told. chose_checkpoint : the speakers of the trials also chose the best checkpoint.
    """

    title: str
    folder: Path
    command: str
    facts: Mapping[str, object]
    files: Sequence[Path]
    chose_checkpoint: bool = False


def write_evaluation(
    evaluation: Evaluation, subject: Subject, against: Sequence[ScoredTrials], costs: Sequence[Cost]
) -> dict:
    """Write the report and its pictures to ``subject.folder``, and return the content of metrics.json.

    ``against`` : other systems' scores of the same trials. Raises InputError where their trials differ.
    """
    subject.folder.mkdir(parents=True, exist_ok=True)
    clean = evaluation.clean.trials
    compared = {other.name: _compare(clean, other, costs) for other in against}
    fars = list(evaluation.clean.by_score.frr_at)
    others = {other.name: score_figures(other, costs, fars) for other in against}
    people_section, groups = people(evaluation, subject.folder)
    sections = [
        headline(evaluation, subject.chose_checkpoint),
        decisions(evaluation),
        accuracy(evaluation, subject.folder),
        *comparison(evaluation, others, compared, subject.folder),
        calibration(evaluation, subject.folder),
        people_section,
        how_made(subject.command, subject.facts, subject.files),
    ]
    write_report(subject.title, sections, subject.folder)
    metrics = {"command": subject.command, **subject.facts, "chose_checkpoint": subject.chose_checkpoint}
    metrics |= evaluation.to_dict() | {"groups": groups}
    metrics["against"] = {name: [asdict(figure) for figure in figures] for name, figures in compared.items()}
    write_json(metrics, subject.folder / "metrics.json")
    return metrics


def _compare(clean: ScoredTrials, other: ScoredTrials, costs: Sequence[Cost]) -> list[ComparedFigure]:
    """Return the differences of this system and another."""
    speaker_of = clean.utterances.set_index("ID")["spk_id"]
    return compare_systems(clean.table, other.table, speaker_of, costs, names=("this system", other.name))


def say(evaluation: Evaluation, subject: Subject) -> None:
    """Print the figures that are wanted first, and where the others are."""
    clean = evaluation.clean.summary
    print(
        f"Trials   {clean['num_target'] + clean['num_nontarget']:,}: {clean['num_target']:,} target, "
        f"{clean['num_nontarget']:,} non-target, of {clean['num_speakers']} speakers"
    )
    for judged in evaluation.lists:
        print(f"EER      {per_cent(judged.summary['eer'], judged.summary['interval'])}   {judged.name}")
    for dcf in clean["min_dcf"]:
        print(f"minDCF   {number(dcf['value'], dcf['interval'])}   p_target {dcf['p_target']:g}")
    if evaluation.thresholds:
        print(f"C_llr    {number(clean['cllr'], clean['cllr_interval'])} bits; at best {number(clean['min_cllr'])}")
        for use, result in evaluation.clean.by_llr.points.items():
            print(f"Use      {in_words(use, result)}")
    else:
        print(f"Note     no thresholds: {evaluation.not_calibrated}")
    if subject.chose_checkpoint:
        print("Note     these held-out speakers also chose the checkpoint, so the EER is a little too good")
    print(f"Report   {subject.folder / 'report.html'} (also report.md, metrics.json and the pictures)")


RATES = {"eer": "EER, %", "far": "FAR, %", "frr": "FRR, %"}
WORST_OF_EACH_KIND = 10


def people(evaluation: Evaluation, folder: Path) -> tuple[Section, dict]:
    """Return the section on groups, worst speakers and worst trials, and the groups' figures for JSON."""
    trials = evaluation.clean.trials
    words, decided, threshold = _decided(evaluation)
    groups = measure_groups(decided, trials.utterances, threshold)
    blocks: list[Block] = [
        Text(
            f"One threshold for everybody: {words}. A group's trials are those with both sides in it. Among many "
            "groups some differ by chance: look for intervals that lie far apart."
        ),
        *([groups_picture(groups, folder)] if groups.tables else []),
        *(block for table in groups.tables for block in _group_table(table)),
        *(Text(f"No groups by {column}: {reason}.") for column, reason in groups.skipped.items()),
        _speaker_table(worst_speakers(decided, trials.utterances, threshold)),
        _trial_table(_worst_of_each_kind(decided, trials.utterances, threshold)),
    ]
    if trials.embeddings is not None:
        blocks.append(embedding_picture(evaluation, folder))
    return Section("Who it fails", blocks), asdict(groups)


def _decided(evaluation: Evaluation) -> tuple[str, pd.DataFrame, float]:
    """Return the threshold that all groups are held to, in words, the trials with what it applies to, and its value.

    It is that of the first use, or of the EER where there is no calibration.
    """
    table, thresholds = evaluation.clean.trials.table, evaluation.thresholds
    if not (thresholds and thresholds.points):
        threshold = evaluation.clean.summary["eer_threshold"]
        return f"that of the EER, score {threshold:.4f}", table, threshold
    use, point = next(iter(thresholds.points.items()))
    score = thresholds.score_at(use)
    if score is None:
        return f"that of {use}, LLR {point.threshold:.2f}", table.assign(score=evaluation.clean.llrs), point.threshold
    return f"that of {use}, score {score:.4f}", table, score


def _group_table(table: GroupTable) -> list[Block]:
    """One column of metadata, a row a group, and what to know of them."""
    rows = []
    for row in table.rows:
        rates = [in_per_cent(rate) if (rate := getattr(row, key)) else None for key in RATES]
        rows.append((row.name, row.num_speakers, row.num_target, row.num_nontarget, *rates))
    columns = ("group", "speakers", "target trials", "non-target trials", *RATES.values())
    remarks = [f"{row.name}: {row.remark}." for row in table.rows if row.remark]
    remarks += [f"{table.remark}."] if table.remark else []
    return [Table(columns, rows, f"By {table.title}"), *([Text(" ".join(remarks))] if remarks else [])]


def _speaker_table(worst: pd.DataFrame) -> Table:
    """The speakers with the highest mean of FRR and FAR."""
    rows = [
        (
            row.spk_id,
            f"{row.num_false_rejects:,} of {row.num_target:,}",
            per_cent(row.frr) if row.num_target else None,
            f"{row.num_false_accepts:,} of {row.num_nontarget:,}",
            per_cent(row.far) if row.num_nontarget else None,
            None if row.confused_with is None else f"{row.confused_with} ({row.num_confused:,} of {row.num_met:,})",
        )
        for row in worst.itertuples()
    ]
    columns = ("speaker", "own voice refused", "FRR", "taken for another", "FAR", "most often for")
    return Table(columns, rows, "The ten speakers that it fails most, by the mean of FRR and FAR")


def _worst_of_each_kind(decided: pd.DataFrame, utterances: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the false accepts, then the false rejects farthest from the threshold."""
    kinds = [decided[decided["target"] == target] for target in (0, 1)]
    return pd.concat([worst_trials(kind, utterances, threshold, WORST_OF_EACH_KIND) for kind in kinds])


def _trial_table(worst: pd.DataFrame) -> Table:
    """The errors farthest from the threshold."""
    sides = [f"{side}_{'wav' if f'{side}_wav' in worst else 'id'}" for side in ("enrol", "test")]
    rows = [
        (row["error"], f"{row['score']:.4f}", row["enrol_spk_id"], row[sides[0]], row["test_spk_id"], row[sides[1]])
        for row in worst.to_dict("records")
    ]
    columns = ("error", "score", "speaker enrolled", "enrolment", "speaker tested", "test")
    return Table(
        columns,
        rows,
        "The false accepts and the false rejects farthest from the threshold, ten each: listen to them",
        ["score"],
    )


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


PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "scipy", "pandas", "matplotlib")


def how_made(command: str, facts: Mapping[str, object], files: Sequence[Path]) -> Section:
    """Return the section with the command, facts of the run, seeds, versions, and checksums of ``files``."""
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    all_facts = {
        **facts,
        "seeds": f"bootstrap {figures.SEED}, folds {thresholds.SEED}; conditions: from each utterance's ID",
        "bootstrap": "1,000 draws of speakers",
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        **versions,
        **{f"SHA-256 of {file.name}": sha256(file) for file in files},
    }
    return Section("How this was made", [Code(command), Facts(all_facts)])


def sha256(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
        blocks += [*_conditions(evaluation.lists), conditions_picture(evaluation, folder)]
    curves = {judged.name: judged.by_score for judged in evaluation.lists if judged.by_score.frr_at}
    blocks += [det_picture(curves, folder / "det.png"), roc_picture(evaluation, folder)]
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
    return [Section("Against other systems", [*blocks, det_picture(curves, folder / "det_systems.png")])]


def calibration(evaluation: Evaluation, folder: Path) -> Section:
    """Whether scores and ratios mean what they say."""
    blocks: list[Block] = [histogram_picture(evaluation, folder)]
    if evaluation.thresholds:
        words = _calibration_loss(evaluation.clean.summary, evaluation.thresholds.calibration)
        blocks += [Text(words), calibration_picture(evaluation, folder)]
    return Section("Scores and calibration", blocks)


def _calibration_loss(summary: dict, fitted: Calibration) -> str:
    """Say what C_llr is made of."""
    cllr, best = summary["cllr"], summary["min_cllr"]
    words = f"C_llr is {number(cllr)} bits; 1 bit is what ignoring the scores costs. "
    if fitted.quality_slopes:
        return words + f"No calibration of the scores alone reaches less than {number(best)}; durations have a say too."
    return words + f"The best calibration of these scores would reach {number(best)}; ours loses {number(cllr - best)}."
