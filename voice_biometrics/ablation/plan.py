"""What a study has to do: its variants and seeds, and for each run whether it is there, goes on or is trained anew.

A run is in ``<study folder>/<variant>/<seed>``; its ``study.json`` holds the fingerprint that it was trained from, what
training took, and what its evaluation was made from.

Prepare a study: manifests as train.py would write them now, the trials of all runs, and what each run needs.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from speechbrain.utils.distributed import infer_device

from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.ablation.fingerprint import Fingerprint, code_digests, digest, fingerprint_of, manifest_digests
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import write_json
from voice_biometrics.common.manifest import read_utterances, write_manifest
from voice_biometrics.common.trial_lists import read_trials, write_trials
from voice_biometrics.experiment.hparams import Run, hparams_files, keys_that_affect, read_command_line
from voice_biometrics.experiment.run_folder import read_epochs

CHOSEN_BY_THE_STUDY = {
    "output_folder": "give it once, for all runs",
    "manifest_folder": "each run has its own",
    "save_folder": "each run has its own",
    "seed": "use --seeds",
}
MAX_TOLD = 3  # reasons told of one run


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    variants : name -> hparams file, the base first; seeds : variant -> its seeds; overrides : variant -> arguments.
    """

    variants: dict[str, Path]
    seeds: dict[str, list[int]]
    overrides: dict[str, list[str]]
    folder: Path

    @property
    def base(self) -> str:
        return next(iter(self.variants))

    def runs(self) -> list[tuple[str, int]]:
        """Return (variant, seed), the first seed of each variant first: a study that is stopped has compared most."""
        longest = max(len(seeds) for seeds in self.seeds.values())
        return [
            (name, self.seeds[name][place])
            for place in range(longest)
            for name in self.variants
            if place < len(self.seeds[name])
        ]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: what it is to be trained from, and with which arguments of train.py."""

    variant: str
    seed: int
    folder: Path
    num_epochs: int
    num_speakers: int  # trained on
    device: str
    arguments: list[str]
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"


@dataclass
class RunState:
    """What ``study.json`` says of a run; the empty state is that of a folder without one."""

    fingerprint: Fingerprint | None = None
    num_starts: int = 0
    trained: bool = False
    train_cpu_s: float | None = None  # of the processes; None where one was killed
    hardware: str = ""
    git_commit: str = ""
    evaluated_from: dict | None = None

    @classmethod
    def read(cls, folder: Path) -> "RunState":
        try:
            content = json.loads((folder / "study.json").read_text(encoding="utf-8"))
            return cls(**{**content, "fingerprint": Fingerprint(**content["fingerprint"])})
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, folder: Path) -> None:
        write_json(asdict(self), folder / "study.json")


@dataclass(frozen=True)
class Decision:
    """What is to be done for a run: "keep", "evaluate", "go on", "train", "train anew" or "copy", and why.

    source : of a copy, the folder of the run whose network it takes.
    """

    action: str
    reason: str
    source: Path | None = None


@dataclass(frozen=True)
class Task:
    """A run, what it needs, and what its evaluation will be made from."""

    run: PlannedRun
    decision: Decision
    evaluated_from: dict

    @property
    def trains(self) -> bool:
        return self.decision.action in ("train", "train anew", "go on")

    @property
    def epochs_done(self) -> int:
        """Epochs of which the training goes on."""
        return len(read_epochs(self.run.folder)) if self.decision.action == "go on" else 0

    @property
    def epochs_to_do(self) -> int:
        return self.run.num_epochs - self.epochs_done if self.trains else 0


def decide(run: PlannedRun, evaluated_from: dict) -> Decision:
    """Say what ``run`` needs; ``evaluated_from`` is what its evaluation would be made from now."""
    state = RunState.read(run.folder)
    if state.fingerprint is None:
        if any((run.folder / "save").glob("CKPT*")):
            return Decision("train anew", "the run in its folder is not of a study (no study.json)")
        return Decision("train", "new")
    differences = run.fingerprint.differences(state.fingerprint)
    if differences:
        return Decision("train anew", told(differences))
    if not state.trained:
        return Decision("go on", f"after epoch {len(read_epochs(run.folder))} of {run.num_epochs}")
    if state.evaluated_from != evaluated_from:
        changed = [key for key, value in evaluated_from.items() if (state.evaluated_from or {}).get(key) != value]
        why = told([f"{key} differs" for key in changed]) if state.evaluated_from else "not evaluated yet"
        return Decision("evaluate", why)
    return Decision("keep", "finished, with the same configuration, data and code")


def share_networks(tasks: Sequence[Task]) -> list[Task]:
    """Let runs that only score in other ways copy the network of the first such run instead of training it again.

    Returns ``tasks`` in their order, those that copy last: what they copy is then under way or done.
    """
    first: dict[str, PlannedRun] = {}
    for task in tasks:
        first.setdefault(task.run.fingerprint.unnamed(), task.run)
    shared = []
    for task in tasks:
        source = first[task.run.fingerprint.unnamed()]
        if task.trains and source is not task.run:
            task = replace(task, decision=Decision("copy", f"trained as {source.name}", source.folder))
        shared.append(task)
    return sorted(shared, key=lambda task: task.decision.action == "copy")


def told(reasons: Sequence[str]) -> str:
    """Join reasons, those that say most first (both values, then files), and count the rest."""
    ordered = sorted(reasons, key=lambda reason: (", was " not in reason, not reason.startswith(("data: ", "code: "))))
    more = f" and {len(ordered) - MAX_TOLD} more" if len(ordered) > MAX_TOLD else ""
    return "; ".join(ordered[:MAX_TOLD]) + more


def set_aside(run: PlannedRun, study_folder: Path) -> Path:
    """Move the folder of a run that is trained anew to ``<study folder>/replaced``, and return where it is."""
    place = study_folder / "replaced"
    number = 1
    while (aside := place / f"{run.variant}-{run.seed}-{number}").exists():
        number += 1
    place.mkdir(parents=True, exist_ok=True)
    return run.folder.rename(aside)


def find_variants(names: Sequence[str], base: str) -> dict[str, Path]:
    """Return name -> hparams file, the base first; a name stands for a file of hparams/ablations or hparams.

    Raises InputError for a variant that is not there, saying which are, and for one that is named twice.
    """
    found: dict[str, Path] = {}
    for name in names:
        path = _hparams_file(name)
        if path.stem in found:
            raise InputError(f"variant {path.stem}: named twice; leave one out")
        found[path.stem] = path
    base_file = _hparams_file(base)
    return {base_file.stem: base_file} | found


def _hparams_file(name: str) -> Path:
    if name.endswith(".yaml"):
        if Path(name).is_file():
            return Path(name)
        raise InputError(f"{name}: the hparams file is missing; {_what_there_is()}")
    for path in hparams_files():
        if path.stem == name:
            return path
    close = difflib.get_close_matches(name, _names(), n=1)
    raise InputError(f"variant {name}{f' (did you mean {close[0]}?)' if close else ''}: unknown; {_what_there_is()}")


def _names() -> list[str]:
    return [path.stem for path in hparams_files()]


def _what_there_is() -> str:
    return f"there are {', '.join(_names())}; or give a file: path/to/variant.yaml"


def split_overrides(rest: Sequence[str], variants: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Share out the arguments that are not the study's own: ``--KEY value`` to all, ``--VARIANT.KEY value`` to one.

    What is given to one variant takes the place of what is given to all.
    Returns the arguments of train.py per variant, and the seeds (as text) per variant that has its own
    (``--VARIANT.seeds 1 2``). Raises InputError for a key that the study chooses itself, or an argument out of place.
    """
    common: dict[str, list[str]] = {}
    own: dict[str, dict[str, list[str]]] = {name: {} for name in variants}
    seeds: dict[str, list[str]] = {}
    for group in _groups(rest):
        option, _, value = group[0].removeprefix("--").partition("=")
        name, dot, key = option.rpartition(".")
        if dot and name not in own:
            raise InputError(f"--{option}: {name} is no variant of this study; there are {', '.join(own)}")
        if key in CHOSEN_BY_THE_STUDY:
            raise InputError(f"--{option}: chosen by the study; {CHOSEN_BY_THE_STUDY[key]}")
        if dot and key == "seeds":
            seeds[name] = [value, *group[1:]] if value else group[1:]
        else:
            target = own[name] if dot else common
            if key in target:
                raise InputError(f"--{option}: given twice; leave one out")
            target[key] = [f"--{key}" + (f"={value}" if value else ""), *group[1:]]
    return {name: sum({**common, **given}.values(), []) for name, given in own.items()}, seeds


