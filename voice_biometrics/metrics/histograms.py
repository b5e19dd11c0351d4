"""Error rates from histograms of scores, for more trials than can be stored.

The rates at the edge of a bin are exact; between edges they are not known. So the EER and the minDCF of the trials
themselves are within bounds, which ``summary`` gives, and which tighten with the number of bins.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import (
    USUAL_COSTS,
    Cost,
    ErrorRates,
    SupportedFrr,
    meeting_point,
    normalised_weights,
)

# Bins from score 0 to 1, and from -1 to 0. A power of two, so that float32 scores are scaled without rounding.
HALF_BINS = 2**15
NUM_BINS = 2 * HALF_BINS
BIN_WIDTH = 1.0 / HALF_BINS


def count_scores(scores: np.ndarray) -> np.ndarray:
    """Return the counts, int64 (NUM_BINS,), of cosine scores; rounding errors beyond -1 and 1 go to the outer bins.

    Bin k holds ``k * BIN_WIDTH - 1 <= score < (k + 1) * BIN_WIDTH - 1``. ``scores`` of any shape is overwritten.
    """
    scores *= HALF_BINS
    places = np.floor(scores, out=scores).astype(np.intp).ravel()
    places += HALF_BINS
    if places.size and (places.min() < 0 or places.max() >= NUM_BINS):
        np.clip(places, 0, NUM_BINS - 1, out=places)
    return np.bincount(places, minlength=NUM_BINS)


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """Counts of target and non-target scores per bin, int64 (NUM_BINS,) each; InputError if one kind is missing."""

    target: np.ndarray
    nontarget: np.ndarray

    def __post_init__(self) -> None:
        if not (self.target.any() and self.nontarget.any()):
            raise InputError(
                f"{self.target.sum()} target and {self.nontarget.sum()} non-target trials: error rates need both kinds"
            )

    def rates(self) -> ErrorRates:
        """Return the operating points at the lower edges of all bins that are not empty."""
        filled = np.flatnonzero(self.target + self.nontarget)
        num_target, num_nontarget = int(self.target.sum()), int(self.nontarget.sum())
        target_below = np.append(0, np.cumsum(self.target[filled]))
        nontarget_below = np.append(0, np.cumsum(self.nontarget[filled]))
        return ErrorRates(
            thresholds=np.append(filled * BIN_WIDTH - 1.0, np.inf),
            far=(num_nontarget - nontarget_below) / num_nontarget,
            frr=target_below / num_target,
            num_target=num_target,
            num_nontarget=num_nontarget,
        )

    def summary(self, costs: Sequence[Cost] = USUAL_COSTS, fars: Sequence[float] = ()) -> dict[str, object]:
        """Return the figures of ``ErrorRates.summary``, and ``frr_at_far`` at ``fars``.

        ``eer_bounds`` and ``bounds`` of each minDCF hold the figure of the scores themselves.
        """
        rates = self.rates()
        found = rates.summary(costs) | {"num_bins": NUM_BINS, "eer_bounds": eer_bounds(rates)}
        for cost, entry in zip(costs, found["min_dcf"], strict=True):
            entry["bounds"] = min_dcf_bounds(rates, cost)
        at_fars = [SupportedFrr.of(rates, far) for far in fars]
        found["frr_at_far"] = [asdict(at) | {"remark": at.remark()} for at in at_fars]
        return found


def eer_bounds(rates: ErrorRates) -> tuple[float, float]:
    """Return the lowest and highest EER that scores with these operating points, and others between them, can have."""
    _, right = meeting_point(rates.far, rates.frr)
    left = right - 1
    lowest = max(rates.frr[left], rates.far[right])
    return float(lowest), float(min(rates.frr[right], rates.far[left]))


def min_dcf_bounds(rates: ErrorRates, cost: Cost) -> tuple[float, float]:
    """Return the lowest and highest minDCF that scores with these operating points, and others between, can have."""
    miss_weight, fa_weight = normalised_weights(*cost)
    between = miss_weight * rates.frr[:-1] + fa_weight * rates.far[1:]
    highest = rates.min_dcf(*cost)[0]
    return min(float(between.min()), highest), highest
