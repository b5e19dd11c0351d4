"""The odd one out among the recordings of an enrolment."""

import numpy as np
import pytest

from voice_biometrics.inference.recognizer import disagreeing
from voice_biometrics.inference.voiceprints import unit

ANNA, BERT = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])


def llrs(scores):
    """LLR 0 at a cosine of 0.5."""
    return 10.0 * (scores - 0.5)


def recordings(*voices):
    """A little of another direction in each, so that no two are the same."""
    return np.stack([unit(voice + 0.1 * number * np.array([0.0, 0.0, 1.0])) for number, voice in enumerate(voices)])


def test_the_odd_one_out_is_found_wherever_it_is_and_of_two_both():
    for place in range(4):
        voices = [ANNA] * 4
        voices[place] = BERT
        assert disagreeing(recordings(*voices), llrs) == [place]
    assert disagreeing(recordings(ANNA, BERT), llrs) == [0, 1]
    for number in (1, 2, 5):
        assert disagreeing(recordings(*[ANNA] * number), llrs) == []


def test_added_recordings_are_judged_by_those_before():
    assert disagreeing(recordings(BERT, BERT, ANNA), llrs, enrolled=ANNA) == [0, 1]
    assert disagreeing(recordings(BERT), llrs, enrolled=ANNA) == [0]
    assert disagreeing(recordings(ANNA), llrs, enrolled=0.8 * ANNA) == []


@pytest.mark.parametrize("cosine, odd", [(0.5, []), (0.4, [3])])
def test_a_recording_unlike_each_of_most_agrees_when_it_fits_their_mean(cosine, odd):
    """Three with cosines of 0.6 have a mean of length 0.856, so 0.5 with each makes a score of 0.54 with it."""
    cosines = np.full((4, 4), 0.6)
    cosines[3] = cosines[:, 3] = cosine
    np.fill_diagonal(cosines, 1.0)
    assert disagreeing(np.linalg.cholesky(cosines), lambda scores: scores - 0.52) == odd
