"""Utterances to groups by one column of metadata, or by their length: values as they are, or bands of numbers."""

import numpy as np
import pandas as pd

MAX_GROUPS = 20  # a column of more words is an identifier or free text
MAX_PLAIN_NUMBERS = 8  # a column of more numbers is cut into bands
NUM_QUANTILE_BANDS = 4
AGE_EDGES = [6, 13, 18, 30, 45, 60]  # years; children by school, then adults by 12 to 15 years
AGE_BANDS = ["under 6", "6-12", "13-17", "18-29", "30-44", "45-59", "60 and over"]
DURATION_EDGES = [2.0, 4.0, 8.0, 16.0]  # seconds
DURATION_BANDS = ["under 2 s", "2-4 s", "4-8 s", "8-16 s", "16 s and over"]


def group_utterances(column: str, values: pd.Series) -> tuple[pd.Categorical | None, str]:
    """Return the group of each utterance by one column of metadata, and what there is to say about it.

    Words are groups as they are, and so are up to 8 different numbers. More numbers are cut into bands: by years where
    the column is called ``age``, else into quarters of the utterances, named by their lowest and highest value.

    Arguments
    ---------
    column : its name. values : (utterances,) text or numbers; empty text and missing values mean not known.

    Returns
    -------
    (utterances,) groups, NaN where not known, with the groups in their order as categories; and how many utterances
    are not known, in words, or "". None where the column makes no groups; then the words say why.
    """
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    known = text[text != ""]
    if known.nunique() < 2:
        return None, f"one value only ({known.iloc[0]})" if len(known) else "no values"
    numbers = pd.to_numeric(known, errors="coerce")
    if np.isfinite(numbers).all() and not known.str.fullmatch(r"0\d+").any():  # 0054 is a name
        groups = _number_groups(column.casefold(), numbers, known)
    else:
        groups = pd.Categorical(known)
    if groups is None or len(groups.categories) > MAX_GROUPS:
        return None, f"{known.nunique():,} different values, taken for an identifier or free text"
    num_unknown = len(text) - len(known)
    remark = f"{num_unknown:,} of {len(text):,} utterances without a value" if num_unknown else ""
    codes = np.full(len(text), -1)
    codes[(text != "").to_numpy()] = groups.codes
    return pd.Categorical.from_codes(codes, dtype=groups.dtype), remark


def duration_bands(durations_s: np.ndarray) -> pd.Categorical:
    """Return the band of each duration, (items,), from seconds, (items,); a band holds its lower end."""
    return _cut(durations_s, DURATION_EDGES, DURATION_BANDS)


def _number_groups(column: str, numbers: pd.Series, known: pd.Series) -> pd.Categorical | None:
    """Group numbers; None where they count the utterances."""
    if column == "age":
        return _cut(numbers.to_numpy(), AGE_EDGES, AGE_BANDS)
    distinct = numbers.drop_duplicates().sort_values()
    if len(distinct) <= MAX_PLAIN_NUMBERS:
        return pd.Categorical(numbers.map(_plain), categories=distinct.map(_plain))
    if len(distinct) == len(numbers) and (numbers % 1 == 0).all():
        return None
    quarter = pd.qcut(numbers, NUM_QUANTILE_BANDS, labels=False, duplicates="drop")
    ends = numbers.groupby(quarter).agg(["min", "max"])
    names = [f"{_plain(low)} to {_plain(high)}" for low, high in ends.to_numpy()]
    return pd.Categorical.from_codes(pd.Index(ends.index).get_indexer(quarter), categories=names)


def _cut(numbers: np.ndarray, edges: list[float], names: list[str]) -> pd.Categorical:
    """Cut numbers at ``edges``, each the lowest number of a band; bands without any are left out."""
    bands = pd.Categorical.from_codes(np.searchsorted(edges, numbers, side="right"), categories=names)
    return bands.remove_unused_categories()


def _plain(number: float) -> str:
    return f"{number:.6g}"
