"""How low a false-accept rate a list of trials can speak of, and the FRR at stated FARs with that mark.

Two rules for N non-target trials, both for independent trials (trials that share speakers support less):

- rule of 3: no error in N trials shows, at 95 %, a rate of at most 3 / N; a FAR under that is out of reach;
- rule of 30: 30 errors give the rate to within 30 %, at 90 %; with fewer it is known coarsely.

Source: Doddington et al. 2000, "The NIST speaker recognition evaluation - overview, methodology, systems, results,
perspective" (rule of 30); ISO/IEC 19795-1 (both rules).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voice_biometrics.errors import InputError
from voice_biometrics.metrics import ErrorRates, check_far

SUPPORTED, COARSE, UNSUPPORTED = "supported", "coarse", "unsupported"
ERRORS_FOR_ANY_CLAIM = 3
ERRORS_FOR_30_PER_CENT = 30
USUAL_FARS = (0.01, 0.001, 0.0001)  # FVC's FMR100, FMR1000 and one decade further


def far_support(max_far: float, num_nontarget: int) -> str:
    """Say whether ``num_nontarget`` trials can speak of a FAR of ``max_far`` (a fraction).

    Returns ``"supported"`` where the FAR is at least 30 errors in these trials, ``"coarse"`` where it is fewer, and
    ``"unsupported"`` where it is fewer than 3. Raises InputError when ``max_far`` lies outside 0 to 1.
    """
    check_far(max_far)
    num_errors = round(max_far * num_nontarget, 6)  # 0.07 * 100 is 7.000000000000001
    if num_errors >= ERRORS_FOR_30_PER_CENT:
        return SUPPORTED
    return COARSE if num_errors >= ERRORS_FOR_ANY_CLAIM else UNSUPPORTED


@dataclass(frozen=True)
class SupportedFrr:
    """The FRR where the FAR is at most ``max_far``, withheld (None) where the trials cannot support such a FAR.

    max_far : the limit, a fraction.
    support : "supported", "coarse" (fewer than 30 errors at this FAR) or "unsupported" (fewer than 3).
    frr : fraction, or None.
    threshold : the lowest score that keeps to the limit, or None ("reject all", or unsupported).
    num_nontarget : non-target trials of the list.
    needed_nontarget : how many a "supported" result takes.
    """

    max_far: float
    support: str
    frr: float | None
    threshold: float | None
    num_nontarget: int
    needed_nontarget: int

    def remark(self) -> str:
        """Say in one sentence what the mark means; nothing where the FAR is supported."""
        if self.support == SUPPORTED:
            return ""
        errors = self.max_far * self.num_nontarget
        verdict = "known coarsely" if self.support == COARSE else "not supported, so no FRR is given"
        return (
            f"FAR {100 * self.max_far:g} % is {verdict}: it is {errors:.1f} false accepts in {self.num_nontarget:,} "
            f"non-target trials; have {self.needed_nontarget:,} (30 false accepts)"
        )


def supported_frr_at_far(rates: ErrorRates, max_fars: Sequence[float] = USUAL_FARS) -> list[SupportedFrr]:
    """Return the FRR at each FAR limit, marked by what the number of non-target trials supports.

    Arguments
    ---------
    rates : every operating point of the trials, from ``metrics.error_rates``.
    max_fars : the limits, fractions above 0.

    Raises
    ------
    InputError : a limit is 0, negative or above 1.
    """
    return [_supported_frr(rates, max_far) for max_far in max_fars]


def _supported_frr(rates: ErrorRates, max_far: float) -> SupportedFrr:
    """One entry of ``supported_frr_at_far``."""
    if not max_far > 0.0:
        raise InputError(f"max_far is {max_far}: no number of trials shows a FAR of 0; give a fraction above 0")
    support = far_support(max_far, rates.num_nontarget)
    frr, threshold = (None, None) if support == UNSUPPORTED else rates.frr_at_far(max_far)
    return SupportedFrr(
        max_far=max_far,
        support=support,
        frr=frr,
        threshold=threshold if threshold is not None and np.isfinite(threshold) else None,
        num_nontarget=rates.num_nontarget,
        needed_nontarget=int(np.ceil(round(ERRORS_FOR_30_PER_CENT / max_far, 6))),
    )
