"""Prepare a study: manifests as train.py would write them now, the trials of all runs, and what each run needs."""

from collections.abc import Sequence
from pathlib import Path

from speechbrain.utils.distributed import infer_device

from data_prep.manifest import write_manifest
from data_prep.prepare import prepare
from data_prep.settings import Settings
from data_prep.trials import read_trials, write_trials
from voice_biometrics.dataio import read_utterances
from voice_biometrics.errors import InputError
from voice_biometrics.hparams import Run
from voice_biometrics.run_folder import SCORING_KEYS
from voice_biometrics.study.fingerprint import code_digests, digest, fingerprint_of, manifest_digests
from voice_biometrics.study.plan import PlannedRun, Request, Task, decide, read_runs, share_networks


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
    return {key: str(run.settings[key]) for key in sorted(SCORING_KEYS)}


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
