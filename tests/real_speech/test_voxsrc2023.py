"""The scores that the organisers of VoxSRC 2023 published for their baseline give the figures that they published."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.metrics.error_rates import error_rates


def test_the_baseline_of_voxsrc_2023_has_its_published_eer_and_min_dcf(shared):
    folder = shared / "scores" / "voxsrc2023"
    if not folder.is_dir():
        pytest.skip(f"no published scores in {folder}")
    labels = pd.read_csv(folder / "VoxSRC2023_val.txt.gz", sep=" ", names=["target", "enrol_id", "test_id"])
    scores = pd.read_csv(folder / "VoxSRC2023_val_score.txt.gz", sep=" ", names=["score", "enrol_id", "test_id"])
    assert labels[["enrol_id", "test_id"]].equals(scores[["enrol_id", "test_id"]])
    rates = error_rates(scores["score"].to_numpy(np.float64), labels["target"].to_numpy())
    assert 100 * rates.equal_error_rate()[0] == pytest.approx(4.095, abs=0.0005)
    assert rates.min_dcf(0.05)[0] == pytest.approx(0.2142, abs=0.00005)
