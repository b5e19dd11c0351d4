"""Error rates by group of speakers and utterances, and the speakers and trials with the worst errors.

A group's trials are those with both sides in it. Groups come from each metadata column of the manifest and from the
duration of the shorter side. Columns of two or three groups, such as gender, also give all targets against the
non-targets within each group and across two groups: which impostors are accepted.

All groups share one threshold, as in a product: a group with a far higher FRR is rejected more often.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from voice_biometrics.common.manifest import COLUMNS as MANIFEST_COLUMNS
from voice_biometrics.metrics.bootstrap import Eer, Interval, SpeakerBootstrap, far_at, frr_at
from voice_biometrics.scoring.scored_trials import ScoredTrials

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


def measure_groups(
    trials: ScoredTrials, scores: np.ndarray, threshold: float, eer: Interval | None = None
) -> GroupReport:
    """Return EER, and FAR and FRR at ``threshold``, for every group of the manifest.

    Arguments
    ---------
    trials : with the metadata columns, and ``duration`` (seconds) if known, of their utterances.
    scores : (trials,) finite float, the scores or LLRs that the threshold applies to.
    threshold : accept from this score.
    eer : of all trials, if it was measured already: resampling them takes longest.

    Raises InputError as ``ScoredTrials.bootstrap``.
    """
    manifest, (enrol, test) = trials.utterances, trials.rows
    speaker = pd.factorize(manifest["spk_id"])[0]
    found = _Trials(scores, trials.is_target, speaker[enrol], speaker[test], threshold)
    overall = found.rates(found.count("all trials", slice(None)), slice(None), trials.bootstrap, eer)
    used = np.union1d(enrol, test)
    tables, skipped = [], {}
    with tqdm(desc="groups", unit="group", delay=2) as bar:

        def add(title: str, members: Iterable[tuple[str, np.ndarray]], remark: str = "") -> None:
            tables.append(GroupTable(title, [], remark))
            for name, chosen in members:
                tables[-1].rows.append(found.measure(name, chosen))
                bar.update()

        for column in [column for column in manifest.columns if column not in MANIFEST_COLUMNS]:
            groups, remark = group_utterances(column, manifest[column].iloc[used])
            if groups is None:
                skipped[column] = remark
                continue
            groups = _spread_out(groups, used, len(manifest))
            names, sides = groups.categories.tolist(), (groups.codes[enrol], groups.codes[test])
            add(column, ((name, (sides[0] == code) & (sides[1] == code)) for code, name in enumerate(names)), remark)
            if len(names) <= MAX_CROSSED_GROUPS:
                add(f"{column}, non-targets within and across", _crossed(names, sides, found.is_target), remark)
        if "duration" in manifest:
            duration_s = manifest["duration"].to_numpy()
            bands = _cut(np.minimum(duration_s[enrol], duration_s[test]), DURATION_EDGES, DURATION_BANDS)
            add("duration of the shorter side", ((name, bands == name) for name in bands.categories))
    return GroupReport(threshold, overall, tables, skipped)


def _crossed(
    names: list[str], sides: tuple[np.ndarray, np.ndarray], is_target: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each pair of groups, and all targets with the non-targets between the two, (trials,) bool."""
    low, high = np.sort(sides, axis=0)
    for a, b in zip(*np.triu_indices(len(names)), strict=True):
        yield f"{names[a]}–{names[b]}", is_target | ((low == a) & (high == b))


@dataclass(frozen=True, eq=False)
class _Trials:
    """Scores, labels and speakers (numbers) of the trials, (trials,) each."""

    score: np.ndarray
    is_target: np.ndarray
    enrol_speaker: np.ndarray
    test_speaker: np.ndarray
    threshold: float

    def count(self, name: str, chosen: np.ndarray | slice) -> GroupResult:
        """Count the speakers and trials of a group."""
        is_target, enrol, test = self.is_target[chosen], self.enrol_speaker[chosen], self.test_speaker[chosen]
        num_target = int(np.count_nonzero(is_target))
        num_speakers, num_target_speakers = np.union1d(enrol, test).size, np.unique(enrol[is_target]).size
        return GroupResult(name, num_speakers, num_target_speakers, num_target, is_target.size - num_target)

    def measure(self, name: str, chosen: np.ndarray) -> GroupResult:
        """Measure one group, (trials,) bool, or give the reason why it cannot be."""
        counted = self.count(name, chosen)
        if counted.num_target and counted.num_nontarget:
            speakers = self.enrol_speaker[chosen], self.test_speaker[chosen]
            return self.rates(counted, chosen, SpeakerBootstrap(self.is_target[chosen], *speakers))
        if not (counted.num_target or counted.num_nontarget):
            return replace(counted, remark="no trial has both sides in it")
        missing = "non-target" if counted.num_target else "target"
        single = "a single speaker, so " if counted.num_speakers == 1 else ""
        return replace(counted, remark=f"{single}no {missing} trials")

    def rates(
        self,
        counted: GroupResult,
        chosen: np.ndarray | slice,
        bootstrap: SpeakerBootstrap,
        eer: Interval | None = None,
    ) -> GroupResult:
        """Add the error rates to a group's counts; ``eer`` if it is known."""
        measures = {"far": far_at(self.threshold), "frr": frr_at(self.threshold)} | ({} if eer else {"eer": Eer()})
        found = bootstrap.intervals(self.score[chosen], measures) | ({"eer": eer} if eer else {})
        for name, interval in found.items():
            if interval.lower == interval.upper:  # every usable draw of speakers was the same, so nothing is known
                found[name] = replace(interval, lower=0.0, upper=1.0)
        few = counted.num_target_speakers < FEW_SPEAKERS
        return replace(counted, **found, remark="few speakers: the intervals are rough" if few else "")


