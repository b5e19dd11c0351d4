"""Bootstrap replicates of a figure to a 95 % interval and p-values: BCa, with the width of a t distribution.

BCa takes the percentiles of the replicates where a bias (the replicates' median is not the estimate) and a skewness
(the spread grows with the figure, as that of a small rate does) put them. Where few units were resampled they lie a
little further out: the spread of n draws instead of n - 1, and Student's t instead of the normal distribution.

Source: Efron 1987, "Better bootstrap confidence intervals" (BCa, and the acceleration from a jackknife); Hesterberg
2015, "What teachers should know about the bootstrap" (percentiles further out for few units).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from voice_biometrics.errors import InputError


@dataclass(frozen=True, eq=False)
class Spread:
    """What bootstrap replicates say of one figure.

    estimate : the figure of all trials.
    replicates : (replicates,) float, sorted, those that had both kinds of trials.
    num_degenerate : how many had not.
    num_units : how many units (speakers) each replicate drew, 2 or more.
    bias : BCa's z0, where the estimate lies among the replicates, in standard deviations.
    acceleration : BCa's a, a sixth of the skewness of what the units contribute.
    """

    estimate: float
    replicates: np.ndarray
    num_degenerate: int
    num_units: int
    bias: float
    acceleration: float

    @classmethod
    def of(cls, estimate: float, replicates: np.ndarray, left_out: np.ndarray, num_units: int) -> "Spread":
        """Sum up the values of a figure, NaN where a kind of trial was missing.

        Arguments
        ---------
        estimate : the figure of all trials.
        replicates : (replicates,) float, the figure of each draw of units.
        left_out : (parts,) float, the figure when each part of the units in turn is left out (jackknife).
        num_units : how many units there are.

        Raises
        ------
        InputError : no replicate had both kinds of trials.
        """
        usable = np.sort(replicates[~np.isnan(replicates)])
        if not usable.size:
            raise InputError(
                f"none of {replicates.size} draws of speakers had target and non-target trials: "
                "more speakers with both kinds are needed for an interval"
            )
        left_out = left_out[~np.isnan(left_out)]
        influence = left_out.mean() - left_out if left_out.size else np.zeros(1)
        power = np.sum(influence**2) ** 1.5
        return cls(
            estimate=estimate,
            replicates=usable,
            num_degenerate=replicates.size - usable.size,
            num_units=num_units,
            bias=_normal_quantile(usable, estimate),
            acceleration=float(np.sum(influence**3) / (6.0 * power)) if power > 0.0 else 0.0,
        )

    def ends(self) -> tuple[float, float]:
        """Return the two ends of the 95 % interval."""
        far_out = self.bias + self._expansion() * t.ppf([0.025, 0.975], df=self.num_units - 1)
        tails = norm.cdf(self.bias + _bend(far_out, -self.acceleration))
        lower, upper = np.quantile(self.replicates, tails)
        return float(lower), float(upper)

    def p_value_of(self, value: float) -> float:
        """Return the two-sided p-value of ``value``: 1 less the confidence at which an interval would end there."""
        far_out = _bend(_normal_quantile(self.replicates, value) - self.bias, self.acceleration) - self.bias
        return float(2.0 * t.sf(np.abs(far_out) / self._expansion(), df=self.num_units - 1))

    def _expansion(self) -> float:
        """A bootstrap spreads as n, not n - 1, draws do: by how much that is too little."""
        return float(np.sqrt(self.num_units / (self.num_units - 1)))


def _bend(far_out: np.ndarray | float, acceleration: float) -> np.ndarray:
    """Return ``far_out / (1 + acceleration * far_out)``; infinite, of the same sign, from the pole on."""
    slope = 1.0 + acceleration * np.asarray(far_out)
    return np.where(slope > 0.0, far_out / np.where(slope > 0.0, slope, 1.0), np.copysign(np.inf, far_out))


def _normal_quantile(ordered: np.ndarray, value: float) -> float:
    """Return where ``value`` lies among sorted replicates, in standard deviations; equal ones count half."""
    below, up_to = np.searchsorted(ordered, value, "left"), np.searchsorted(ordered, value, "right")
    return float(norm.ppf((below + up_to + 1.0) / (2.0 * ordered.size + 2.0)))
