"""Scored trials of one system under one condition, and who is on either side of them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from voice_biometrics.calibration import log_durations
from voice_biometrics.errors import InputError


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """A list of trials with scores.

    name : what was scored, for tables: "clean", "channel".
    table : the columns ``enrol_id``, ``test_id``, ``target`` (1 or 0) and ``score``.
    utterances : the manifest, one row for each ``enrol_id`` and ``test_id`` (enrolled models included), with ``ID``,
        ``spk_id`` and ``duration`` (s); None where only scores are known.
    """

    name: str
    table: pd.DataFrame
    utterances: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if self.utterances is None:
            return
        for column in ("enrol_id", "test_id"):
            known = self.table[column].isin(self.utterances["ID"])
            if not known.all():
                raise InputError(
                    f"{column} {self.table[column].iloc[int(np.argmin(known))]} of the trials is not in the manifest "
                    f"({np.count_nonzero(~known):,} such trials): give the manifest of these very utterances"
                )

    @property
    def scores(self) -> np.ndarray:
        """The scores, (trials,) float64."""
        return self.table["score"].to_numpy()

    @property
    def is_target(self) -> np.ndarray:
        """Which trials are target trials, (trials,) bool."""
        return self.table["target"].to_numpy() == 1

    def of_sides(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a column of the manifest for the enrolment and for the test side, (trials,) each."""
        values = self.utterances.set_index("ID")[column]
        return self.table["enrol_id"].map(values).to_numpy(), self.table["test_id"].map(values).to_numpy()

    def speakers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the speakers of the enrolment and of the test side, (trials,) each."""
        return self.of_sides("spk_id")

    def log_durations(self) -> dict[str, np.ndarray]:
        """Return the quality measures of ``calibration.log_durations``."""
        return log_durations(*self.of_sides("duration"))
