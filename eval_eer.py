"""Evaluate a trained run, or the scores of any system: ``python eval_eer.py [HPARAMS] [--key value ...] [options]``.

    python eval_eer.py hparams/ecapa_small.yaml --corpus speechocean762 --data_folder /path/to/speechocean762
    python eval_eer.py --scores a.csv --against b.csv --test_manifest speakers.csv

HPARAMS and --key as for train.py; the best checkpoint is used. Keys of "Scoring" in the hparams file: --as_norm_top 300
Trials, instead of the run's test part or held-out speakers:
  --test_manifest FILE     utterances (ID, duration, wav, start, stop, spk_id, and groups such as gender, age)
  --test_trials FILE       their trials (enrol_id, test_id, target, or VoxCeleb's format); default: all pairs
  --enrolment FILE         models of several utterances (model_id, utt_id); trials name a model as enrol_id
  --enrol_with N           enrol each speaker with N random utterances and test all others
  --condition NAME ...     besides the clean trials: channel (default), noise, telephone, short; noise:15,3; none
Scores of any system (enrol_id, test_id, target, score; .csv, .csv.gz, .parquet, or lines as other tools write them):
  --scores FILE            the trials; --test_manifest (ID, spk_id, and groups) gives intervals and groups
  --trials FILE            their labels, if --scores and --against have none (Kaldi, VoxSRC); joined by pair
  --held_out_scores FILE   scores of other speakers for calibration; default: the same speakers, cross-validated
Embeddings of embed.py: --embeddings FOLDER, with --test_trials FILE for a list of trials; without it all pairs are
  counted in histograms, without intervals and groups (10^10 take minutes); --processes N (default: 1) in parallel
Runs and scores:
  --against FILE ...       other systems' scores of the same trials: differences, with intervals and p-values
  --custom P,MISS,FA       a threshold for your use: prior of a target trial, cost of a miss and of a false accept

Writes report.html, report.md, metrics.json, scores and plots to <run folder>/eval/<trials>, or beside --scores or
--embeddings (of all pairs: metrics.json, det.csv and det.png).
"""

import argparse
import gc
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd

from voice_biometrics.common.errors import InputError, OptionParser, tell_input_errors
from voice_biometrics.common.manifest import read_manifest
from voice_biometrics.common.trial_lists import read_trials, resolve_trials
from voice_biometrics.evaluation.comparison import speakers_of_targets
from voice_biometrics.evaluation.evaluate import Evaluation, evaluate
from voice_biometrics.metrics.error_rates import USUAL_COSTS, Cost
from voice_biometrics.metrics.operating_points import DOOR, SMART_SPEAKER, CustomUse, Use
from voice_biometrics.report.sections import Subject, print_summary, write_evaluation
from voice_biometrics.scoring.score_files import read_scores, write_scores
from voice_biometrics.scoring.scored_trials import ScoredTrials, named_like

ID_AND_SPEAKER = ("ID", "spk_id")
ENDING = re.compile(r"(\.csv|\.txt|\.parquet)?(\.gz)?$")
FOR_RUNS = dict.fromkeys(("test_trials", "enrolment", "enrol_with", "condition"), ": the trials are scored already")
FOR_SCORES = {
    "held_out_scores": " only: a run calibrates on its own held-out speakers",
    "trials": " only: the trials of a run are --test_trials",
}


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Evaluate a score file or a trained run, and write the report."""
    options, rest = parse_options(arguments)
    options.command = f"python eval_eer.py {shlex.join(arguments)}"
    if options.embeddings and not options.test_trials:
        evaluate_all_pairs(options, rest)
        return
    trials_of = evaluate_scores if options.scores else evaluate_embeddings if options.embeddings else evaluate_run
    evaluation, subject, costs = trials_of(options, rest)
    utterances = evaluation.clean.trials.utterances  # other systems' trials are the same, and so are their speakers
    ids = pd.Index(utterances["ID"])
    others = {str(path): named_like(read_scores(path, options.trials), ids) for path in options.against}
    against = [ScoredTrials(name, scores, utterances) for name, scores in others.items()]
    write_evaluation(evaluation, subject, against, costs)
    print_summary(evaluation, subject)
    if trials_of is evaluate_run:
        print(f"Next: python export.py {shlex.quote(str(subject.folder.parents[1]))}")


def parse_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the options of this script out of ``arguments``; the rest are those of train.py."""
    parser = OptionParser(__doc__)
    for name in (
        "--test_manifest", "--test_trials", "--enrolment", "--scores", "--trials", "--held_out_scores", "--embeddings",
    ):  # fmt: skip
        parser.add_argument(name, type=Path)
    parser.add_argument("--against", type=Path, nargs="+", default=[])
    parser.add_argument("--condition", nargs="+")
    parser.add_argument("--enrol_with", type=int)
    parser.add_argument("--custom")
    parser.add_argument("--processes", type=int, default=1)
    options, rest = parser.parse_known_args(arguments)
    foreign = FOR_RUNS if options.scores else FOR_SCORES
    for name in foreign:
        if getattr(options, name) is not None:
            refuse(f"--{name} {'does not go' if options.scores else 'goes'} with --scores{foreign[name]}")
    return options, rest


