"""Plan a study: its variants and seeds, and for each run whether to keep, evaluate, resume, train or retrain it.

A run is in ``<study folder>/<variant>/<seed>``. Its ``study.json`` has the fingerprint of its training, the time and
hardware of the training, and checksums of everything that its evaluation depends on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speechbrain.utils.distributed import infer_device

from voice_biometrics.ablation.fingerprint import checksum, code_digests, differences, fingerprint_of, manifest_digests
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import read_json
from voice_biometrics.common.manifest import data_roots, read_utterances, write_manifest
from voice_biometrics.common.trial_lists import read_trials, write_trials
from voice_biometrics.experiment.hparams import (
    ROOT,
    Run,
    did_you_mean,
    hparams_files,
    keys_that_affect,
    read_command_line,
    split_options,
)
from voice_biometrics.experiment.run_folder import read_epochs

SET_BY_THE_STUDY = {
    "output_folder": "give it once, for all runs",
    "manifest_folder": "each run has its own",
    "save_folder": "each run has its own",
    "seed": "use --seeds",
}
EVALUATION_CODE = (
    "voice_biometrics/common/audio.py", "voice_biometrics/scoring", "voice_biometrics/metrics",
    "voice_biometrics/evaluation/conditions.py", "voice_biometrics/evaluation/trained_run.py",
    "voice_biometrics/ablation/score_run.py", "voice_biometrics/ablation/statistics.py",
)  # fmt: skip
STATE = "study.json"
MAX_REASONS = 3  # printed for one run

ManifestsOf = Callable[[dict], tuple[Path, int]]  # plain hparams -> manifest folder, number of training speakers


@dataclass(frozen=True)
class Request:
    """The study that the command line asks for.

    variants : name -> hparams file, the base first.
    seeds : variant -> its seeds.
    overrides : variant -> arguments of train.py.
    folder : of the study.
    """

    variants: dict[str, Path]
    seeds: dict[str, list[int]]
    overrides: dict[str, list[str]]
    folder: Path

    @property
    def base(self) -> str:
        """Name of the variant that the others are compared with."""
        return next(iter(self.variants))

    def runs(self) -> list[tuple[str, int]]:
        """Return (variant, seed), first the first seed of each variant, so that an interrupted study compares most."""
        num_rounds = max(len(seeds) for seeds in self.seeds.values())
        rounds = [(name, self.seeds[name][i : i + 1]) for i in range(num_rounds) for name in self.variants]
        return [(name, seed) for name, seeds in rounds for seed in seeds]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, and what has to be done for it.

    num_speakers : in the training part. arguments : of train.py.
    evaluated_from : name -> value or checksum of everything that the evaluation depends on.
    action : "keep", "evaluate", "resume", "train", "retrain", or "copy" the network from the run folder ``source``.
    """

    variant: str
    seed: int
    folder: Path
    num_epochs: int
    num_speakers: int
    device: str
    arguments: list[str]
    fingerprint: dict[str, str]
    evaluated_from: dict[str, str]
    action: str = ""
    reason: str = ""
    source: Path | None = None

    @property
    def name(self) -> str:
        """Variant and seed."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def state(self) -> dict:
        """The content of ``study.json``, empty if there is none; the runner documents its keys."""
        return read_json(self.folder / STATE)

    @property
    def trains(self) -> bool:
        """True if there are epochs to train."""
        return self.action in ("train", "retrain", "resume")

    @property
    def epochs_to_do(self) -> int:
        """Number of epochs to train."""
        done = len(read_epochs(self.folder)) if self.action == "resume" else 0
        return self.num_epochs - done if self.trains else 0


def plan_runs(request: Request, manifests_of: ManifestsOf, folder: Path) -> list[PlannedRun]:
    """Return the runs of a study in the order of work; the trials are written to ``folder``.

    ``manifests_of`` prepares the corpora of hparams. Raises InputError for a fault of a corpus, a key or a value, for a
    base without held-out speakers, and for a variant that would be trained on them.
    """
    runs = _read_command_lines(request)
    manifests = {key: manifests_of(run.settings) for key, run in runs.items()}
    base = next(iter(runs))
    base_manifests, _ = manifests[base]
    _write_trials(runs[base].settings, base_manifests, folder)
    for place, (name, run) in {manifests[key][0]: (key[0], run) for key, run in runs.items()}.items():
        _check_not_trained_on(name, run.settings, place, folder)
    held_out = {f"trials ({name})": digest for name, digest in manifest_digests(base_manifests).items()}
    held_out.pop("trials (train.csv)")
    evaluated_from = code_digests(EVALUATION_CODE) | held_out
    return _share_networks([_plan_run(*key, run, *manifests[key], evaluated_from) for key, run in runs.items()])


def _read_command_lines(request: Request) -> dict[tuple[str, int], Run]:
    """Return (variant, seed) -> its hparams; InputError for a key that a variant does not have."""
    found = {}
    for name, seed in request.runs():
        folder = request.folder / name / str(seed)
        arguments = [str(request.variants[name]), *request.overrides[name]]
        found[name, seed] = read_command_line([*arguments, "--seed", str(seed), "--output_folder", str(folder)], "")
    return found


def _write_trials(base: dict, manifests: Path, folder: Path) -> None:
    """Write the held-out utterances of the base, with full paths, and their trials."""
    if not (manifests / "valid.csv").is_file():
        raise InputError("the base has no held-out speakers to compare variants on: give --valid_speakers 0.2")
    roots = data_roots(base["corpus"], base["data_folder"])
    write_manifest(read_utterances(manifests / "valid.csv", roots), folder / "valid.csv")
    write_trials(read_trials(manifests / "valid_trials.csv"), folder / "valid_trials.csv")


def _check_not_trained_on(variant: str, settings: dict, manifests: Path, trials: Path) -> None:
    """Raise InputError if a variant would be trained on a file of the trials.

    Files are compared instead of speakers, whose names differ where corpora are joined.
    """
    train = read_utterances(manifests / "train.csv", data_roots(settings["corpus"], settings["data_folder"]))
    parts = train, read_utterances(trials / "valid.csv", {})
    shared = set.intersection(*({str(Path(wav).resolve()) for wav in part["wav"]} for part in parts))
    if shared:
        raise InputError(
            f"variant {variant}: would be trained on {len(shared)} utterances of the base's held-out speakers "
            f"({min(shared)}), so it cannot be compared; hold out the same speakers (valid_speakers, split_seed)"
        )


def _plan_run(
    variant: str, seed: int, run: Run, manifests: Path, num_speakers: int, evaluated_from: dict[str, str]
) -> PlannedRun:
    """Return one run, with the action that it needs."""
    fingerprint = fingerprint_of(run, manifests)
    scoring = {key: str(run.settings[key]) for key in sorted(keys_that_affect("scoring"))}
    planned = PlannedRun(
        variant=variant,
        seed=seed,
        folder=Path(run.settings["output_folder"]),
        num_epochs=run.settings["number_of_epochs"],
        num_speakers=num_speakers,
        device=run.run_opts.device or infer_device(),
        arguments=run.arguments,
        fingerprint=fingerprint,
        evaluated_from={**evaluated_from, **scoring, "training": checksum(fingerprint)},
    )
    action, reason = _decide(planned)
    return replace(planned, action=action, reason=reason)


def _decide(run: PlannedRun) -> tuple[str, str]:
    """Return the action that ``run`` needs, and the reason."""
    state = run.state
    if not state:
        if any((run.folder / "save").glob("CKPT*")):
            return "retrain", "the run in its folder does not belong to a study (no study.json)"
        return "train", "new"
    if changes := differences(state.get("fingerprint", {}), run.fingerprint):
        return "retrain", _summary(changes)
    if not state.get("trained"):
        return "resume", f"after epoch {len(read_epochs(run.folder))} of {run.num_epochs}"
    if not state.get("evaluated_from"):
        return "evaluate", "not evaluated yet"
    if changes := differences(state["evaluated_from"], run.evaluated_from):
        return "evaluate", _summary(changes)
    return "keep", "finished, with the same configuration, data and code"


def _summary(reasons: Sequence[str]) -> str:
    """Join the first reasons, and count the rest."""
    more = f" and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
    return "; ".join(reasons[:MAX_REASONS]) + more


def _share_networks(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Train runs that differ in scoring only once: the others copy the network of the first, and come last."""
    first: dict[str, PlannedRun] = {}
    shared = []
    for run in runs:
        source = first.setdefault(checksum(run.fingerprint), run)
        if run.trains and source is not run:
            run = replace(run, action="copy", reason=f"trained as {source.name}", source=source.folder)
        shared.append(run)
    return sorted(shared, key=lambda run: run.action == "copy")


