"""Comparison of two systems on the same trials: the difference of each figure, with its interval and p-value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.bootstrap import NUM_REPLICATES, Difference, Eer, FrrAtFar, MinDcf, SpeakerBootstrap
from voice_biometrics.metrics.error_rates import USUAL_COSTS, Cost, SupportedFrr, error_rates
from voice_biometrics.scoring.scored_trials import id_codes, trial_keys, utterance_rows, without_repeated

MAX_FAR = 0.01  # FVC's FMR100


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of systems A and B.

    unit : "%" for a rate (a fraction here, printed in per cent); "" for a cost.
    difference : A minus B, with its 95 % interval and p-value. remark : on the support of the figure, or "".
    """

    name: str
    unit: str
    value_a: float
    value_b: float
    difference: Difference
    remark: str


def align_scores(
    scores_a: pd.DataFrame, scores_b: pd.DataFrame, names: tuple[str, str] = ("A", "B")
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the trials of both systems, each once, in the order of A.

    Arguments
    ---------
    scores_a, scores_b : tables with ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score``, in any order.
    names : names of the systems for errors, e.g. their files.

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
    num_replicates: int = NUM_REPLICATES,
) -> list[ComparedFigure]:
    """Return EER, minDCF at each prior and FRR at FAR 1 % of two systems, with their differences.

    Each system has its own thresholds; both see the same draws of speakers. The FRR carries a remark where the trials
    support its FAR coarsely, and is left out where they do not support it.

    Arguments
    ---------
    scores_a, scores_b, names : as ``align_scores``.
    speaker_of : speaker of each utterance, indexed by its ID; without a manifest, ``speakers_of_targets``.
    costs : for minDCF.
    num_replicates : of the bootstrap over speakers.

    Raises
    ------
    InputError : as ``align_scores`` and ``SpeakerBootstrap``; an utterance has no speaker.
    """
    a, b = align_scores(scores_a, scores_b, names)
    speakers = [speaker_of.to_numpy()[rows] for rows in utterance_rows(a, speaker_of.index)]
    bootstrap = SpeakerBootstrap(a["target"].to_numpy() == 1, *speakers, num_replicates=num_replicates)
    values = [table["score"].to_numpy() for table in (a, b)]
    rates = [error_rates(scores, bootstrap.is_target) for scores in values]
    at_fars = [SupportedFrr.of(each, MAX_FAR) for each in rates]
    measures = {"EER": Eer()} | {f"minDCF, {cost.in_words()}": MinDcf(*cost) for cost in costs}
    figures = {"EER": [each.equal_error_rate()[0] for each in rates]}
    figures |= {f"minDCF, {cost.in_words()}": [each.min_dcf(*cost)[0] for each in rates] for cost in costs}
    at_far = f"FRR at FAR {100 * MAX_FAR:g} %"
    if at_fars[0].frr is not None:
        measures[at_far], figures[at_far] = FrrAtFar(MAX_FAR), [each.frr for each in at_fars]
    found = bootstrap.differences(*values, measures)
    return [
        ComparedFigure(
            name,
            unit="" if name.startswith("minDCF") else "%",
            value_a=figures[name][0],
            value_b=figures[name][1],
            difference=found[name],
            remark=at_fars[0].remark() if name == at_far else "",
        )
        for name in measures
    ]


def comparison_frame(figures: Sequence[ComparedFigure], names: tuple[str, str] = ("A", "B")) -> pd.DataFrame:
    """Return a table to print: a row per figure, rates in per cent."""
    rows = []
    for figure in figures:
        factor, digits = (100, 2) if figure.unit == "%" else (1, 4)
        found = figure.difference
        numbers = (figure.value_a, figure.value_b, found.estimate, found.lower, found.upper)
        value_a, value_b, difference, lower, upper = (f"{factor * number:.{digits}f}" for number in numbers)
        rows.append(
            {
                "figure": f"{figure.name} ({figure.unit})" if figure.unit else figure.name,
                names[0]: value_a,
                names[1]: value_b,
                "difference": difference,
                "95 % interval": f"{lower} to {upper}",
                "p-value": "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}",
                "remark": figure.remark,
            }
        )
    return pd.DataFrame(rows)


def speakers_of_targets(scores: pd.DataFrame) -> pd.Series:
    """Return a speaker for each utterance, indexed by its ID, inferred from the target trials.

    Utterances that target trials link, directly or through others, have one speaker, named after the first of them. An
    utterance without a target trial counts as a separate speaker, so intervals are slightly too narrow where there are
    many such; with a manifest, use its speakers.
    """
    codes, utt_ids = id_codes([scores])
    enrol, test = (side[scores["target"].to_numpy() == 1] for side in codes)
    links = coo_array((np.ones(enrol.size, np.int8), (enrol, test)), shape=(len(utt_ids), len(utt_ids)))
    _, speaker = connected_components(links, directed=False)
    _, first = np.unique(speaker, return_index=True)
    return pd.Series(utt_ids.to_numpy()[first[speaker]], index=utt_ids)


def _only_in(scores: pd.DataFrame, alone: np.ndarray, name: str) -> str:
    """Return the number of trials in one system only, with an example."""
    if not alone.any():
        return f"none is only in {name}"
    trial = scores.iloc[int(np.argmax(alone))]
    return f"{np.count_nonzero(alone):,} only in {name} (such as {trial['enrol_id']} {trial['test_id']})"
