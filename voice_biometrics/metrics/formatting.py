"""Rates in per cent, detection costs and their 95 % intervals as text, for reports, tables and the screen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # this module loads nothing, so that verify.py can use it
    from voice_biometrics.metrics.bootstrap import Interval

NONE = "–"


def per_cent(
    rate: "float | Interval | None",
    interval: Sequence[float] | None = None,
    *,
    digits: int | None = None,
    unit: str = " %",
) -> str:
    """Return a rate and its interval in per cent: ``5.94 % (4.18 to 8.36)``; a dash for None.

    Arguments
    ---------
    rate : a fraction, or an ``Interval``, which has its ends with it.
    interval : lower and upper end, fractions; None for none.
    digits : significant digits; by default two decimals, below 0.1 % two significant digits.
    unit : text after the rate; "" in a column whose head says per cent.
    """
    if rate is None:
        return NONE
    rate, interval = _parts(rate, interval)
    ends = f" ({_short(interval[0], digits)} to {_short(interval[1], digits)})" if interval is not None else ""
    return f"{_short(rate, digits)}{unit}{ends}"


def in_per_cent(rate: "Interval | None") -> str:
    """Return a rate and its interval for a column in per cent: ``5.94 (4.18 to 8.36)``; a dash for None."""
    return per_cent(rate, unit="")


def number(value: "float | Interval | None", interval: Sequence[float] | None = None) -> str:
    """Return a cost and its interval: ``0.569 (0.437 to 0.772)``; a dash for None. Arguments as ``per_cent``."""
    if value is None:
        return NONE
    value, interval = _parts(value, interval)
    ends = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval is not None else ""
    return f"{value:.3f}{ends}"


def _parts(value: "float | Interval", interval: Sequence[float] | None) -> tuple[float, Sequence[float] | None]:
    return (value.estimate, (value.lower, value.upper)) if hasattr(value, "estimate") else (value, interval)


def _short(rate: float, digits: int | None) -> str:
    value = 100.0 * rate
    if digits is not None:
        return f"{value:.{digits}g}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
