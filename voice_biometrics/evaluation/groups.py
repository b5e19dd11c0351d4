"""Error rates by group of speakers and utterances, and the speakers and trials with the worst errors.

A group's trials are those with both sides in it. Groups come from each metadata column of the manifest and from the
duration of the shorter side. Columns of two or three groups, such as gender, also give all targets against the
non-targets within each group and across two groups: which impostors are accepted.

All groups share one threshold, as in a product: a group with a far higher FRR is rejected more often.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import COLUMNS as MANIFEST_COLUMNS
from voice_biometrics.metrics.bootstrap import NUM_REPLICATES, Eer, Interval, SpeakerBootstrap, far_at, frr_at
from voice_biometrics.scoring.scored_trials import utterance_rows

MAX_GROUPS = 20  # a column of more words is an identifier or free text
MAX_PLAIN_NUMBERS = 8  # a column of more numbers is cut into bands
NUM_QUANTILE_BANDS = 4
MAX_CROSSED_GROUPS = 3
FEW_SPEAKERS = 10  # with fewer, intervals cover the true value in less than 0.9 of lists (see metrics.bootstrap)
AGE_EDGES = [6, 13, 18, 30, 45, 60]  # years; children by school, then adults by 12 to 15 years
AGE_BANDS = ["under 6", "6-12", "13-17", "18-29", "30-44", "45-59", "60 and over"]
DURATION_EDGES = [2.0, 4.0, 8.0, 16.0]  # seconds
DURATION_BANDS = ["under 2 s", "2-4 s", "4-8 s", "8-16 s", "16 s and over"]


def group_utterances(column: str, values: pd.Series) -> tuple[pd.Categorical | None, str]:
    """Return the group of each utterance by one metadata column, and a remark.

    Words are groups as they are, and so are up to 8 different numbers. More numbers are cut into bands: by years where
    the column is called ``age``, else into quarters of the utterances, named by their lowest and highest value.

    Arguments
    ---------
    column : its name. values : (utterances,) text or numbers; empty text and missing values mean unknown.

    Returns
    -------
    (utterances,) groups, NaN where unknown, with the groups in their order as categories; and the number of unknown
    utterances in words, or "". None where the column makes no groups; then the remark is the reason.
    """
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    known = text[text != ""]
    if known.nunique() < 2:
        return None, f"one value only ({known.iloc[0]})" if len(known) else "no values"
    numbers = pd.to_numeric(known, errors="coerce")
    if np.isfinite(numbers).all() and not known.str.fullmatch(r"0\d+").any():  # 0054 is a name
        groups = _number_groups(column.casefold(), numbers)
    else:
        groups = pd.Categorical(known)
    if groups is None or len(groups.categories) > MAX_GROUPS:
        return None, f"{known.nunique():,} different values, taken for an identifier or free text"
    num_unknown = len(text) - len(known)
    remark = f"{num_unknown:,} of {len(text):,} utterances without a value" if num_unknown else ""
    return _spread_out(groups, np.flatnonzero(text != ""), len(text)), remark


def _spread_out(groups: pd.Categorical, rows: np.ndarray, num_rows: int) -> pd.Categorical:
    """Return ``groups`` at ``rows`` of ``num_rows``, NaN elsewhere."""
    codes = np.full(num_rows, -1)
    codes[rows] = groups.codes
    return pd.Categorical.from_codes(codes, dtype=groups.dtype)


def _number_groups(column: str, numbers: pd.Series) -> pd.Categorical | None:
    """Group numbers; None where they count the utterances."""
    if column == "age":
        return _cut(numbers.to_numpy(), AGE_EDGES, AGE_BANDS)
    distinct = numbers.drop_duplicates().sort_values()
    if len(distinct) <= MAX_PLAIN_NUMBERS:
        return pd.Categorical(numbers.map("{:.6g}".format), categories=distinct.map("{:.6g}".format))
    if len(distinct) == len(numbers) and (numbers % 1 == 0).all():
        return None
    quarter = pd.qcut(numbers, NUM_QUANTILE_BANDS, labels=False, duplicates="drop")
    ends = numbers.groupby(quarter).agg(["min", "max"])
    names = [f"{low:.6g} to {high:.6g}" for low, high in ends.to_numpy()]
    return pd.Categorical.from_codes(pd.Index(ends.index).get_indexer(quarter), categories=names)


def _cut(numbers: np.ndarray, edges: list[float], names: list[str]) -> pd.Categorical:
    """Cut numbers at ``edges``, each the lowest number of a band; empty bands are left out."""
    bands = pd.Categorical.from_codes(np.searchsorted(edges, numbers, side="right"), categories=names)
    return bands.remove_unused_categories()


@dataclass(frozen=True)
class GroupResult:
    """Error rates of one group, fractions with their 95 % intervals; None where ``remark`` is the reason.

    An interval is 0 to 1 where too few speakers contribute for any statement.

    num_speakers, num_target, num_nontarget : in the group's trials. num_target_speakers : speakers with target trials.
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
    """The groups of one column, with a remark on the column or ""."""

    title: str
    rows: list[GroupResult]
    remark: str = ""