def worst_speakers(trials: ScoredTrials, scores: np.ndarray, threshold: float, count: int = 10) -> pd.DataFrame:
    """Return the speakers with the highest mean of FRR and FAR, the worst first.

    A speaker's FRR is over the speaker's target trials, the FAR over the non-target trials with the speaker on either
    side. A rate without trials is left out of the mean. Of speakers with equal means the one with more errors comes
    first, then the name decides; speakers without an error are not listed.

    Arguments: as ``measure_groups``; at most ``count`` speakers.

    Returns
    -------
    A row per speaker: ``spk_id``; ``num_target``, ``num_false_rejects``, ``frr``; ``num_nontarget``,
    ``num_false_accepts``, ``far`` (fractions, NaN without trials); ``mean_error``; ``confused_with``, the speaker with
    the most of these false accepts (between equals the highest share of the two speakers' trials), and
    ``num_confused`` of ``num_met`` trials with that speaker. ``confused_with`` is None without a false accept.
    """
    codes, names = pd.factorize(trials.utterances["spk_id"], sort=True)
    enrol, test = (codes[rows] for rows in trials.rows)
    is_target, accepted = trials.is_target, scores >= threshold
    table = _rates_by_speaker(np.asarray(names), enrol, test, is_target, accepted)
    num_errors = table["num_false_rejects"] + table["num_false_accepts"]
    order = np.lexsort((table["spk_id"], -num_errors, -table["mean_error"]))
    table = table.iloc[order[num_errors.to_numpy()[order] > 0][:count]]
    first, second = np.sort([enrol, test], axis=0)[:, ~is_target]
    met = pd.DataFrame({"first": first, "second": second, "confused": accepted[~is_target]})
    pairs = met.groupby(["first", "second"])["confused"].agg(num_met="size", num_confused="sum").reset_index()
    pairs = pd.concat([pairs, pairs.rename(columns={"first": "second", "second": "first"})])  # seen from both sides
    pairs = pairs[pairs["num_confused"] > 0]
    pairs = pairs.sort_values(["num_confused", "num_met", "second"], ascending=[False, True, True])
    most = pairs.drop_duplicates("first").set_index("first").reindex(table.index)
    table["confused_with"] = [None if np.isnan(other) else names[int(other)] for other in most["second"]]
    for column in ("num_confused", "num_met"):
        table[column] = most[column].fillna(0).astype(int)
    return table.reset_index(drop=True)


def _rates_by_speaker(
    names: np.ndarray, enrol: np.ndarray, test: np.ndarray, is_target: np.ndarray, accepted: np.ndarray
) -> pd.DataFrame:
    """Count each speaker's trials and errors: a target trial has one speaker, a non-target trial two."""

    def count(chosen: np.ndarray, *sides: np.ndarray) -> np.ndarray:
        return sum(np.bincount(side[chosen], minlength=names.size) for side in sides)

    table = pd.DataFrame({"spk_id": names})
    table["num_target"] = count(is_target, enrol)
    table["num_false_rejects"] = count(is_target & ~accepted, enrol)
    table["frr"] = table["num_false_rejects"] / table["num_target"]
    table["num_nontarget"] = count(~is_target, enrol, test)
    table["num_false_accepts"] = count(~is_target & accepted, enrol, test)
    table["far"] = table["num_false_accepts"] / table["num_nontarget"]
    return table.assign(mean_error=table[["frr", "far"]].mean(axis=1))


def worst_trials(trials: ScoredTrials, scores: np.ndarray, threshold: float, count: int = 10) -> pd.DataFrame:
    """Return the most confident errors: ``count`` non-targets far above the threshold, and ``count`` targets far below.

    Arguments: as ``measure_groups``. Returns a row per trial: ``error`` ("false accept" or "false reject"), ``score``,
    and of both sides ``enrol_id, enrol_spk_id, enrol_wav, test_id, test_spk_id, test_wav`` (``wav`` if known). Of each
    kind the farthest comes first; trials at equal distance keep their order.
    """
    is_target, distance = trials.is_target, np.abs(scores - threshold)
    wrong = is_target != (scores >= threshold)
    kinds = (np.flatnonzero(wrong & (is_target == kind)) for kind in (False, True))
    worst = np.concatenate([rows[np.argsort(-distance[rows], kind="stable")[:count]] for rows in kinds])
    table = pd.DataFrame({"error": np.where(is_target[worst], "false reject", "false accept"), "score": scores[worst]})
    for side, rows in zip(("enrol", "test"), trials.rows, strict=True):
        for column, name in (("ID", "id"), ("spk_id", "spk_id"), ("wav", "wav")):
            if column in trials.utterances:
                table[f"{side}_{name}"] = trials.utterances[column].to_numpy()[rows[worst]]
    return table
