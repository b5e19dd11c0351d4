"""Comparison of two systems on the same trials: the difference of each figure, with its interval and p-value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.bootstrap import Difference, Eer, FrrAtFar, MinDcf
from voice_biometrics.metrics.error_rates import USUAL_COSTS, Cost, SupportedFrr, error_rates
from voice_biometrics.scoring.scored_trials import ScoredTrials, id_codes, trial_keys

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


def align_scores(scores: pd.DataFrame, other: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the trials of another system in the order of this one's.

    Arguments
    ---------
    scores, other : tables with ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score``, each trial once.
    name : of the other system for errors, e.g. its file.

    Raises
    ------
    InputError : a trial is in one system only (their numbers and an example are named), or has another label.
    """
    key, key_other = trial_keys([scores, other])
    order, order_other = np.argsort(key), np.argsort(key_other)
    if not np.array_equal(key[order], key_other[order_other]):
        only = [
            _only_in(scores, ~np.isin(key, key_other), "this system"), _only_in(other, ~np.isin(key_other, key), name)
        ]  # fmt: skip
        raise InputError(f"the systems differ in their trials: {'; '.join(only)}; score the same list with both")
    place = np.empty_like(order_other)
    place[order] = order_other
    other = other.iloc[place].reset_index(drop=True)
    differs = scores["target"].to_numpy() != other["target"].to_numpy()
    if differs.any():
        trial = scores.iloc[int(np.argmax(differs))]
        raise InputError(
            f"trial {trial['enrol_id']} {trial['test_id']} has target {trial['target']} in this system, "
            f"{1 - trial['target']} in {name} ({np.count_nonzero(differs):,} such trials): correct the labels"
        )
    return other


def compare_systems(
    trials: ScoredTrials, other: np.ndarray, costs: Sequence[Cost] = USUAL_COSTS
) -> list[ComparedFigure]:
    """Return EER, minDCF at each prior and FRR at FAR 1 % of two systems, with their differences.

    Each system has its own thresholds; both see the same draws of speakers. The FRR carries a remark where the trials
    support its FAR coarsely, and is left out where they do not support it.

    Arguments
    ---------
    trials : of system A. other : (trials,) float, the scores of system B. costs : for minDCF.
    """
    rates = trials.rates, error_rates(other, trials.is_target)
    support = SupportedFrr.of(rates[0], MAX_FAR)
    measures = {"EER": Eer()} | {f"minDCF, {cost.in_words()}": MinDcf(*cost) for cost in costs}
    at_far = f"FRR at FAR {100 * MAX_FAR:g} %"
    if support.frr is not None:
        measures[at_far] = FrrAtFar(MAX_FAR)
    found = trials.bootstrap.differences(trials.scores, other, measures)
    return [
        ComparedFigure(
            name,
            "" if isinstance(measure, MinDcf) else "%",
            *(measure.read(each) for each in rates),
            found[name],
            support.remark() if name == at_far else "",
        )
        for name, measure in measures.items()
    ]


def speakers_of_targets(scores: pd.DataFrame) -> pd.Series:
    """Return a speaker for each utterance, indexed by its ID, inferred from the target trials.

    Utterances that target trials link, directly or through others, have one speaker, named after the first of them. An
    utterance without a target trial counts as a separate speaker, so intervals are slightly too narrow where there are
    many such; with a manifest, use its speakers.
    """
    codes, utt_ids = id_codes([scores])
    enrol, test = (side[scores["target"].to_numpy() == 1] for side in codes)
    links = coo_array((np.ones(enrol.size), (enrol, test)), shape=(len(utt_ids), len(utt_ids)))
    _, group = connected_components(links, directed=False)
    _, first = np.unique(group, return_index=True)
    return pd.Series(utt_ids.to_numpy()[first[group]], index=utt_ids)


def _only_in(scores: pd.DataFrame, alone: np.ndarray, name: str) -> str:
    """Return the number of trials in one system only, with an example."""
    if not alone.any():
        return f"none is only in {name}"
    trial = scores.iloc[int(np.argmax(alone))]
    return f"{np.count_nonzero(alone):,} only in {name} (such as {trial['enrol_id']} {trial['test_id']})"
