"""Scored trials of one system under one condition, and who is on either side of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from voice_biometrics.calibration import log_durations
from voice_biometrics.trial_tables import utterance_rows


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """A list of trials with scores.

    name : what was scored, for tables: "clean", "channel".
    table : the columns ``enrol_id``, ``test_id``, ``target`` (1 or 0) and ``score``.
    utterances : a row for each utterance and enrolled model: ``ID``, ``spk_id``, and as far as known ``duration`` (s),
        ``wav`` and metadata.
    embeddings : (utterances, dims), of the same rows; None where only scores are known.
    """

    name: str
    table: pd.DataFrame
    utterances: pd.DataFrame
    embeddings: np.ndarray | None = None

    @property
    def scores(self) -> np.ndarray:
        """The scores, (trials,) float64."""
        return self.table["score"].to_numpy()

    @property
    def is_target(self) -> np.ndarray:
        """Which trials are target trials, (trials,) bool."""
        return self.table["target"].to_numpy() == 1

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the enrolment and the test side stand in ``utterances``, (trials,) int each.

        Raises InputError when an utterance of a trial is not there.
        """
        return utterance_rows(self.table, pd.Index(self.utterances["ID"]))

    def of_sides(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a column of the manifest for the enrolment and for the test side, (trials,) each."""
        values = self.utterances[column].to_numpy()
        return values[self.rows[0]], values[self.rows[1]]

    def speakers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the speakers of the enrolment and of the test side, (trials,) each."""
        return self.of_sides("spk_id")

    def log_durations(self) -> dict[str, np.ndarray]:
        """Return the quality measures of ``calibration.log_durations``."""
        return log_durations(*self.of_sides("duration"))
