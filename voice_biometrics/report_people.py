"""What a report says of the people behind the trials: groups, the worst speakers and trials, the map of voices."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from voice_biometrics import report_pictures as pictures
from voice_biometrics.evaluation import Evaluation
from voice_biometrics.groups import GroupTable, measure_groups
from voice_biometrics.report import Block, Section, Table, Text
from voice_biometrics.report_words import in_per_cent, per_cent
from voice_biometrics.worst import worst_speakers, worst_trials

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
        *([pictures.groups_picture(groups, folder)] if groups.tables else []),
        *(block for table in groups.tables for block in _group_table(table)),
        *(Text(f"No groups by {column}: {reason}.") for column, reason in groups.skipped.items()),
        _speaker_table(worst_speakers(decided, trials.utterances, threshold)),
        _trial_table(_worst_of_each_kind(decided, trials.utterances, threshold)),
    ]
    if trials.embeddings is not None:
        blocks.append(pictures.embedding_picture(evaluation, folder))
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
