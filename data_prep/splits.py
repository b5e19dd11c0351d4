"""Speaker-disjoint training, validation and test parts, with their trials."""

from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import COLUMNS, check_unique_ids
from voice_biometrics.common.trial_lists import COLUMNS as TRIAL_COLUMNS
from voice_biometrics.common.trial_lists import make_trials

NO_UTTERANCES, NO_TRIALS = pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=TRIAL_COLUMNS)


@dataclass
class Parts:
    """The tables of one prepared corpus, possibly empty; field names are file names."""

    train: pd.DataFrame = field(default_factory=NO_UTTERANCES.copy)
    valid: pd.DataFrame = field(default_factory=NO_UTTERANCES.copy)
    valid_trials: pd.DataFrame = field(default_factory=NO_TRIALS.copy)
    test: pd.DataFrame = field(default_factory=NO_UTTERANCES.copy)
    test_trials: pd.DataFrame = field(default_factory=NO_TRIALS.copy)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def hold_out(parts: Parts, part: str, amount: float, max_trials: int, seed: int) -> None:
    """Move speakers from ``parts.train`` to ``part`` ("valid" or "test") and make its trials.

    ``amount``: a fraction below 1 of the speakers with two or more utterances (rounded, at least two speakers), or a
    count of 2 or more. Nothing happens if it is 0 or every speaker has a single utterance. At least two speakers remain
    in training. Raises InputError for an impossible ``amount``.
    """
    counts = parts.train["spk_id"].value_counts()
    speakers = np.sort(counts.index[counts >= 2].to_numpy(dtype=object))
    if not amount or not speakers.size:
        return
    num_held_out = max(2, round(amount * speakers.size)) if 0 < amount < 1 else amount
    if num_held_out != int(num_held_out) or not 2 <= num_held_out <= counts.size - 2 or num_held_out > speakers.size:
        raise InputError(
            f"{part}_speakers {amount:g}: expected 0, a fraction below 1, or a count that leaves at least two speakers "
            f"in each part; found {counts.size} speakers, {speakers.size} with two or more utterances"
        )
    rng = np.random.default_rng([seed, part == "test"])
    chosen = parts.train["spk_id"].isin(rng.choice(speakers, int(num_held_out), replace=False))
    moved = parts.train[chosen].sort_values("ID")
    parts.train = parts.train[~chosen]
    setattr(parts, part, moved)
    setattr(parts, f"{part}_trials", make_trials(moved, max_trials, seed))


def keep_speakers(train: pd.DataFrame, amount: float, seed: int) -> pd.DataFrame:
    """Return the rows of a random subset of the speakers; with the same ``seed``, smaller subsets are nested.

    ``amount``: a fraction up to 1 (rounded, at least two speakers) or a count of 2 or more. Raises InputError for an
    impossible ``amount``.
    """
    speakers = np.sort(train["spk_id"].unique().astype(object))
    num_kept = max(2, round(amount * speakers.size)) if 0 < amount <= 1 else amount
    if num_kept != int(num_kept) or not 2 <= num_kept <= max(2, speakers.size):
        raise InputError(
            f"train_speakers {amount:g}: expected a fraction above 0 and up to 1, or a count from 2 to the "
            f"{speakers.size} training speakers"
        )
    kept = np.random.default_rng([seed, 2]).permutation(speakers)[: int(num_kept)]
    return train[train["spk_id"].isin(kept)]


def keep_utterances(train: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return at most ``count`` random rows of each speaker, all if it is 0; with the same ``seed`` they are nested."""
    if not count:
        return train
    drawn = train.sample(frac=1, random_state=np.random.default_rng([seed, 3]))
    return train.loc[drawn.index[drawn.groupby("spk_id").cumcount() < count].sort_values()]


def join_parts(parts_of: dict[str, Parts]) -> Parts:
    """Join prepared corpora; with two or more, IDs and speakers are prefixed with the corpus label."""
    if len(parts_of) == 1:
        return next(iter(parts_of.values()))
    named = [_with_prefix(parts, f"{name}-") for name, parts in parts_of.items()]
    return Parts(**{name: _join([parts.tables()[name] for parts in named]) for name in Parts().tables()})


def _with_prefix(parts: Parts, prefix: str) -> Parts:
    """Put ``prefix`` before every utterance and speaker ID."""
    columns = ("ID", "spk_id", "enrol_id", "test_id")
    return Parts(
        **{
            name: table.assign(**{column: prefix + table[column] for column in columns if column in table})
            for name, table in parts.tables().items()
        }
    )


def _join(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack tables; missing metadata columns become empty."""
    filled = [table for table in tables if len(table)] or tables[:1]
    return pd.concat(filled, ignore_index=True).fillna("")


def check_parts(parts: Parts, hints: list[str]) -> None:
    """Raise InputError unless IDs are unique, parts are speaker-disjoint, and two or more speakers train."""
    num_speakers = parts.train["spk_id"].nunique()
    if num_speakers < 2:
        hint = "; ".join(hints) or "check --data_folder, --valid_speakers and --test_speakers"
        raise InputError(f"training part: expected at least two speakers, found {num_speakers}: {hint}")
    named = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    for name, manifest in named.items():
        check_unique_ids(manifest, f"{name} part")
    for left, right in (("train", "valid"), ("train", "test"), ("valid", "test")):
        shared = sorted(set(named[left]["spk_id"]) & set(named[right]["spk_id"]))
        if shared:
            raise InputError(
                f"speaker {shared[0]} is in both the {left} and the {right} part ({len(shared)} such speakers); parts "
                "must be speaker-disjoint: rename or remove one of the folders"
            )
