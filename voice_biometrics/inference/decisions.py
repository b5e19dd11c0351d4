"""From a log-likelihood ratio (LLR) to a decision, and what is known of its errors."""

import math
from dataclasses import dataclass

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.model_folder import EmbedderEntry
from voice_biometrics.metrics.error_rates import ERRORS_FOR_30_PER_CENT, UNSUPPORTED, far_support


@dataclass(frozen=True)
class OperatingPoint:
    """Where a comparison is accepted, and the error rates (fractions) that were measured there.

    use : "smart_speaker", "door" or such, or "far 0.01". threshold : accept from this LLR on.
    max_far : the limit on the false-accept rate of one comparison that the threshold was chosen for.
    far, frr : measured. far_interval, frr_interval : 95 %, over speakers; None for a FAR of the user's own.
    num_nontarget : comparisons of two people that the FAR was measured on.
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
class GalleryPoint:
    """The operating point of one recording against ``num_voices`` voices: a stranger has that many chances.

    threshold : LLR; raised so that a stranger is taken for anybody with at most ``max_far``.
    max_far : of a stranger against all voices together, a fraction; the limit of ``use`` for one comparison.
    frr : measured at this threshold, of one comparison.
    is_extrapolated : the FAR that this takes of one comparison is too low to have been measured, and rests on the LLRs
        holding beyond it.
    """

    use: str
    num_voices: int
    threshold: float
    max_far: float
    frr: float
    is_extrapolated: bool


def choose_point(entry: EmbedderEntry, use: str | None = None, max_far: float | None = None) -> OperatingPoint:
    """Return the operating point of a use, or the lowest threshold that keeps to ``max_far``.

    Arguments
    ---------
    entry : the embedder, with what was measured of it.
    use : a name among its operating points. max_far : a fraction; one of the two.

    Raises
    ------
    InputError : an unknown use; or the held-out trials cannot tell so low a FAR.
    """
    if (use is None) == (max_far is None):
        raise InputError("give a use or a FAR, one of the two")
    num_nontarget = entry.calibration.num_nontarget
    if use is not None:
        if use not in entry.operating_points:
            known = ", ".join(entry.operating_points) or "none"
            raise InputError(f"{use} is no use that this model has a threshold for; it has {known}; or give --far")
        point = entry.operating_points[use]
        return OperatingPoint(
            use=use,
            threshold=point.threshold,
            max_far=point.max_far,
            far=point.far.estimate,
            frr=point.frr.estimate,
            num_nontarget=point.num_nontarget,
            far_interval=(point.far.lower, point.far.upper),
            frr_interval=(point.frr.lower, point.frr.upper),
        )
    if not 0.0 < max_far < 1.0:
        raise InputError(f"a FAR of {max_far:g} is out of range: give a fraction above 0 and below 1 (1 % is 0.01)")
    found = entry.error_rates.at_far(max_far)
    if found is None or far_support(max_far, num_nontarget) == UNSUPPORTED:
        raise InputError(
            f"a FAR of {max_far:g} cannot be promised: this model was measured on {num_nontarget:,} comparisons of two "
            f"people; {ERRORS_FOR_30_PER_CENT / num_nontarget:.2g} is the lowest that they tell well"
        )
    threshold, far, frr = found
    return OperatingPoint(f"far {max_far:g}", threshold, max_far, far, frr, num_nontarget)


def gallery_point(entry: EmbedderEntry, point: OperatingPoint, num_voices: int) -> GalleryPoint:
    """Return the point at which a stranger who is compared with all voices is accepted with at most ``point.max_far``.

    The chances of a stranger add up (at most), so each comparison may use a share. The threshold for that share is read
    from the measured curve as far as the trials support it (30 errors); beyond, the LLR must be higher by the
    logarithm of what is missing, as if strangers grew e times rarer with each unit of LLR.
    """
    share = point.max_far / num_voices
    lowest = max(ERRORS_FOR_30_PER_CENT / point.num_nontarget, float(entry.error_rates.far[-1]))
    measured = max(share, min(point.max_far, lowest))
    found = entry.error_rates.at_far(measured)
    threshold = point.threshold if found is None or num_voices == 1 else max(point.threshold, found[0])
    threshold += math.log(measured / share)
    return GalleryPoint(
        use=point.use,
        num_voices=num_voices,
        threshold=threshold,
        max_far=point.max_far,
        frr=entry.error_rates.at_llr(threshold)[1] if num_voices > 1 else point.frr,
        is_extrapolated=measured > share,
    )
