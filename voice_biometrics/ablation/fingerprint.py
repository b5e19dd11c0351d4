"""What a trained network follows from - configuration, data, code - so that a finished run is reused or told apart.

- config: every key of the resolved hparams, and SpeechBrain's options that change training. Left out is what may
  change while a run is stopped (free and scoring keys, ``FREE_OPTIONS``).
- data: checksums of the training manifest, of the held-out one and of its trials; and for each key whose value is a
  file or folder (a checkpoint to start from, a noise corpus) a checksum of the file's bytes, or of the folder's names
  and sizes. The audio itself is not read.
- code: the modules of this package that train.py imports, directly or not, and those that the hparams name, without
  comments, docstrings and layout; and the versions of the packages that compute. Left out are ``data_prep``, whose work
  the manifests show, and what draws (``plots*.py``).
"""

import ast
import functools
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hyperpyyaml import resolve_references
from speechbrain.utils.run_opts import RunOptions

from voice_biometrics.experiment.hparams import Run, keys_that_affect
from voice_biometrics.experiment.run_folder import values_of

ROOT = Path(__file__).parents[2]
FREE_OPTIONS = {
    "device", "noprogressbar", "tqdm_colored_bar", "tqdm_barcolor", "ckpt_interval_minutes", "ckpt_interval_steps",
    "distributed_backend", "log_config", "param_file", "overridden_args",
}  # fmt: skip
MANIFESTS = ("train.csv", "valid.csv", "valid_trials.csv")
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "soundfile", "soxr")
NOT_LEARNT_FROM = ("data_prep/", "voice_biometrics/report/", "voice_biometrics/training/curves")
NAMED_MODULE = re.compile(r"!(?:new|name|apply):([\w.]+)")
NOT_OF_THE_RECIPE = re.compile(r"\b(seed|out_neurons): \d+")
SHOWN_LENGTH = 40  # characters of a value that is told; of a longer one only the key is


@dataclass(frozen=True)
class Fingerprint:
    """Key -> YAML text of its value; file -> SHA-256; file or package -> SHA-256 or version."""

    config: dict[str, str]
    data: dict[str, str]
    code: dict[str, str]

    def differences(self, before: "Fingerprint") -> list[str]:
        """Say what differs from ``before``, a few words each: ``margin_rad is 0.3, was 0.2``."""
        told = [
            _told(key, before.config.get(key), self.config.get(key)) for key in _changed(before.config, self.config)
        ]
        told += [f"data: {name} differs" for name in _changed(before.data, self.data)]
        for name in _changed(before.code, self.code):
            is_file = name.endswith(".py")
            told.append(f"code: {name} differs" if is_file else _told(name, before.code.get(name), self.code.get(name)))
        return told

    def unnamed(self) -> str:
        """Return one checksum of everything but the variant's name: runs that share it train the same network."""
        config = {key: value for key, value in self.config.items() if key != "name"}
        return Fingerprint(config, self.data, self.code).sha256()

    def recipe(self) -> str:
        """Return one checksum of how it is trained, whatever the seed and the speakers it is trained on."""
        apart = keys_that_affect("data") | {"seed", "__set_seed"}
        lines = [f"{key}: {value}" for key, value in sorted(self.config.items()) if key not in apart]
        return digest(NOT_OF_THE_RECIPE.sub(r"\1: any", "\n".join(lines)).encode())

    def sha256(self) -> str:
        """Return one checksum of everything."""
        return digest(repr([sorted(part.items()) for part in (self.config, self.data, self.code)]).encode())


def fingerprint_of(run: Run, num_speakers: int, manifests: Path) -> Fingerprint:
    """Return what ``run`` would be trained from now: ``num_speakers`` are those of its ``manifests``."""
    overrides = f"{run.overrides}\nnum_speakers: {run.count_classes(num_speakers)}".strip()
    resolved = resolve_references(run.text, overrides).read()
    resolved = resolved.replace(run.settings["output_folder"], "<run folder>")  # a study may be moved
    free = keys_that_affect("free", "scoring")
    config = {key: value for key, value in values_of(resolved).items() if key not in free}
    return Fingerprint(
        config=config | _options(run.run_opts),
        data=manifest_digests(manifests) | _named_files(run.settings, config),
        code=code_digests([ROOT / "train.py", *_named_modules(resolved)]) | {name: version(name) for name in PACKAGES},
    )


def manifest_digests(folder: Path) -> dict[str, str]:
    """Return the checksums of the manifests of a folder, those that are there."""
    return {name: digest((folder / name).read_bytes()) for name in MANIFESTS if (folder / name).is_file()}


def code_digests(entries: Iterable[Path]) -> dict[str, str]:
    """Return path below the root -> checksum of the code, for ``entries`` and all that they import of this project."""
    found: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        path = waiting.pop()
        name = path.relative_to(ROOT).as_posix()
        if name in found or name.startswith(NOT_LEARNT_FROM):
            continue
        found[name], imported = _read_code(path.read_text(encoding="utf-8"))
        waiting += [file for module in imported if (file := _file_of(module))]
    return found


@functools.cache
def _read_code(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the checksum of a module without comments, docstrings and layout, and the names that it imports."""
    tree = ast.parse(text)
    imported = tuple(_imported(tree))
    return digest(ast.unparse(_without_docstrings(tree)).encode()), imported


def digest(content: bytes) -> str:
    """Return the SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def _options(run_opts: RunOptions) -> dict[str, str]:
    """Return SpeechBrain's options that were given and change training."""
    usual = RunOptions().as_dict()
    given = {key: value for key, value in run_opts.as_dict().items() if key not in FREE_OPTIONS}
    return {f"--{key}": str(value) for key, value in given.items() if value != usual.get(key)}


def _named_files(settings: dict, config: dict[str, str]) -> dict[str, str]:
    """Return the checksums of the files and folders that are values of keys, the run's own and the corpus left out."""
    paths = {key: Path(value) for key, value in settings.items() if isinstance(value, str) and value}
    outside = {key: path for key, path in paths.items() if "<run folder>" not in config.get(key, "<run folder>")}
    return {f"files of {key}": _digest_of_path(path) for key, path in outside.items() if path.exists()}


def _digest_of_path(path: Path) -> str:
    if path.is_file():
        return digest(path.read_bytes())
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest(repr([(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]).encode())


def _named_modules(resolved: str) -> list[Path]:
    """Return the files of this project that hold the classes and functions that the hparams name."""
    return [file for name in NAMED_MODULE.findall(resolved) if (file := _file_of(name.rpartition(".")[0]))]


def _file_of(module: str) -> Path | None:
    """Return the file of a module of this project; None for any other name."""
    place = ROOT.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py") if module else ()
    return next((file for file in candidates if file.is_file()), None)


def _imported(tree: ast.Module) -> list[str]:
    """Return the names that may be modules, of all imports of a file, those within functions too."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()
    return tree


def _changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def _told(key: str, before: str | None, now: str | None) -> str:
    """Say the two values of a key where they are short."""
    if before is None or now is None:
        return f"{key} is {'gone' if now is None else 'new'}"
    if any("\n" in value or len(value) > SHOWN_LENGTH for value in (before, now)):
        return f"{key} differs"
    return f"{key} is {now}, was {before}"
