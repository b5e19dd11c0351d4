"""Who the system fails: EER, and FAR and FRR at one common threshold, for groups of speakers and utterances.

A group's trials are those with both sides in it. Groups are made of each column of metadata in the manifest and of the
duration of the shorter side. Columns of two or three groups, such as gender, are also asked which strangers are taken
for a speaker: all targets against the non-targets within a group, or across two groups.

The threshold is common, since a product has one: a group whose FRR lies far above the others' is refused more often.

Utterances to groups by one column of metadata, or by their length: values as they are, or bands of numbers.

The speakers that a system serves worst, and its most confident errors, at one threshold: what to listen to first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import COLUMNS as MANIFEST_COLUMNS
from voice_biometrics.metrics.bootstrap import Interval, bootstrap_intervals
from voice_biometrics.metrics.resampling import Eer, far_at, frr_at
from voice_biometrics.scoring.scored_trials import utterance_rows

MAX_GROUPS = 20  # a column of more words is an identifier or free text
MAX_PLAIN_NUMBERS = 8  # a column of more numbers is cut into bands
NUM_QUANTILE_BANDS = 4
AGE_EDGES = [6, 13, 18, 30, 45, 60]  # years; children by school, then adults by 12 to 15 years
AGE_BANDS = ["under 6", "6-12", "13-17", "18-29", "30-44", "45-59", "60 and over"]
DURATION_EDGES = [2.0, 4.0, 8.0, 16.0]  # seconds
DURATION_BANDS = ["under 2 s", "2-4 s", "4-8 s", "8-16 s", "16 s and over"]


def group_utterances(column: str, values: pd.Series) -> tuple[pd.Categorical | None, str]:
    """Return the group of each utterance by one column of metadata, and what there is to say about it.

    Words are groups as they are, and so are up to 8 different numbers. More numbers are cut into bands: by years where
    the column is called ``age``, else into quarters of the utterances, named by their lowest and highest value.

    Arguments
    ---------
    column : its name. values : (utterances,) text or numbers; empty text and missing values mean not known.

    Returns
    -------
    (utterances,) groups, NaN where not known, with the groups in their order as categories; and how many utterances
    are not known, in words, or "". None where the column makes no groups; then the words say why.
    """
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    known = text[text != ""]
    if known.nunique() < 2:
        return None, f"one value only ({known.iloc[0]})" if len(known) else "no values"
    numbers = pd.to_numeric(known, errors="coerce")
    if np.isfinite(numbers).all() and not known.str.fullmatch(r"0\d+").any():  # 0054 is a name
        groups = _number_groups(column.casefold(), numbers, known)
    else:
        groups = pd.Categorical(known)
    if groups is None or len(groups.categories) > MAX_GROUPS:
        return None, f"{known.nunique():,} different values, taken for an identifier or free text"
    num_unknown = len(text) - len(known)
    remark = f"{num_unknown:,} of {len(text):,} utterances without a value" if num_unknown else ""
    codes = np.full(len(text), -1)
    codes[(text != "").to_numpy()] = groups.codes
    return pd.Categorical.from_codes(codes, dtype=groups.dtype), remark


def duration_bands(durations_s: np.ndarray) -> pd.Categorical:
    """Return the band of each duration, (items,), from seconds, (items,); a band holds its lower end."""
    return _cut(durations_s, DURATION_EDGES, DURATION_BANDS)


def _number_groups(column: str, numbers: pd.Series, known: pd.Series) -> pd.Categorical | None:
    """Group numbers; None where they count the utterances."""
    if column == "age":
        return _cut(numbers.to_numpy(), AGE_EDGES, AGE_BANDS)
    distinct = numbers.drop_duplicates().sort_values()
    if len(distinct) <= MAX_PLAIN_NUMBERS:
        return pd.Categorical(numbers.map(_plain), categories=distinct.map(_plain))
    if len(distinct) == len(numbers) and (numbers % 1 == 0).all():
        return None
    quarter = pd.qcut(numbers, NUM_QUANTILE_BANDS, labels=False, duplicates="drop")
    ends = numbers.groupby(quarter).agg(["min", "max"])
    names = [f"{_plain(low)} to {_plain(high)}" for low, high in ends.to_numpy()]
    return pd.Categorical.from_codes(pd.Index(ends.index).get_indexer(quarter), categories=names)


def _cut(numbers: np.ndarray, edges: list[float], names: list[str]) -> pd.Categorical:
    """Cut numbers at ``edges``, each the lowest number of a band; bands without any are left out."""
    bands = pd.Categorical.from_codes(np.searchsorted(edges, numbers, side="right"), categories=names)
    return bands.remove_unused_categories()


def _plain(number: float) -> str:
    return f"{number:.6g}"


def worst_speakers(scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, count: int = 10) -> pd.DataFrame:
    """Return the speakers with the highest mean of FRR and FAR, the worst first.

    A speaker's FRR is over the target trials of that speaker, his or her FAR over the non-target trials with that
    speaker on either side. A rate without trials is left out of the mean. Of speakers with equal means the one with
    more errors comes first, then the name decides; speakers without an error are not listed.

    Arguments
    ---------
    scores : scored trials: ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score``.
    manifest : utterances: ``ID``, ``spk_id``.
    threshold : accept from this score on.
    count : how many to return at most.

    Returns
    -------
    A row a speaker: ``spk_id``; ``num_target``, ``num_false_rejects``, ``frr``; ``num_nontarget``,
    ``num_false_accepts``, ``far`` (fractions, NaN without trials); ``mean_error``; ``confused_with``, the speaker with
    whom most of these false accepts happened (the highest share of the two speakers' trials decides between equals),
    and ``num_confused`` of ``num_met`` trials with that speaker. ``confused_with`` is None without a false accept.

    Raises
    ------
    InputError : an utterance of a trial is not in the manifest.
    """
    names, enrol, test = _speakers(scores, manifest)
    is_target, accepted = scores["target"].to_numpy() == 1, scores["score"].to_numpy() >= threshold
    table = _rates_by_speaker(names, enrol, test, is_target, accepted)
    num_errors = table["num_false_rejects"] + table["num_false_accepts"]
    order = np.lexsort((table["spk_id"], -num_errors, -table["mean_error"]))
    table = table.iloc[order[num_errors.to_numpy()[order] > 0][:count]]
    pairs = _count_pairs(enrol, test, ~is_target, accepted)
    confused = [_most_confused(pairs, speaker) for speaker in table.index]
    table["confused_with"] = [None if other is None else names[other] for other, _, _ in confused]
    table["num_confused"], table["num_met"] = [num for _, num, _ in confused], [num for _, _, num in confused]
    return table.reset_index(drop=True)


def worst_trials(scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, count: int = 20) -> pd.DataFrame:
    """Return the most confident errors: non-targets far above the threshold and targets far below, the farthest first.

    Arguments
    ---------
    scores, threshold : as ``worst_speakers``. manifest : utterances: ``ID``, ``spk_id``, and ``wav`` if known.
    count : how many to return at most.

    Returns
    -------
    A row a trial: ``error`` ("false accept" or "false reject"), ``score``, ``distance`` from the threshold, and of
    both sides ``enrol_id, enrol_spk_id, enrol_wav, test_id, test_spk_id, test_wav``. Trials at equal distance come in
    their own order.

    Raises
    ------
    InputError : an utterance of a trial is not in the manifest.
    """
    is_target, score = scores["target"].to_numpy() == 1, scores["score"].to_numpy()
    wrong = np.flatnonzero(is_target != (score >= threshold))
    distance = np.abs(score[wrong] - threshold)
    order = np.argsort(-distance, kind="stable")[:count]
    worst = scores.iloc[wrong[order]]
    table = pd.DataFrame(
        {
            "error": np.where(worst["target"] == 1, "false reject", "false accept"),
            "score": worst["score"].to_numpy(),
            "distance": distance[order],
        }
    )
    for side, rows in zip(("enrol", "test"), utterance_rows(worst, pd.Index(manifest["ID"])), strict=True):
        for column, name in (("ID", "id"), ("spk_id", "spk_id"), ("wav", "wav")):
            if column not in manifest:
                continue
            table[f"{side}_{name}"] = manifest[column].to_numpy()[rows]
    return table


def _speakers(scores: pd.DataFrame, manifest: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the speakers' names, and each side's speaker by its place among them, (trials,) int each."""
    codes, names = pd.factorize(manifest["spk_id"], sort=True)
    enrol, test = utterance_rows(scores, pd.Index(manifest["ID"]))
    return np.asarray(names), codes[enrol], codes[test]


def _rates_by_speaker(
    names: np.ndarray, enrol: np.ndarray, test: np.ndarray, is_target: np.ndarray, accepted: np.ndarray
) -> pd.DataFrame:
    """Count each speaker's trials and errors: a target trial has one speaker, a non-target trial two."""

    def count(chosen: np.ndarray, sides: list[np.ndarray]) -> np.ndarray:
        return sum(np.bincount(side[chosen], minlength=names.size) for side in sides)

    table = pd.DataFrame({"spk_id": names})
    table["num_target"] = count(is_target, [enrol])
    table["num_false_rejects"] = count(is_target & ~accepted, [enrol])
    table["frr"] = table["num_false_rejects"] / table["num_target"]
    table["num_nontarget"] = count(~is_target, [enrol, test])
    table["num_false_accepts"] = count(~is_target & accepted, [enrol, test])
    table["far"] = table["num_false_accepts"] / table["num_nontarget"]
    return table.assign(mean_error=table[["frr", "far"]].mean(axis=1))


def _count_pairs(enrol: np.ndarray, test: np.ndarray, nontarget: np.ndarray, accepted: np.ndarray) -> pd.DataFrame:
    """Count trials and false accepts of each pair of speakers that met: ``first, second, num_met, num_confused``."""
    num_speakers = np.int64(1 + max(enrol.max(initial=0), test.max(initial=0)))
    key = (np.minimum(enrol, test) * num_speakers + np.maximum(enrol, test))[nontarget]
    pairs, place = np.unique(key, return_inverse=True)
    return pd.DataFrame(
        {
            "first": pairs // num_speakers,
            "second": pairs % num_speakers,
            "num_met": np.bincount(place, minlength=pairs.size),
            "num_confused": np.bincount(place, weights=accepted[nontarget], minlength=pairs.size).astype(np.int64),
        }
    )


def _most_confused(pairs: pd.DataFrame, speaker: int) -> tuple[int | None, int, int]:
    """Return the other speaker most often taken for this one, or the reverse, with the false accepts and the trials."""
    own = pairs[((pairs["first"] == speaker) | (pairs["second"] == speaker)) & (pairs["num_confused"] > 0)]
    if own.empty:
        return None, 0, 0
    first, second, num_met, num_confused = own.sort_values(["num_confused", "num_met"], ascending=[False, True]).iloc[0]
    return int(second if first == speaker else first), int(num_confused), int(num_met)


MAX_CROSSED_GROUPS = 3
FEW_SPEAKERS = (
    10  # with fewer, intervals hold the truth in less than 0.9 of lists (see voice_biometrics.metrics.bootstrap)
)


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
