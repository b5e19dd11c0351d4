"""Figures as a report words them: rates in per cent with their 95 % interval, and costs."""

from collections.abc import Sequence

from voice_biometrics.metrics.bootstrap import Interval

NONE = "–"


def per_cent(rate: float | None, interval: Sequence[float] | None = None) -> str:
    """Word a rate (a fraction) and the ends of its interval: ``5.94 % (4.18 to 8.36)``; a dash where there is none."""
    if rate is None:
        return NONE
    ends = f" ({_short(interval[0])} to {_short(interval[1])})" if interval is not None else ""
    return f"{_short(rate)} %{ends}"


def number(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Word a cost and the ends of its interval: ``0.569 (0.437 to 0.772)``; a dash where there is none."""
    if value is None:
        return NONE
    ends = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval is not None else ""
    return f"{value:.3f}{ends}"


def in_per_cent(rate: Interval) -> str:
    """Word a rate and its interval for a column that is in per cent: ``5.94 (4.18 to 8.36)``."""
    return f"{_short(rate.estimate)} ({_short(rate.lower)} to {_short(rate.upper)})"


def _short(rate: float) -> str:
    """Write a fraction in per cent: two decimals from 0.1 % on, two digits below."""
    value = 100.0 * rate
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
