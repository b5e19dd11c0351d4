"""Train variants with several seeds and compare them: ``python run_ablations.py VARIANT... --seeds 1 2 3``.

    python run_ablations.py fbank softmax_nll --seeds 1 2 --corpus speechocean762 --data_folder /path/to/speechocean762

VARIANT is a file of hparams/ablations (fbank) or hparams, or a path. Other arguments are passed to train.py:
  --KEY value                 for all runs: --number_of_epochs 15
  --VARIANT.KEY value         for one variant; --VARIANT.seeds 1 2 3 sets its seeds
  --base ecapa_small          the variant that the others are compared with; always part of the study
  --output_folder PATH        of the study; default results/ablations
  --jobs 2                    number of simultaneous runs; --devices cuda:0,cuda:1: one on each, in turn
  --dry_run                   only print which runs are needed, and why

A finished run with the same configuration, manifests and training code is kept, an interrupted one is resumed, and one
that differs is retrained; its former folder is moved to <study>/replaced. Failures are listed at the end (exit status
1). All runs are scored on the held-out speakers of the base, clean and with a simulated channel per file.

Writes to the study folder ablations.csv, ablations.md, ablations.png, data_size.png (if variants differ in the number
of speakers), and a run folder <variant>/<seed> for each run.
"""

import argparse
import functools
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.ablation.fingerprint import digest
from voice_biometrics.ablation.plan import ManifestsOf, PlannedRun, Request, find_variants, plan_runs, split_overrides
from voice_biometrics.ablation.results import write_results
from voice_biometrics.ablation.runner import LOG, TRIALS, Failure, carry_out
from voice_biometrics.common.errors import InputError, OptionParser, tell_input_errors
from voice_biometrics.experiment.run_folder import only_run_in


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Carry out the runs that a study lacks, and write its tables and plots."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options, request = read_request(arguments)
    with tempfile.TemporaryDirectory() if options.dry_run else only_run_in(request.folder) as temporary:
        folder = Path(temporary or request.folder)
        runs = plan_runs(request, manifests_in(folder / "manifests"), folder / TRIALS)
        print_plan(runs)
        if options.dry_run:
            return
        num_jobs = options.jobs or max(1, len(options.devices))
        missing = [run for run in runs if run.action != "keep"]
        write = functools.partial(write_results, runs, request.base, request.folder)
        failures = carry_out(missing, num_jobs, options.devices, request.folder, after_each=write)
        write()
    print_results(failures, request)
    sys.exit(1 if failures else 0)


def read_request(arguments: list[str]) -> tuple[argparse.Namespace, Request]:
    """Read the command line; InputError for an unknown variant, no seeds, or an argument out of place."""
    arguments = arguments or ["--help"]
    num_names = next((i for i, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    parser = OptionParser(__doc__)
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
        raise InputError(f"{variant}: no seeds; give --seeds 1 2 3 (two or more show the spread between runs)")
    if not all(text.isdecimal() for text in texts) or len(set(texts)) < len(texts):
        raise InputError(f"--seeds {' '.join(texts)}: expected whole numbers from 0, each once")
    return [int(text) for text in texts]


def manifests_in(folder: Path) -> ManifestsOf:
    """Return a function that writes the manifests of hparams below ``folder``, once for each corpus setting."""

    @functools.cache
    def prepared(settings: Settings) -> tuple[Path, int]:
        place = folder / digest(repr(settings).encode())[:12]
        (place / "prepared.json").unlink(missing_ok=True)  # read the headers again: files may have changed
        return place, prepare(settings, place)["num_speakers"]

    return lambda hparams: prepared(Settings.from_hparams(hparams))


def print_plan(runs: Sequence[PlannedRun]) -> None:
    """Print the action of each run, with the reason."""
    width = max(len(run.name) for run in runs)
    for run in runs:
        print(f"{run.name:{width}}  {run.action}: {run.reason}")
    num_kept = sum(run.action == "keep" for run in runs)
    print(f"{len(runs)} runs, {num_kept} kept; {sum(run.epochs_to_do for run in runs)} epochs to train\n", flush=True)


def print_results(failures: Sequence[Failure], request: Request) -> None:
    """Print the table, each failure with the last lines of its log, and the next step."""
    table = request.folder / "ablations.md"
    print(table.read_text(encoding="utf-8") if table.is_file() else "No finished run, so no table was written")
    for failure in failures:
        print(f"FAILED  {failure.run.name}: {failure.step} ended with status {failure.status}; last lines of its log:")
        print("".join(f"    {line}\n" for line in failure.last_lines()) + f"    (log: {failure.run.folder / LOG})\n")
    print(f"Written to {request.folder}: {', '.join(sorted(file.name for file in request.folder.glob('[a-z]*.*')))}")
    if failures:
        print(f"{len(failures)} runs failed: fix the cause and repeat the command; finished runs are kept")


if __name__ == "__main__":
    main(sys.argv[1:])
