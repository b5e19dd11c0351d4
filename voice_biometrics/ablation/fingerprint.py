"""Fingerprint of a training run (config, data, code); a finished run with the same fingerprint is reused.

A fingerprint is a dict from names to values or checksums:

- the resolved hparams that affect data and model, and those options of SpeechBrain that change training;
- ``data: ...``: the manifests, and each file or folder that a key names (a checkpoint to start from, a noise corpus; of
  a folder the names and sizes). Audio is not read;
- ``code: ...``: ``train.py``, modules in ``models``, ``augmentation`` and ``training`` and the audio reader, without
  comments and layout; and the versions of the packages that compute.
"""

import ast
import functools
import hashlib
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from hyperpyyaml import resolve_references
from speechbrain.utils.run_opts import RunOptions

from voice_biometrics.common.files import sha256_of
from voice_biometrics.experiment.hparams import Run, keys_that_affect
from voice_biometrics.experiment.run_folder import values_of

ROOT = Path(__file__).parents[2]
VERSION = "version of the fingerprint"
FREE_OPTIONS = {
    "device", "noprogressbar", "tqdm_colored_bar", "tqdm_barcolor", "ckpt_interval_minutes", "ckpt_interval_steps",
    "distributed_backend", "log_config", "param_file", "overridden_args",
}  # fmt: skip
MANIFESTS = ("train.csv", "valid.csv", "valid_trials.csv")
TRAINING_CODE = (
    "train.py", "voice_biometrics/models", "voice_biometrics/augmentation", "voice_biometrics/training",
    "voice_biometrics/common/audio.py",
)  # fmt: skip
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "soundfile", "soxr")
SEED = re.compile(r"\bseed: \d+")
SHOWN_LENGTH = 40  # characters; longer values are not printed


def fingerprint_of(run: Run, manifests: Path) -> dict[str, str]:
    """Return the fingerprint of ``run`` with the present code, on ``manifests``."""
    resolved = resolve_references(run.text, run.overrides).read()
    resolved = resolved.replace(run.settings["output_folder"], "<run folder>")  # a study may be moved
    ignored = keys_that_affect("free", "scoring")
    config = {key: value for key, value in values_of(resolved).items() if key not in ignored}
    data = manifest_digests(manifests) | _named_files(run.settings, config)
    code = code_digests(TRAINING_CODE) | {name: version(name) for name in PACKAGES}
    return (
        {VERSION: "2", **config, **_options(run.run_opts)}
        | {f"data: {name}": value for name, value in data.items()}
        | {f"code: {name}": value for name, value in code.items()}
    )


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the differences of two fingerprints, each in a few words, such as ``margin_rad is 0.3, was 0.2``."""
    if before.get(VERSION) != now.get(VERSION):
        return ["started by another version of this program, whose fingerprint cannot be compared"]
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [_difference(name, before.get(name), now.get(name)) for name in changed]


def _difference(name: str, before: str | None, now: str | None) -> str:
    if before is None or now is None:
        return f"{name} is {'gone' if now is None else 'new'}"
    if any("\n" in value or len(value) > SHOWN_LENGTH for value in (before, now)):
        return f"{name} differs"
    return f"{name} is {now}, was {before}"


def checksum(fingerprint: dict[str, str]) -> str:
    """Return one checksum of a fingerprint."""
    return digest(repr(sorted(fingerprint.items())).encode())


def recipe_of(fingerprint: dict[str, str]) -> str:
    """Return a checksum that is equal for runs that differ in the seed and the amount of their data only."""
    ignored = {"train_speakers", "crop_every_s", "seed", "__set_seed", VERSION}
    names = [name for name in fingerprint if name not in ignored and not name.startswith(("data: ", "code: "))]
    lines = [f"{name}: {fingerprint[name]}" for name in sorted(names)]
    return digest(SEED.sub("seed: any", "\n".join(lines)).encode())


def manifest_digests(folder: Path) -> dict[str, str]:
    """Return the checksum of each manifest in ``folder``."""
    return {name: sha256_of(folder / name) for name in MANIFESTS if (folder / name).is_file()}


def code_digests(places: Iterable[str]) -> dict[str, str]:
    """Return module -> checksum of its syntax tree, for Python files and folders below the repository root."""
    paths = [path for place in places for path in (ROOT / place, *sorted((ROOT / place).rglob("*.py")))]
    files = [path for path in paths if path.is_file()]
    return {path.relative_to(ROOT).as_posix(): _digest_of_code(path.read_text(encoding="utf-8")) for path in files}


@functools.cache
def _digest_of_code(text: str) -> str:
    return digest(ast.dump(ast.parse(text)).encode())


def digest(content: bytes) -> str:
    """Return the SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def _options(run_opts: RunOptions) -> dict[str, str]:
    """Return the options of SpeechBrain that were given and change training."""
    default = RunOptions().as_dict()
    given = {key: value for key, value in run_opts.as_dict().items() if key not in FREE_OPTIONS}
    return {f"--{key}": str(value) for key, value in given.items() if value != default.get(key)}


def _named_files(settings: dict, config: dict[str, str]) -> dict[str, str]:
    """Return the checksums of files and folders that are values of keys, except the run folder and the corpus."""
    paths = {key: Path(value) for key, value in settings.items() if isinstance(value, str) and value}
    outside = {key: path for key, path in paths.items() if "<run folder>" not in config.get(key, "<run folder>")}
    return {f"files of {key}": _digest_of_path(path) for key, path in outside.items() if path.exists()}


def _digest_of_path(path: Path) -> str:
    if path.is_file():
        return sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest(repr([(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]).encode())