def _groups(arguments: Sequence[str]) -> list[list[str]]:
    """Split arguments before each option: [["--lr", "0.01"], ["--noprogressbar"]]."""
    groups: list[list[str]] = []
    for argument in arguments:
        if argument.startswith("--"):
            groups.append([argument])
        elif groups:
            groups[-1].append(argument)
        else:
            raise InputError(f"{argument}: expected --key value; variants come first")
    return groups


def read_runs(request: Request) -> dict[tuple[str, int], Run]:
    """Return the command line of train.py for each run of the study, read.

    Raises InputError when a variant has no such key: then the key is to be given to one variant only.
    """
    found = {}
    for name, seed in request.runs():
        folder = request.folder / name / str(seed)
        arguments = [str(request.variants[name]), *request.overrides[name]]
        try:
            run = read_command_line([*arguments, "--seed", str(seed), "--output_folder", str(folder)], "")
        except InputError as error:
            if "not a key of" not in str(error):
                raise
            raise InputError(f"{error}; for a key that one variant has: --VARIANT.KEY value") from error
        found[name, seed] = run
    return found


def plan_tasks(request: Request, evaluation_script: Path, folder: Path) -> list[Task]:
    """Return what each run of the study needs, in the order of work; manifests and trials are written to ``folder``.

    Raises InputError for a fault of a corpus, a key or a value, when the base holds out no speakers, and when a variant
    would be trained on them.
    """
    runs = read_runs(request)
    manifests = _prepare_each(list(runs.values()), folder / "manifests")
    base = next(run for (name, _), run in runs.items() if name == request.base)
    base_manifests, _ = manifests[Settings.from_hparams(base.settings)]
    _write_trials(base, base_manifests, folder / "trials")
    evaluated_from = code_digests([evaluation_script]) | _trial_digests(base_manifests)
    for settings, name in {Settings.from_hparams(run.settings): name for (name, _), run in runs.items()}.items():
        _check_unheard(name, settings, manifests[settings][0], folder / "trials")
    tasks = []
    for (name, seed), run in runs.items():
        planned = _planned(name, seed, run, *manifests[Settings.from_hparams(run.settings)])
        made_from = {**evaluated_from, **_scoring(run), "training": planned.fingerprint.sha256()}
        tasks.append(Task(planned, decide(planned, made_from), made_from))
    return share_networks(tasks)


