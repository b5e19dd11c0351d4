"""Who the system fails: EER, and FAR and FRR at one common threshold, for groups of speakers and utterances.

A group's trials are those with both sides in it. Groups are made of each column of metadata in the manifest and of the
duration of the shorter side. Columns of two or three groups, such as gender, are also asked which strangers are taken
for a speaker: all targets against the non-targets within a group, or across two groups.

The threshold is common, since a product has one: a group whose FRR lies far above the others' is refused more often.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from data_prep.manifest import COLUMNS as MANIFEST_COLUMNS
from voice_biometrics.bands import duration_bands, group_utterances
from voice_biometrics.errors import InputError
from voice_biometrics.intervals import Interval, bootstrap_intervals
from voice_biometrics.measures import Eer, far_at, frr_at
from voice_biometrics.trial_tables import utterance_rows

MAX_CROSSED_GROUPS = 3
FEW_SPEAKERS = 10  # with fewer, intervals hold the truth in less than 0.9 of lists (see voice_biometrics.intervals)


@dataclass(frozen=True)
class GroupResult:
    """Error rates of one group, fractions with their 95 % intervals; None where ``remark`` says why not.

    An interval is 0 to 1 where too few speakers contribute for anything to be told.

    num_speakers, num_target, num_nontarget : what the group's trials hold.
    num_target_speakers : whose target trials there are.
    """

    name: str
    num_speakers: int
    num_target_speakers: int
    num_target: int
    num_nontarget: int
    eer: Interval | None = None
    far: Interval | None = None
    frr: Interval | None = None
    remark: str = ""


@dataclass(frozen=True)
class GroupTable:
    """The groups that one column makes. remark : what to know of the column, or ""."""

    title: str
    rows: list[GroupResult]
    remark: str = ""


@dataclass(frozen=True)
class GroupReport:
    """All tables. overall : all trials. skipped : column of metadata -> why it makes no groups."""

    threshold: float
    overall: GroupResult
    tables: list[GroupTable]
    skipped: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Trials:
    """Trials by rows of the manifest: (trials,) each; speaker : (utterances,) int."""

    score: np.ndarray
    is_target: np.ndarray
    enrol: np.ndarray
    test: np.ndarray
    speaker: np.ndarray


@dataclass(frozen=True, eq=False)
class _Plan:
    """A table to fill. group : (trials,) int, a row of ``names`` or -1. with_all_targets : they belong to each row."""

    title: str
    names: list[str]
    group: np.ndarray
    with_all_targets: bool = False
    remark: str = ""

    def trials(self, row: int, is_target: np.ndarray) -> np.ndarray:
        """Return which trials belong to a row, (trials,) bool."""
        if self.with_all_targets:
            return is_target | (self.group == row)
        return self.group == row


def measure_groups(
    scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, *, num_replicates: int = 1000, seed: int = 0
) -> GroupReport:
    """Return EER, and FAR and FRR at ``threshold``, for every group that the manifest makes.

    Arguments
    ---------
    scores : scored trials: ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score`` (finite).
    manifest : utterances: ``ID``, ``spk_id``, columns of metadata, and ``duration`` (seconds) if it is known.
    threshold : accept from this score on.
    num_replicates, seed : of the bootstrap over speakers, see ``intervals.bootstrap_intervals``.

    Raises
    ------
    InputError : an utterance of a trial is not in the manifest, a label is contradicted by its speakers, or, for all
        trials together, as ``intervals.bootstrap_intervals``.
    """
    trials = _trials(scores, manifest)
    columns = [column for column in manifest.columns if column not in MANIFEST_COLUMNS]
    used = np.union1d(trials.enrol, trials.test)
    grouped = {column: _group_used(column, manifest[column], used) for column in columns}
    skipped = {column: remark for column, (groups, remark) in grouped.items() if groups is None}
    kept = {column: groups for column, groups in grouped.items() if column not in skipped}
    plans = [plan for column, found in kept.items() for plan in _plans(column, *found, trials)]
    if "duration" in manifest:
        plans.append(_duration_plan(manifest["duration"].to_numpy(), trials))

    def measured(name: str, chosen: np.ndarray | slice) -> GroupResult:
        result = _measure(name, chosen, trials, threshold, num_replicates, seed)
        bar.update()
        return result

    with tqdm(total=1 + sum(len(plan.names) for plan in plans), desc="groups", unit="group", delay=2) as bar:
        overall = measured("all trials", slice(None))
        tables = [
            GroupTable(
                plan.title,
                [measured(name, plan.trials(row, trials.is_target)) for row, name in enumerate(plan.names)],
                plan.remark,
            )
            for plan in plans
        ]
    return GroupReport(threshold, overall, tables, skipped)


def group_frame(rows: list[GroupResult]) -> pd.DataFrame:
    """Return a table to print: a line a group, rates in per cent with their 95 % intervals, "–" where there is none."""
    return pd.DataFrame(
        {
            "group": [row.name for row in rows],
            "speakers": [row.num_speakers for row in rows],
            "with targets": [row.num_target_speakers for row in rows],
            "target trials": [f"{row.num_target:,}" for row in rows],
            "non-target trials": [f"{row.num_nontarget:,}" for row in rows],
            "EER %": [_cell(row.eer) for row in rows],
            "FAR %": [_cell(row.far) for row in rows],
            "FRR %": [_cell(row.frr) for row in rows],
            "remark": [row.remark for row in rows],
        }
    )


def _cell(rate: Interval | None) -> str:
    """A rate in per cent with its interval."""
    if rate is None:
        return "–"
    estimate, lower, upper = (f"{100 * value:.2f}" for value in (rate.estimate, rate.lower, rate.upper))
    return f"{estimate} ({lower} to {upper})"


def _trials(scores: pd.DataFrame, manifest: pd.DataFrame) -> _Trials:
    """Find the utterances of the trials in the manifest, and check their speakers against the labels."""
    enrol, test = utterance_rows(scores, pd.Index(manifest["ID"]))
    speaker, names = pd.factorize(manifest["spk_id"])
    is_target = scores["target"].to_numpy() == 1
    wrong = (speaker[enrol] == speaker[test]) != is_target
    if wrong.any():
        trial = int(np.argmax(wrong))
        kind = "target" if is_target[trial] else "non-target"
        raise InputError(
            f"trial {scores['enrol_id'].iloc[trial]} {scores['test_id'].iloc[trial]} is labelled {kind}, but its "
            f"speakers are {names[speaker[enrol[trial]]]} and {names[speaker[test[trial]]]} "
            f"({np.count_nonzero(wrong):,} such trials): correct the labels or the manifest"
        )
    return _Trials(scores["score"].to_numpy(), is_target, enrol, test, speaker)


def _group_used(column: str, values: pd.Series, used: np.ndarray) -> tuple[pd.Categorical | None, str]:
    """Group the utterances that the trials use; the others belong to no group."""
    groups, remark = group_utterances(column, values.iloc[used])
    if groups is None:
        return None, remark
    codes = np.full(len(values), -1)
    codes[used] = groups.codes
    return pd.Categorical.from_codes(codes, dtype=groups.dtype), remark


def _plans(column: str, groups: pd.Categorical, remark: str, trials: _Trials) -> Iterator[_Plan]:
    """Yield the tables of one column of metadata."""
    enrol, test = groups.codes[trials.enrol], groups.codes[trials.test]
    names = groups.categories.tolist()
    yield _Plan(column, names, np.where(enrol == test, enrol, -1), remark=remark)
    if len(names) <= MAX_CROSSED_GROUPS:
        first, second = np.triu_indices(len(names))
        row_of = np.full((len(names) + 1, len(names) + 1), -1, np.int8)  # the last row and column: not known
        row_of[first, second] = row_of[second, first] = np.arange(first.size)
        pairs = [f"{names[one]}–{names[other]}" for one, other in zip(first, second, strict=True)]
        title = f"{column}, non-targets within and across"
        yield _Plan(title, pairs, row_of[enrol, test], with_all_targets=True, remark=remark)


def _duration_plan(durations_s: np.ndarray, trials: _Trials) -> _Plan:
    """The table by the duration of a trial's shorter side."""
    bands = duration_bands(np.minimum(durations_s[trials.enrol], durations_s[trials.test]))
    return _Plan("duration of the shorter side", bands.categories.tolist(), bands.codes)


