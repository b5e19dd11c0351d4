"""Results of a histogram of scores: metrics.json, det.csv, det.png, and the main figures on the screen."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from voice_biometrics.common.files import write_json, written_whole
from voice_biometrics.common.plot_style import save_figure
from voice_biometrics.metrics.bootstrap import Interval
from voice_biometrics.metrics.error_rates import USUAL_FARS, Cost
from voice_biometrics.metrics.formatting import number, per_cent
from voice_biometrics.metrics.histograms import ScoreHistogram
from voice_biometrics.report.plots import Curve, det_figure

FARS = (*USUAL_FARS, 1e-5, 1e-6, 1e-7)


def write_pairs(histogram: ScoreHistogram, folder: Path, command: str, costs: Sequence[Cost]) -> None:
    """Write and print the results of all pairs to ``folder``; ``command`` goes to metrics.json.

    det.csv: ``threshold, far, frr``, a row per bin that is not empty.
    """
    rates, found = histogram.rates(), histogram.summary(costs, FARS)
    write_json({"command": command, **found}, folder / "metrics.json")
    with written_whole(folder / "det.csv") as temporary:
        points = {"threshold": rates.thresholds, "far": rates.far, "frr": rates.frr}
        pd.DataFrame(points).to_csv(temporary, index=False)
    eer = Interval(found["eer"], *found["eer_bounds"], num_replicates=0, num_degenerate=0, num_speakers=0)
    save_figure(det_figure({"all pairs": Curve(rates, eer)}), folder / "det.png")
    print(
        f"Trials   {rates.num_target + rates.num_nontarget:,}: {rates.num_target:,} target, {rates.num_nontarget:,} "
        f"non-target\nEER      {per_cent(found['eer'])}   (bins: {_bounds(found['eer_bounds'], 100)} %)"
    )
    for dcf in found["min_dcf"]:
        print(f"minDCF   {number(dcf['value'])}   p_target {dcf['p_target']:g} (bins: {_bounds(dcf['bounds'])})")
    for at in found["frr_at_far"]:
        print(f"FRR      {per_cent(at['frr'])} at a FAR of {100 * at['max_far']:g} %")
    print(f"Written  {folder} (metrics.json, det.csv, det.png)")


def _bounds(bounds: tuple[float, float], factor: int = 1) -> str:
    return " to ".join(f"{factor * bound:.6g}" for bound in bounds)
