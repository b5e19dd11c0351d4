"""Decision thresholds: from a use, or a limit on the false-accept rate (FAR), to a log-likelihood ratio (LLR)."""

import math
from dataclasses import dataclass

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.model_folder import EmbedderEntry
from voice_biometrics.metrics.error_rates import ERRORS_FOR_30_PER_CENT, UNSUPPORTED, far_support


@dataclass(frozen=True)
class VerificationPoint:
    """The threshold of one comparison, and the error rates (fractions) measured at it on held-out speakers.

    use : "smart_speaker", "door" or such, or "far 0.01". threshold : LLR, accepted at or above it.
    max_far : the limit on the FAR that the threshold was chosen for.
    far, frr : measured. far_interval, frr_interval : 95 %, over speakers; None for a FAR of the user's choice.
    num_nontarget : trials of two different speakers that the FAR was measured on.
    """

    use: str
    threshold: float
    max_far: float
    far: float
    frr: float
    num_nontarget: int
    far_interval: tuple[float, float] | None = None
    frr_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class IdentificationPoint:
    """The threshold of one recording against ``num_voices`` enrolled voices.

    threshold : LLR. max_far : limit on the rate at which a stranger is identified as any of the voices.
    frr : measured at this threshold, of one comparison.
    is_extrapolated : the FAR that this requires of one comparison is lower than the held-out trials can measure.
    """

    use: str
    num_voices: int
    threshold: float
    max_far: float
    frr: float
    is_extrapolated: bool


def choose_point(entry: EmbedderEntry, use: str | None = None, max_far: float | None = None) -> VerificationPoint:
    """Return the operating point of a use, or the lowest threshold with a FAR of at most ``max_far``, a fraction.

    Raises InputError for a use that the model does not have, and a FAR that the held-out trials cannot support;
    ValueError unless one of the two is given.
    """
    if (use is None) == (max_far is None):
        raise ValueError("expected a use or a FAR, one of the two")
    num_nontarget = entry.calibration.num_nontarget
    if use is not None:
        if use not in entry.operating_points:
            known = ", ".join(entry.operating_points) or "none"
            raise InputError(f"unknown use {use}: this model has thresholds for {known}; choose one, or give --far")
        at = entry.operating_points[use]
        rates = (at.far.estimate, at.frr.estimate, at.num_nontarget)
        intervals = ((rate.lower, rate.upper) for rate in (at.far, at.frr))
        return VerificationPoint(use, at.threshold, at.max_far, *rates, *intervals)
    if not 0.0 < max_far < 1.0:
        raise InputError(f"a FAR of {max_far:g} is out of range: give a fraction above 0 and below 1 (1 % is 0.01)")
    found = entry.error_rates.at_far(max_far)
    if found is None or far_support(max_far, num_nontarget) == UNSUPPORTED:
        raise InputError(
            f"a FAR of {max_far:g} cannot be guaranteed: this model was measured on {num_nontarget:,} trials of two "
            f"different speakers, which support {ERRORS_FOR_30_PER_CENT / num_nontarget:.2g} or more"
        )
    threshold, far, frr = found
    return VerificationPoint(f"far {max_far:g}", threshold, max_far, far, frr, num_nontarget)


def identification_point(entry: EmbedderEntry, point: VerificationPoint, num_voices: int) -> IdentificationPoint:
    """Return the threshold at which a stranger is identified as any of ``num_voices`` with at most ``point.max_far``.

    By the union bound each comparison may use an equal share of the FAR. The threshold for that share is read from the
    measured curve as far as the trials support it (30 errors). Beyond, the LLR must be higher by the logarithm of the
    missing factor: calibrated LLRs of strangers are e times rarer with each unit.
    """
    share = point.max_far / num_voices
    lowest = max(ERRORS_FOR_30_PER_CENT / point.num_nontarget, entry.error_rates.far[-1])
    measured = max(share, min(point.max_far, lowest))
    found = entry.error_rates.at_far(measured)
    threshold = point.threshold if found is None or num_voices == 1 else max(point.threshold, found[0])
    threshold += math.log(measured / share)
    frr = entry.error_rates.at_llr(threshold)[1] if num_voices > 1 else point.frr
    return IdentificationPoint(point.use, num_voices, threshold, point.max_far, frr, is_extrapolated=measured > share)