def refuse(message: str) -> NoReturn:
    """Raise InputError for an invalid option."""
    raise InputError(f"{message}; see python eval_eer.py --help")


def evaluate_scores(options: argparse.Namespace, rest: list[str]) -> tuple[Evaluation, Subject, list[Cost]]:
    """Evaluate the scores of any system."""
    if rest:
        refuse(f"--scores needs no other options of a run; leave out {' '.join(rest)}")
    utterances = read_manifest(options.test_manifest, ID_AND_SPEAKER) if options.test_manifest else None

    def read(path: Path, name: str, trials_file: Path | None = None) -> ScoredTrials:
        scores = read_scores(path, trials_file)
        if utterances is not None:
            return ScoredTrials(name, named_like(scores, pd.Index(utterances["ID"])), utterances)
        return ScoredTrials(name, scores, speakers_of_targets(scores).rename_axis("ID").reset_index(name="spk_id"))

    trials = read(options.scores, "clean", options.trials)
    held_out = read(options.held_out_scores, "held out") if options.held_out_scores else None
    uses, costs = uses_and_costs(options, USUAL_COSTS)
    evaluation = evaluate([trials], held_out, uses, costs)
    name = ENDING.sub("", options.scores.name)
    speakers = options.test_manifest or "utterances that target trials link are taken to be of one speaker"
    named = (options.scores, options.trials, options.held_out_scores, options.test_manifest)
    subject = Subject(
        title=name,
        folder=options.scores.parent / f"{name}_eval",
        command=options.command,
        facts={"scores": str(options.scores), "speakers": str(speakers)},
        files=[path for path in named if path],
        units="speakers" if options.test_manifest else "groups linked by target trials",
    )
    return evaluation, subject, costs


def evaluate_run(options: argparse.Namespace, rest: list[str]) -> tuple[Evaluation, Subject, list[Cost]]:
    """Embed the utterances of the trials with the best checkpoint of a run, score and evaluate them."""
    from voice_biometrics.evaluation.conditions import CLEAN, conditions_named
    from voice_biometrics.evaluation.trained_run import TrainedRun  # here, since score files need not wait for PyTorch

    named = [] if options.condition == ["none"] else options.condition or ["channel"]
    conditions = [CLEAN, *(condition for name in named for condition in conditions_named(name))]
    run = TrainedRun.from_command_line(rest, __doc__)
    num_enrolled = 1 if options.enrol_with is None else options.enrol_with
    trial_set = run.trial_set(options.test_manifest, options.test_trials, options.enrolment, num_enrolled)
    lists = [run.score(trial_set, condition) for condition in conditions]
    uses, costs = uses_and_costs(options, [Cost(p_target) for p_target in run.settings["p_targets"]])
    with_durations = run.settings["calibrate_with_durations"]
    evaluation = evaluate(lists, run.held_out_trials(trial_set), uses, costs, with_durations)
    subject = Subject(
        title=f"{run.settings['name']} on {'held-out speakers' if trial_set.is_held_out else trial_set.name}",
        folder=run.folder / "eval" / trial_set.name,
        command=options.command,
        facts=run.facts(trial_set),
        files=run.files(trial_set),
        chose_checkpoint=trial_set.is_held_out,
    )
    for trials in lists:  # scores.csv, scores_channel.csv, scores_noise_10_dB_SNR.csv
        name = "" if trials is lists[0] else "_" + re.sub(r"[^a-zA-Z0-9.]+", "_", trials.name)
        write_scores(trials.table, subject.folder / f"scores{name}.csv")
    if evaluation.thresholds and (trial_set.is_held_out or not evaluation.on_itself):
        run.save_thresholds(evaluation.thresholds, trial_set)
    return evaluation, subject, costs


