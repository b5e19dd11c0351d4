"""Train variants with several seeds and say which differ: ``python run_ablations.py VARIANT... --seeds 1 2 3``.

    python run_ablations.py fbank softmax_nll --seeds 1 2 --corpus speechocean762 --data_folder /path/to/speechocean762

VARIANT is a file of hparams/ablations (fbank) or hparams, or a path to one. Further arguments go to train.py:
  --KEY value                 for all runs: --number_of_epochs 15
  --VARIANT.KEY value         for one variant; --VARIANT.seeds 1 2 3 gives it other seeds than the rest
  --base ecapa_small          what the others are compared with; always part of the study
  --output_folder PATH        of the study; default results/ablations
  --jobs 2                    so many runs at a time; --devices cuda:0,cuda:1: one on each, in turn
  --dry_run                   only say what would be run, and why

A run whose configuration, manifests and code are those of a finished one is not run again; one that was stopped goes
on; one that differs is trained anew, and its former folder is kept in <study>/replaced. A failed run is told at the end
(exit status 1). All are scored on the held-out speakers of the base, clean and through a channel of each file's own.

Writes to the study's folder ablations.csv, ablations.md, ablations.png and, where the variants differ in speakers,
data_size.png; and a run folder each: <variant>/<seed>.
"""

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
from voice_biometrics.ablation.plan import Request, Task, find_variants, plan_tasks, split_overrides
from voice_biometrics.ablation.results import (
    Study,
    plot_data_size,
    plot_variants,
    read_results,
    write_csv,
    write_markdown,
)
from voice_biometrics.ablation.runner import ROOT, Failure, Runner, make_places
from voice_biometrics.common.errors import InputError, tell_input_errors
from voice_biometrics.experiment.run_folder import only_run_in

TRAINING = ROOT / "train.py"
EVALUATION = ROOT / "voice_biometrics" / "ablation" / "score_run.py"


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Run what is missing of a study, and write its table."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options, request = read_request(arguments)
    with place_for_manifests(request, options.dry_run) as folder:
        tasks = plan_tasks(request, EVALUATION, folder)
        say_plan(tasks)
        if options.dry_run:
            return
        runner = Runner(TRAINING, EVALUATION, folder / "trials", request.folder)
        missing = [task for task in tasks if task.decision.action != "keep"]
        places = make_places(options.jobs or max(1, len(options.devices)), options.devices)
        failures = runner.carry_out(missing, places, after_each=lambda: write_tables(tasks, request))
        draw(write_tables(tasks, request), request.folder)
    say_results(failures, request)
    sys.exit(1 if failures else 0)


def read_request(arguments: list[str]) -> tuple[argparse.Namespace, Request]:
    """Read the command line; InputError for an unknown variant, no seeds, or an argument out of place."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        sys.exit(0)
    num_names = next((i for i, text in enumerate(arguments) if text.startswith("--")), len(arguments))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=__doc__)
    parser.add_argument("--seeds", nargs="*", default=[])
    parser.add_argument("--base", default="ecapa_small")
    parser.add_argument("--output_folder", type=Path, default=Path("results/ablations"))
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--devices", type=lambda text: text.split(","), default=[])
    parser.add_argument("--dry_run", action="store_true")
    options, rest = parser.parse_known_args(arguments[num_names:])
    variants = find_variants(arguments[:num_names], options.base)
    overrides, own_seeds = split_overrides(rest, list(variants))
    if options.devices and any(text.startswith("--device") for given in overrides.values() for text in given):
        raise InputError("--device and --devices: give one of them")
    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: expected 1 or more")
    seeds = {name: read_seeds(own_seeds.get(name, options.seeds), name) for name in variants}
    return options, Request(variants, seeds, overrides, options.output_folder)


def read_seeds(texts: Sequence[str], variant: str) -> list[int]:
    """Return the seeds of a variant; InputError when there are none, one is no number, or is given twice."""
    if not texts:
        raise InputError(f"{variant}: no seeds; give --seeds 1 2 3 (two or more tell chance from effect)")
    if not all(text.isdecimal() for text in texts) or len(set(texts)) < len(texts):
        raise InputError(f"--seeds {' '.join(texts)}: expected whole numbers from 0, each once")
    return [int(text) for text in texts]


@contextlib.contextmanager
def place_for_manifests(request: Request, dry_run: bool) -> Iterator[Path]:
    """Give the study's folder, held for this process; for a dry run a folder that is removed again."""
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        with only_run_in(request.folder):
            yield request.folder


def say_plan(tasks: Sequence[Task]) -> None:
    """Print what each run needs, and why."""
    width = max(len(task.run.name) for task in tasks)
    for task in tasks:
        print(f"{task.run.name:{width}}  {task.decision.action}: {task.decision.reason}")
    num_kept = sum(task.decision.action == "keep" for task in tasks)
    num_epochs = sum(task.epochs_to_do for task in tasks)
    print(f"{len(tasks)} runs, {num_kept} kept; {num_epochs} epochs to train\n", flush=True)


def write_tables(tasks: Sequence[Task], request: Request) -> Study | None:
    """Write the tables of the runs that are finished, if any."""
    results = read_results(tasks)
    if not results:
        return None
    study = Study.of(results, request.base)
    write_csv(study, request.folder / "ablations.csv")
    write_markdown(study, request.folder / "ablations.md")
    return study


def draw(study: Study | None, folder: Path) -> None:
    """Draw the variants and, where they differ in it, the number of speakers they were trained on."""
    if study is None:
        return
    plot_variants(study.rows, study.base, folder / "ablations.png")
    sizes = study.of_other_size()
    if len(sizes) > 1:
        plot_data_size(sizes, folder / "data_size.png")


def say_results(failures: Sequence[Failure], request: Request) -> None:
    """Print the table if there is one, each failure with the last lines of its log, and what to do next."""
    table = request.folder / "ablations.md"
    print(table.read_text(encoding="utf-8") if table.is_file() else "No run is finished: there is no table")
    for failure in failures:
        print(f"FAILED  {failure.run.name}: {failure.step} ended with status {failure.status}; its last lines:")
        print("".join(f"    {line}\n" for line in failure.lines) + f"    (all of it: {failure.log})\n")
    print(f"Written to {request.folder}: {', '.join(sorted(file.name for file in request.folder.glob('*.*')))}")
    if failures:
        print(f"{len(failures)} runs failed: mend the cause and give the same command again; finished runs are kept")


if __name__ == "__main__":
    main(sys.argv[1:])
