"""Score trials as the scoring keys of the hparams say: cosine, mean subtraction, AS-norm."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring.as_norm import (
    as_norm_scores,
    average_by_group,
    check_other_speakers,
    subtract_cohort_mean,
)
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.enrolment import with_models
from voice_biometrics.scoring.scored_trials import ScoredTrials

COHORTS = ("speakers", "utterances")


@dataclass(frozen=True)
class Scoring:
    """Scoring keys of the hparams.

    subtract_mean : subtract the cohort's mean embedding before the cosine.
    as_norm_top : AS-norm with this many of the most similar members of the cohort; 0 for no AS-norm.
    as_norm_cohort : members of the cohort: ``speakers`` (an average each) or ``utterances``.
    """

    subtract_mean: bool = False
    as_norm_top: int = 0
    as_norm_cohort: str = "speakers"

    def __post_init__(self) -> None:
        if self.as_norm_cohort not in COHORTS:
            raise InputError(f"as_norm_cohort is {self.as_norm_cohort!r}: expected {' or '.join(COHORTS)}")
        if self.as_norm_top != 0 and self.as_norm_top < 2:
            raise InputError(f"as_norm_top is {self.as_norm_top}: expected 0 (no AS-norm), or 2 or more")

    @classmethod
    def from_hparams(cls, hparams: Mapping[str, object]) -> "Scoring":
        """Return the scoring keys of a hparams file."""
        return cls(**{key: hparams[key] for key in cls.__dataclass_fields__})

    @property
    def needs_cohort(self) -> bool:
        """True when training utterances must be embedded as well."""
        return self.subtract_mean or self.as_norm_top > 0

    def in_words(self) -> str:
        """Return a description for reports."""
        words = "cosine"
        if self.subtract_mean:
            words += ", the cohort's mean subtracted"
        if self.as_norm_top:
            words += f", AS-norm by the nearest {self.as_norm_top} {self.as_norm_cohort} of the cohort"
        return words


class Scorer:
    """Score trials with a cohort of training speakers, who are in no trial."""

    def __init__(self, scoring: Scoring, cohort: np.ndarray | None = None, cohort_speakers: np.ndarray | None = None):
        """``cohort`` : (utterances, dims) and ``cohort_speakers`` : (utterances,), if ``scoring`` needs them."""
        self.scoring = scoring
        self.cohort_speakers = np.array([]) if cohort_speakers is None else cohort_speakers
        if scoring.needs_cohort:
            self.mean_of = cohort
            cohort = subtract_cohort_mean(cohort, cohort) if scoring.subtract_mean else cohort
            if scoring.as_norm_cohort == "speakers":
                cohort, _ = average_by_group(cohort, cohort_speakers)
            self.cohort = cohort

    def score(
        self,
        name: str,
        embeddings: np.ndarray,
        utterances: pd.DataFrame,
        trials: pd.DataFrame,
        enrolment: pd.DataFrame | None = None,
    ) -> ScoredTrials:
        """Return the scored trials.

        Arguments
        ---------
        name : of the list of trials, for tables.
        embeddings : (utterances, dims) float, of the rows of ``utterances``.
        utterances : a manifest.
        trials : ``enrol_id``, ``test_id``, ``target``.
        enrolment : ``model_id``, ``utt_id``, if trials name models of several utterances.

        Raises
        ------
        InputError : a speaker of the trials is in the cohort; or as ``as_norm`` and ``cosine``.
        """
        check_other_speakers("the cohort", self.cohort_speakers, utterances["spk_id"])
        if self.scoring.subtract_mean:
            embeddings = subtract_cohort_mean(embeddings, self.mean_of)
        if enrolment is not None:
            embeddings, utterances = with_models(embeddings, utterances, enrolment)
        ids = pd.Index(utterances["ID"])
        if not self.scoring.as_norm_top:
            return ScoredTrials(name, score_trials(embeddings, ids, trials), utterances, embeddings)
        sides = ids.get_indexer(trials["enrol_id"]), ids.get_indexer(trials["test_id"])
        scores = as_norm_scores(embeddings, *sides, self.cohort, self.scoring.as_norm_top, ids.tolist())
        return ScoredTrials(name, trials.assign(score=scores), utterances, embeddings)