def _measure(
    name: str, chosen: np.ndarray | slice, trials: _Trials, threshold: float, num_replicates: int, seed: int
) -> GroupResult:
    """Measure one group, or say why it cannot be."""
    is_target = trials.is_target[chosen]
    speakers = [trials.speaker[side[chosen]] for side in (trials.enrol, trials.test)]
    num_target = int(np.count_nonzero(is_target))
    num_speakers, num_target_speakers = pd.unique(np.concatenate(speakers)).size, pd.unique(speakers[0][is_target]).size
    result = GroupResult(name, num_speakers, num_target_speakers, num_target, is_target.size - num_target)
    if isinstance(chosen, np.ndarray) and not (num_target and result.num_nontarget):
        return replace(result, remark=_why_not(result))
    measures = {"eer": Eer(), "far": far_at(threshold), "frr": frr_at(threshold)}
    found = bootstrap_intervals(
        trials.score[chosen], is_target, *speakers, measures, num_replicates=num_replicates, seed=seed
    )
    found = {name: _honest(interval) for name, interval in found.items()}
    few = num_target_speakers < FEW_SPEAKERS
    return replace(result, **found, remark="few speakers: the intervals are rough" if few else "")


def _honest(interval: Interval) -> Interval:
    """Give an interval without width that of no knowledge: every draw of speakers that could be used was the same."""
    return replace(interval, lower=0.0, upper=1.0) if interval.lower == interval.upper else interval


def _why_not(result: GroupResult) -> str:
    """Say why a group has no error rates."""
    if not (result.num_target or result.num_nontarget):
        return "no trial has both sides in it"
    missing = "non-target" if result.num_target else "target"
    return f"{'a single speaker, so ' if result.num_speakers == 1 else ''}no {missing} trials"
