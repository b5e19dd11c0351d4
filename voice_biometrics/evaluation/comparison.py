"""Two systems on the same trials: the difference of each figure, with its interval and p-value over speakers."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.bootstrap import Difference, bootstrap_differences
from voice_biometrics.metrics.error_rates import USUAL_COSTS, Cost, ErrorRates, error_rates, supported_frr_at_far
from voice_biometrics.metrics.resampling import Eer, FrrAtFar, Measure, MinDcf
from voice_biometrics.scoring.scored_trials import id_codes, trial_keys, utterance_rows, without_repeated

MAX_FAR = 0.01  # FVC's FMR100


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of systems A and B.

    unit : "%" for a rate, which is a fraction here as everywhere, and printed in per cent; else "".
    difference : A less B, with its 95 % interval and p-value. remark : what to know of it, or "".
    """

    name: str
    unit: str
    value_a: float
    value_b: float
    difference: Difference
    remark: str


@dataclass(frozen=True)
class _Figure:
    """What to compare, how to read it off a system, and its remark."""

    name: str
    unit: str
    measure: Measure
    read: Callable[[ErrorRates], float]
    remark: str = ""


def align_scores(
    scores_a: pd.DataFrame, scores_b: pd.DataFrame, names: tuple[str, str] = ("A", "B")
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the trials of both systems, each once and in the order of A.

    Arguments
    ---------
    scores_a, scores_b : tables with ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score``, in any order.
    names : what to call the systems in an error, e.g. their files.

    Raises
    ------
    InputError : a trial is in one system only (their numbers and an example are named), has another label in the
        other system, or is repeated with another score or label.
    """
    a, b = without_repeated(scores_a, names[0]), without_repeated(scores_b, names[1])
    key_a, key_b = trial_keys([a, b])
    order_a, order_b = np.argsort(key_a), np.argsort(key_b)
    if not np.array_equal(key_a[order_a], key_b[order_b]):
        only = [_only_in(a, ~np.isin(key_a, key_b), names[0]), _only_in(b, ~np.isin(key_b, key_a), names[1])]
        raise InputError(f"the systems differ in their trials: {'; '.join(only)}; score the same list with both")
    place = np.empty_like(order_b)
    place[order_a] = order_b
    b = b.iloc[place].reset_index(drop=True)
    differs = a["target"].to_numpy() != b["target"].to_numpy()
    if differs.any():
        trial = a.iloc[int(np.argmax(differs))]
        raise InputError(
            f"trial {trial['enrol_id']} {trial['test_id']} has target {trial['target']} in {names[0]}, "
            f"{1 - trial['target']} in {names[1]} ({np.count_nonzero(differs):,} such trials): correct the labels"
        )
    return a, b


def compare_systems(
    scores_a: pd.DataFrame,
    scores_b: pd.DataFrame,
    speaker_of: pd.Series,
    costs: Sequence[Cost] = USUAL_COSTS,
    *,
    names: tuple[str, str] = ("A", "B"),
    num_replicates: int = 1000,
    seed: int = 0,
) -> list[ComparedFigure]:
    """Return EER, minDCF at each prior and FRR at FAR 1 % of two systems, with their differences.

    Each system has its own thresholds; both are resampled alike. The FRR carries a remark where the trials tell it
    coarsely, and is left out where they cannot tell it (see ``voice_biometrics.metrics.error_rates``).

    Arguments
    ---------
    scores_a, scores_b, names : as ``align_scores``.
    speaker_of : speaker of each utterance, indexed by its ID; without a manifest, ``speakers_of_targets``.
    costs : for minDCF.
    num_replicates, seed : of the bootstrap, see ``intervals.bootstrap_differences``.

    Raises
    ------
    InputError : as ``align_scores`` and ``intervals.bootstrap_differences``; an utterance has no speaker.
    """
    a, b = align_scores(scores_a, scores_b, names)
    speakers = [speaker_of.to_numpy()[rows] for rows in utterance_rows(a, speaker_of.index)]
    values, is_target = [table["score"].to_numpy() for table in (a, b)], a["target"].to_numpy() == 1
    rates = [error_rates(score, is_target) for score in values]
    figures = _figures(costs, rates[0])
    measures = {figure.name: figure.measure for figure in figures}
    found = bootstrap_differences(*values, is_target, *speakers, measures, num_replicates=num_replicates, seed=seed)
    return [
        ComparedFigure(
            figure.name, figure.unit, *(figure.read(rate) for rate in rates), found[figure.name], figure.remark
        )
        for figure in figures
    ]


def comparison_frame(figures: Sequence[ComparedFigure], names: tuple[str, str] = ("A", "B")) -> pd.DataFrame:
    """Return a table to print: a line a figure, rates in per cent."""
    return pd.DataFrame([_line(figure, names) for figure in figures])


def speakers_of_targets(scores: pd.DataFrame) -> pd.Series:
    """Return a speaker for each utterance, indexed by its ID, as far as target trials tell.

    Utterances that target trials link, directly or by way of others, are of one speaker, who is called after the first
    of them. An utterance without a target trial is a speaker of its own, so that intervals come out a little narrow
    where there are many such; with a manifest, use its speakers.
    """
    codes, utt_ids = id_codes([scores])
    enrol, test = (side[scores["target"].to_numpy() == 1] for side in codes)
    links = coo_array((np.ones(enrol.size, np.int8), (enrol, test)), shape=(len(utt_ids), len(utt_ids)))
    _, speaker = connected_components(links, directed=False)
    _, first = np.unique(speaker, return_index=True)
    return pd.Series(utt_ids.to_numpy()[first[speaker]], index=utt_ids)


def _line(figure: ComparedFigure, names: tuple[str, str]) -> dict[str, str]:
    """One line of the table to print."""
    factor, digits = (100, 2) if figure.unit == "%" else (1, 4)
    found = figure.difference
    numbers = (figure.value_a, figure.value_b, found.estimate, found.lower, found.upper)
    value_a, value_b, difference, lower, upper = (f"{factor * number:.{digits}f}" for number in numbers)
    return {
        "figure": f"{figure.name} ({figure.unit})" if figure.unit else figure.name,
        names[0]: value_a,
        names[1]: value_b,
        "difference": difference,
        "95 % interval": f"{lower} to {upper}",
        "p-value": "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}",
        "remark": figure.remark,
    }


def _only_in(scores: pd.DataFrame, alone: np.ndarray, name: str) -> str:
    """Say how many trials are in one system only, and name one."""
    if not alone.any():
        return f"none is only in {name}"
    trial = scores.iloc[int(np.argmax(alone))]
    return f"{np.count_nonzero(alone):,} only in {name} (such as {trial['enrol_id']} {trial['test_id']})"


def _min_dcf(rates: ErrorRates, cost: Cost) -> float:
    return rates.min_dcf(*cost)[0]


def _figures(costs: Sequence[Cost], rates: ErrorRates) -> list[_Figure]:
    """Return what these trials allow to compare."""
    figures = [_Figure("EER", "%", Eer(), lambda rates: rates.equal_error_rate()[0])]
    for cost in costs:
        read = functools.partial(_min_dcf, cost=cost)
        figures.append(_Figure(f"minDCF, {cost.in_words()}", "", MinDcf(*cost), read))
    at_far = supported_frr_at_far(rates, [MAX_FAR])[0]
    if at_far.frr is not None:
        name, measure = f"FRR at FAR {100 * MAX_FAR:g} %", FrrAtFar(MAX_FAR)
        figures.append(_Figure(name, "%", measure, lambda rates: rates.frr_at_far(MAX_FAR)[0], at_far.remark()))
    return figures
