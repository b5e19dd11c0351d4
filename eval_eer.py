"""Score trials and report the equal error rate: ``python eval_eer.py [HPARAMS] [--key value ...]``.

    python eval_eer.py hparams/ecapa_small.yaml --corpus speechocean762 --data_folder /path/to/speechocean762
    python eval_eer.py --scores scores.csv                         any system's scores; nothing is trained

Give the arguments that train.py had; the best checkpoint of its run folder is taken. The trials are those of the test
part, or of the held-out speakers where the corpus has none, or:
  --test_manifest FILE   a manifest (ID, duration, wav, start, stop, spk_id); $data_root in it is --data_folder
  --test_trials FILE     its trial list (enrol_id, test_id, target, or VoxCeleb's form); without one all pairs
  --scores FILE          only recompute the figures of a score file (enrol_id, test_id, target, score)

Writes to <run folder>/eval/<trial list>, or beside the score file: scores.csv, metrics.json, det.png, scores.png.
"""

import argparse
import sys
from pathlib import Path

from voice_biometrics.errors import InputError, tell_input_errors
from voice_biometrics.evaluation import say_metrics, write_evaluation
from voice_biometrics.trial_scores import read_scores, write_scores

P_TARGETS = (0.01, 0.05)  # of a score file; a run's are the p_targets of its hparams


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Evaluate a score file, or a trained run."""
    options, rest = parse_options(arguments)
    if options.scores:
        metrics, folder = evaluate_file(options.scores, rest)
    else:
        metrics, folder = evaluate_run(options, rest)
    say_metrics(metrics, folder)


def parse_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the options of this script out of ``arguments``; the rest are those of train.py."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=__doc__)
    for name in ("--scores", "--test_manifest", "--test_trials"):
        parser.add_argument(name, type=Path)
    return parser.parse_known_args(arguments)


def evaluate_file(path: Path, rest: list[str]) -> tuple[dict, Path]:
    """Recompute the figures of a score file into a folder of its name beside it."""
    if rest:
        raise InputError(f"--scores: the scores are all that is needed; leave out {' '.join(rest)}")
    folder = path.parent / f"{path.stem}_eval"
    return write_evaluation(read_scores(path), folder, {"scores": str(path)}, P_TARGETS), folder


def evaluate_run(options: argparse.Namespace, rest: list[str]) -> tuple[dict, Path]:
    """Embed the utterances of the trials with the best checkpoint of a run, score and report."""
    from voice_biometrics.trained_run import TrainedRun  # here, since score files need not wait for PyTorch

    run = TrainedRun.from_command_line(rest, __doc__)
    trial_set = run.trial_set(options.test_manifest, options.test_trials)
    scores = run.score(trial_set)
    folder = run.folder / "eval" / trial_set.name
    write_scores(scores, folder / "scores.csv")
    speaker_of = trial_set.manifest.set_index("ID")["spk_id"]
    return write_evaluation(scores, folder, run.describe(trial_set), run.hparams["p_targets"], speaker_of), folder


if __name__ == "__main__":
    main(sys.argv[1:])