def _prepare_each(runs: Sequence[Run], folder: Path) -> dict[Settings, tuple[Path, int]]:
    """Write the manifests of each corpus setting afresh, and return their folder and number of training speakers."""
    found: dict[Settings, tuple[Path, int]] = {}
    for settings in dict.fromkeys(Settings.from_hparams(run.settings) for run in runs):
        place = folder / digest(repr(settings).encode())[:12]
        (place / "prepared.json").unlink(missing_ok=True)  # headers are read again: a file may be another by now
        found[settings] = place, prepare(settings, place)["num_speakers"]
    return found


def _write_trials(base: Run, manifests: Path, folder: Path) -> None:
    """Write the base's held-out utterances, with their full paths, and trials."""
    if not (manifests / "valid.csv").is_file():
        raise InputError("the base holds out no speakers, so there is nothing to compare by: give --valid_speakers 0.2")
    replacements = Settings.from_hparams(base.settings).replacements()
    write_manifest(read_utterances(manifests / "valid.csv", replacements), folder / "valid.csv")
    write_trials(read_trials(manifests / "valid_trials.csv"), folder / "valid_trials.csv")


def _check_unheard(variant: str, settings: Settings, manifests: Path, trials: Path) -> None:
    """Raise InputError when a variant would be trained on a file of the trials.

    By file and not by speaker: where corpora are joined the same speaker has another name.
    """
    train = read_utterances(manifests / "train.csv", settings.replacements())
    parts = train, read_utterances(trials / "valid.csv", {})
    heard = set.intersection(*({str(Path(wav).resolve()) for wav in part["wav"]} for part in parts))
    if heard:
        raise InputError(
            f"variant {variant}: would be trained on {len(heard)} utterances of the base's held-out speakers "
            f"({min(heard)}), so the two could not be compared; hold out the same (valid_speakers, split_seed)"
        )


def _trial_digests(manifests: Path) -> dict[str, str]:
    """Return the checksums of the manifests that the trials come from; a corpus that was moved keeps them."""
    return {f"trials ({name})": value for name, value in manifest_digests(manifests).items() if "valid" in name}


def _scoring(run: Run) -> dict[str, str]:
    """Return the keys that change scores but not training."""
    return {key: str(run.settings[key]) for key in sorted(keys_that_affect("scoring"))}


def _planned(name: str, seed: int, run: Run, manifests: Path, num_speakers: int) -> PlannedRun:
    return PlannedRun(
        variant=name,
        seed=seed,
        folder=Path(run.settings["output_folder"]),
        num_epochs=run.settings["number_of_epochs"],
        num_speakers=num_speakers,
        device=run.run_opts.device or infer_device(),
        arguments=run.arguments,
        fingerprint=fingerprint_of(run, num_speakers, manifests),
    )