@dataclass(frozen=True)
class GroupReport:
    """All tables. overall : all trials. skipped : metadata column -> why it makes no groups."""

    threshold: float
    overall: GroupResult
    tables: list[GroupTable]
    skipped: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Trials:
    """Trials, (trials,) each; ``enrol`` and ``test`` are rows of the manifest, ``speakers`` numbers of both sides."""

    score: np.ndarray
    is_target: np.ndarray
    enrol: np.ndarray
    test: np.ndarray
    speakers: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, scores: pd.DataFrame, manifest: pd.DataFrame) -> "_Trials":
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
        return cls(scores["score"].to_numpy(), is_target, enrol, test, (speaker[enrol], speaker[test]))


def measure_groups(
    scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, *, num_replicates: int = NUM_REPLICATES
) -> GroupReport:
    """Return EER, and FAR and FRR at ``threshold``, for every group of the manifest.

    Arguments
    ---------
    scores : scored trials: ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score`` (finite).
    manifest : utterances: ``ID``, ``spk_id``, metadata columns, and ``duration`` (seconds) if known.
    threshold : accept from this score.
    num_replicates : of the bootstrap over speakers.

    Raises
    ------
    InputError : an utterance of a trial is not in the manifest, a label is contradicted by its speakers, or, for all
        trials together, as ``SpeakerBootstrap``.
    """
    trials = _Trials.of(scores, manifest)

    bar = tqdm(desc="groups", unit="group", delay=2)

    def measured(name: str, chosen: np.ndarray) -> GroupResult:
        bar.update()
        return _measure(name, trials, chosen, threshold, num_replicates)

    overall = _rates(_counted("all trials", trials, slice(None)), trials, slice(None), threshold, num_replicates)
    used = np.union1d(trials.enrol, trials.test)
    tables, skipped = [], {}
    for column in [column for column in manifest.columns if column not in MANIFEST_COLUMNS]:
        groups, remark = group_utterances(column, manifest[column].iloc[used])
        if groups is None:
            skipped[column] = remark
            continue
        groups = _spread_out(groups, used, len(manifest))
        for title, members in _tables(column, groups, trials):
            tables.append(GroupTable(title, [measured(name, chosen) for name, chosen in members], remark))
    if "duration" in manifest:
        duration_s = manifest["duration"].to_numpy()
        bands = _cut(np.minimum(duration_s[trials.enrol], duration_s[trials.test]), DURATION_EDGES, DURATION_BANDS)
        rows = [measured(name, bands.codes == band) for band, name in enumerate(bands.categories)]
        tables.append(GroupTable("duration of the shorter side", rows))
    bar.close()
    return GroupReport(threshold, overall, tables, skipped)


def _tables(
    column: str, groups: pd.Categorical, trials: _Trials
) -> Iterator[tuple[str, Iterator[tuple[str, np.ndarray]]]]:
    """Yield the title of each table of a column, with the name and the trials, (trials,) bool, of each row."""
    enrol, test = groups.codes[trials.enrol], groups.codes[trials.test]
    names = groups.categories.tolist()
    yield column, ((name, (enrol == group) & (test == group)) for group, name in enumerate(names))
    if len(names) <= MAX_CROSSED_GROUPS:
        low, high = np.minimum(enrol, test), np.maximum(enrol, test)
        pairs = zip(*np.triu_indices(len(names)), strict=True)
        yield (
            f"{column}, non-targets within and across",
            ((f"{names[a]}–{names[b]}", trials.is_target | ((low == a) & (high == b))) for a, b in pairs),
        )


def _counted(name: str, trials: _Trials, chosen: np.ndarray | slice) -> GroupResult:
    """Count the speakers and trials of a group."""
    is_target, speakers = trials.is_target[chosen], [side[chosen] for side in trials.speakers]
    num_target = int(np.count_nonzero(is_target))
    return GroupResult(
        name,
        num_speakers=pd.unique(np.concatenate(speakers)).size,
        num_target_speakers=pd.unique(speakers[0][is_target]).size,
        num_target=num_target,
        num_nontarget=is_target.size - num_target,
    )


def _measure(name: str, trials: _Trials, chosen: np.ndarray, threshold: float, num_replicates: int) -> GroupResult:
    """Measure one group, or give the reason why it cannot be."""
    counted = _counted(name, trials, chosen)
    if counted.num_target and counted.num_nontarget:
        return _rates(counted, trials, chosen, threshold, num_replicates)
    if not (counted.num_target or counted.num_nontarget):
        return replace(counted, remark="no trial has both sides in it")
    missing = "non-target" if counted.num_target else "target"
    single = "a single speaker, so " if counted.num_speakers == 1 else ""
    return replace(counted, remark=f"{single}no {missing} trials")