def evaluate_embeddings(options: argparse.Namespace, rest: list[str]) -> tuple[Evaluation, Subject, list[Cost]]:
    """Score and evaluate a list of trials of the embeddings of embed.py."""
    from voice_biometrics.scoring.cosine import score_trials  # here, since score files need not wait for it
    from voice_biometrics.scoring.embedding_parts import read_parts

    refuse_with_embeddings(options, rest)
    utterances, embeddings = read_parts(options.embeddings)
    ids = pd.Index(utterances["ID"])
    if not ids.is_unique:
        refuse(f"{options.embeddings}: expected an ID for each utterance, found {ids[ids.duplicated()][0]} twice")
    trials = resolve_trials(read_trials(options.test_trials), ids, str(options.test_trials))
    scores = score_trials(embeddings, ids, trials)
    used = ids.isin(scores["enrol_id"]) | ids.isin(scores["test_id"])
    uses, costs = uses_and_costs(options, USUAL_COSTS)
    evaluation = evaluate([ScoredTrials("clean", scores, utterances[used].reset_index(drop=True))], None, uses, costs)
    name = ENDING.sub("", options.test_trials.name)
    subject = Subject(
        title=f"{options.embeddings.name} on {name}",
        folder=options.embeddings.with_name(f"{options.embeddings.name}_eval") / name,
        command=options.command,
        facts={"embeddings": f"{options.embeddings} ({len(ids):,} utterances)", "trials": str(options.test_trials)},
        files=[options.test_trials],
    )
    write_scores(scores, subject.folder / "scores.csv")
    return evaluation, subject, costs


def evaluate_all_pairs(options: argparse.Namespace, rest: list[str]) -> None:
    """Evaluate all pairs of the embeddings of embed.py."""
    from voice_biometrics.report.pairs import write_pairs  # here, since score files need not wait for it
    from voice_biometrics.scoring.all_pairs import all_pairs_histogram
    from voice_biometrics.scoring.embedding_parts import read_parts

    refuse_with_embeddings(options, rest)
    if options.against:
        refuse("--against does not go with all pairs of --embeddings; give their trials as --test_trials")
    utterances, embeddings = read_parts(options.embeddings)
    histogram = all_pairs_histogram(embeddings, utterances["spk_id"].to_numpy(), options.processes)
    costs = uses_and_costs(options, USUAL_COSTS)[1]
    write_pairs(histogram, options.embeddings.with_name(f"{options.embeddings.name}_eval"), options.command, costs)


def refuse_with_embeddings(options: argparse.Namespace, rest: list[str]) -> None:
    """Raise InputError for options that ``--embeddings`` does not use."""
    others = ("scores", "held_out_scores", "test_manifest", "enrolment", "enrol_with", "condition")
    foreign = [f"--{name}" for name in others if getattr(options, name) is not None] + rest
    if foreign:
        refuse(f"{foreign[0]} does not go with --embeddings")


def uses_and_costs(options: argparse.Namespace, costs: Sequence[Cost]) -> tuple[list[Use | CustomUse], list[Cost]]:
    """Return the uses that need a threshold and the costs of minDCF and actDCF, including the user's own."""
    if options.custom is None:
        return [SMART_SPEAKER, DOOR], list(costs)
    try:
        p_target, c_miss, c_fa = (float(value) for value in options.custom.split(","))
    except ValueError:
        refuse(f"--custom {options.custom}: expected three numbers, such as 0.01,1,10")
    return [SMART_SPEAKER, DOOR, CustomUse(Cost(p_target, c_miss, c_fa))], [*costs, Cost(p_target, c_miss, c_fa)]


if __name__ == "__main__":
    gc.freeze()  # what was imported is kept to the end: collections that search it take a fifth of the time
    main(sys.argv[1:])
    gc.freeze()  # nor at the exit
