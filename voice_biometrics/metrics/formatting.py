"""Rates in per cent, detection costs and their 95 % intervals as text, for reports, tables and the screen."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from voice_biometrics.common.markdown import MISSING

if TYPE_CHECKING:  # this module loads little, so that verify.py can use it
    from voice_biometrics.metrics.bootstrap import Interval


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

    def short(fraction: float) -> str:
        value = 100.0 * fraction
        if digits is not None:
            return f"{value:.{digits}g}"
        return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"

    return _with_ends(short, rate, interval, unit)


def in_per_cent(rate: "float | Interval | None") -> str:
    """Return a rate and its interval for a column in per cent: ``5.94 (4.18 to 8.36)``; a dash for None."""
    return per_cent(rate, unit="")


def number(value: "float | Interval | None", interval: Sequence[float] | None = None) -> str:
    """Return a cost and its interval: ``0.569 (0.437 to 0.772)``; a dash for None. Arguments as ``per_cent``."""
    return _with_ends("{:.3f}".format, value, interval)


def _with_ends(
    short: Callable[[float], str], value: "float | Interval | None", interval: Sequence[float] | None, unit: str = ""
) -> str:
    if value is None:
        return MISSING
    if hasattr(value, "estimate"):
        value, interval = value.estimate, (value.lower, value.upper)
    return f"{short(value)}{unit}" + (f" ({short(interval[0])} to {short(interval[1])})" if interval else "")