def _rates(
    counted: GroupResult, trials: _Trials, chosen: np.ndarray | slice, threshold: float, num_replicates: int
) -> GroupResult:
    """Add the error rates to a group's counts."""
    speakers = [side[chosen] for side in trials.speakers]
    bootstrap = SpeakerBootstrap(trials.is_target[chosen], *speakers, num_replicates=num_replicates)
    measures = {"eer": Eer(), "far": far_at(threshold), "frr": frr_at(threshold)}
    found = bootstrap.intervals(trials.score[chosen], measures)
    for name, interval in found.items():
        if interval.lower == interval.upper:  # every usable draw of speakers was the same, so nothing is known
            found[name] = replace(interval, lower=0.0, upper=1.0)
    few = counted.num_target_speakers < FEW_SPEAKERS
    return replace(counted, **found, remark="few speakers: the intervals are rough" if few else "")


def worst_speakers(scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, count: int = 10) -> pd.DataFrame:
    """Return the speakers with the highest mean of FRR and FAR, the worst first.

    A speaker's FRR is over the speaker's target trials, the FAR over the non-target trials with the speaker on either
    side. A rate without trials is left out of the mean. Of speakers with equal means the one with more errors comes
    first, then the name decides; speakers without an error are not listed.

    Arguments
    ---------
    scores : scored trials: ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score``.
    manifest : utterances: ``ID``, ``spk_id``.
    threshold : accept from this score.
    count : rows to return at most.

    Returns
    -------
    A row per speaker: ``spk_id``; ``num_target``, ``num_false_rejects``, ``frr``; ``num_nontarget``,
    ``num_false_accepts``, ``far`` (fractions, NaN without trials); ``mean_error``; ``confused_with``, the speaker with
    the most of these false accepts (between equals the highest share of the two speakers' trials), and
    ``num_confused`` of ``num_met`` trials with that speaker. ``confused_with`` is None without a false accept.

    Raises
    ------
    InputError : an utterance of a trial is not in the manifest.
    """
    codes, names = pd.factorize(manifest["spk_id"], sort=True)
    enrol, test = (codes[rows] for rows in utterance_rows(scores, pd.Index(manifest["ID"])))
    is_target, accepted = scores["target"].to_numpy() == 1, scores["score"].to_numpy() >= threshold
    table = _rates_by_speaker(np.asarray(names), enrol, test, is_target, accepted)
    num_errors = table["num_false_rejects"] + table["num_false_accepts"]
    order = np.lexsort((table["spk_id"], -num_errors, -table["mean_error"]))
    table = table.iloc[order[num_errors.to_numpy()[order] > 0][:count]]
    sides = np.sort([enrol, test], axis=0)[:, ~is_target]
    met = pd.DataFrame({"first": sides[0], "second": sides[1], "confused": accepted[~is_target]})
    pairs = met.groupby(["first", "second"])["confused"].agg(num_met="size", num_confused="sum").reset_index()
    confused = [_most_confused(pairs, speaker) for speaker in table.index]
    table["confused_with"] = [None if other is None else names[other] for other, _, _ in confused]
    table["num_confused"], table["num_met"] = [num for _, num, _ in confused], [num for _, _, num in confused]
    return table.reset_index(drop=True)


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


def _most_confused(pairs: pd.DataFrame, speaker: int) -> tuple[int | None, int, int]:
    """Return the other speaker with the most false accepts, their number and the trials of the two."""
    own = pairs[((pairs["first"] == speaker) | (pairs["second"] == speaker)) & (pairs["num_confused"] > 0)]
    if own.empty:
        return None, 0, 0
    first, second, num_met, num_confused = own.sort_values(["num_confused", "num_met"], ascending=[False, True]).iloc[0]
    return int(second if first == speaker else first), int(num_confused), int(num_met)


def worst_trials(scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, count: int = 20) -> pd.DataFrame:
    """Return the most confident errors: non-targets far above the threshold and targets far below, the farthest first.

    Arguments
    ---------
    scores, threshold, count : as ``worst_speakers``. manifest : utterances: ``ID``, ``spk_id``, and ``wav`` if known.

    Returns
    -------
    A row per trial: ``error`` ("false accept" or "false reject"), ``score``, ``distance`` from the threshold, and of
    both sides ``enrol_id, enrol_spk_id, enrol_wav, test_id, test_spk_id, test_wav``. Trials at equal distance keep
    their order.

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
            if column in manifest:
                table[f"{side}_{name}"] = manifest[column].to_numpy()[rows]
    return table
