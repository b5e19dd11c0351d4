"""The model card says what the folder leaves out of what the run's hparams ask for."""

from types import SimpleNamespace

import pytest

from voice_biometrics.export.model_card import left_out


@pytest.mark.parametrize(
    "asked, told",
    [
        ({}, ""),
        ({"subtract_mean": False, "as_norm_top": 0, "segment_s": 0}, ""),
        ({"subtract_mean": True, "as_norm_top": 300}, "`subtract_mean: True`, `as_norm_top: 300`. The model folder"),
        ({"calibrate_with_durations": True, "p_targets": [1]}, "for `calibrate_with_durations: True`. The"),
    ],
)
def test_scoring_that_only_the_evaluation_has_is_named(asked, told):
    words = left_out(SimpleNamespace(settings=asked))
    assert (told in words) if told else words == ""