def find_variants(names: Sequence[str], base: str) -> dict[str, Path]:
    """Return name -> hparams file, the base first; ``names`` are names or paths of hparams files.

    Raises InputError for an unknown variant, listing the known ones, and for a duplicate.
    """
    found: dict[str, Path] = {}
    for path in map(_hparams_file, names):
        if path.stem in found:
            raise InputError(f"variant {path.stem}: named twice; leave one out")
        found[path.stem] = path
    base_file = _hparams_file(base)
    return {base_file.stem: base_file} | found


def _hparams_file(name: str) -> Path:
    known = {path.stem: path for path in hparams_files() or hparams_files(ROOT)}
    path = Path(name) if name.endswith(".yaml") else known.get(name)
    if path is None or not path.is_file():
        raise InputError(
            f"variant {name}{did_you_mean(name, known)}: not found; expected one of {', '.join(known)}, or a file: "
            "path/to/variant.yaml"
        )
    return path


def split_overrides(rest: Sequence[str], variants: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split arguments into ``--KEY value`` for all variants and ``--VARIANT.KEY value`` for one, which has priority.

    Returns the arguments of train.py per variant, and the seeds (as text) per variant with ``--VARIANT.seeds 1 2``.
    Raises InputError for a key that the study sets itself, an unknown variant or a duplicate.
    """
    common: dict[str, list[str]] = {}
    own: dict[str, dict[str, list[str]]] = {name: {} for name in variants}
    seeds: dict[str, list[str]] = {}
    for option, values in split_options(rest):
        name, dot, key = option.rpartition(".")
        if dot and name not in own:
            raise InputError(f"--{option}: {name} is no variant of this study; expected one of {', '.join(own)}")
        if key in SET_BY_THE_STUDY:
            raise InputError(f"--{option}: set by the study; {SET_BY_THE_STUDY[key]}")
        target = own[name] if dot else common
        if dot and key == "seeds":
            seeds[name] = values
        elif key in target:
            raise InputError(f"--{option}: given twice; leave one out")
        else:
            target[key] = [f"--{key}", *values]
    return {name: sum({**common, **given}.values(), []) for name, given in own.items()}, seeds
