"""How a model was made, so that somebody else can make it again: commands, seeds, versions, checksums of the data."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from voice_biometrics.deploy.finished_run import FinishedRun
from voice_biometrics.hparams import merged_tree, plain_settings
from voice_biometrics.run_folder import FREE_KEYS

ROOT = Path(__file__).parents[2]
PLACES = ("hparams", "hparams/ablations")
ALWAYS_SAID = ("corpus", "data_folder", "valid_speakers", "split_seed", "seed")
NOT_SAID = {"name", "manifest_folder", "save_folder", "num_speakers"} | FREE_KEYS - {"data_folder"}
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "soundfile", "soxr", "onnx", "onnxruntime")


def how_to_reproduce(run: FinishedRun, others: Sequence[FinishedRun]) -> str:
    """Return the commands that make a model folder again, and what they were run with, as Markdown.

    ``others`` are the runs that the calibration is from, none where it is from ``run``.
    """
    folders = ["RUN", *(f"FOLD{number}" for number in range(1, len(others) + 1))]
    commands = [training_command(each, folder) for each, folder in zip((run, *others), folders, strict=True)]
    export = f"python export.py RUN --data_folder {_places(run.settings['corpus'])}"
    commands.append(export + (f" --calibration_from {' '.join(folders[1:])}" if others else ""))
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        f"- exported with Python {platform.python_version()}, {packages}; `requirements.txt` names them all",
        "- SHA-256 of what was trained on (`manifests/train.csv` of RUN: names, lengths in samples, speakers): "
        f"`{manifest_digest(run)}`",
        "- on another processor the figures differ in the last digits: bf16 and the order of sums are its own",
    ]
    return "```bash\n" + "\n".join(commands) + "\n```\n\n" + "\n".join(lines)


def training_command(run: FinishedRun, folder: str) -> str:
    """Return the command that trains a run into ``folder``: every plain key that differs from its hparams file."""
    name = run.settings["name"]
    found = [file for place in PLACES if (file := ROOT / place / f"{name}.yaml").is_file()]
    before = plain_settings(merged_tree(found[0]), "") if found else {}
    file = found[0].relative_to(ROOT).as_posix() if found else f"{name}.yaml"
    after = run.settings | {"data_folder": _places(run.settings["corpus"]), "output_folder": folder}
    told = [key for key in ALWAYS_SAID if key in after]
    told += [key for key in before if key in after and key not in NOT_SAID | {*told} and after[key] != before[key]]
    return " ".join(["python train.py", file, *(f"--{key} {_typed(after[key])}" for key in told)])


def manifest_digest(run: FinishedRun) -> str:
    """Return the SHA-256 of the manifest of a run's training part."""
    return hashlib.sha256(run.training_manifest.read_bytes()).hexdigest()


def weights_metadata(run: FinishedRun, version: str, fingerprint: str) -> Mapping[str, str]:
    """Return what a file of the weights says of itself."""
    command = training_command(run, "RUN")
    return {
        "name": run.settings["name"], "version": version, "fingerprint": fingerprint, "training": command,
        "training_manifest_sha256": manifest_digest(run),
    }  # fmt: skip


def _places(corpora: str) -> str:
    """Return folders of corpora that stand for the user's own."""
    return ",".join(f"/path/to/{corpus.strip()}" for corpus in corpora.split(","))


def _typed(value: Any) -> str:
    """Write a value as it is typed on a command line, folders of this machine by their last name."""
    text = str(value)
    if isinstance(value, str) and Path(text).is_absolute() and not text.startswith("/path/to/"):
        text = f"/path/to/{Path(text).name}"
    return f'"{text}"' if not text or set(text) & set(" []{}*") else text
