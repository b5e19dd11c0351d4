"""The run folder: one run at a time, what it was started with, and its figures per epoch."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.experiment.hparams import keys_that_affect


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold the run folder, made if need be, for one run; InputError while another process holds it.

    The system lets go of it when the process ends, however it ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: another run is going on in this folder; wait for it, or take another --output_folder or --seed"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --output_folder") from error
    with lock:
        yield


def resolve_hparams(text: str, overrides: str, folder: Path, num_speakers: int | None = None) -> str:
    """Return the hparams as YAML with all references resolved, once the checkpoints in ``folder`` agree with them.

    ``num_speakers`` is the number that the manifest has, None before it is known. Raises InputError, naming the keys,
    when a checkpoint in the folder was trained with other values.
    """
    path = folder / "hyperparams.yaml"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if num_speakers is None:
        num_speakers = (YAML().load(before) or {}).get("num_speakers", 0)
    resolved = resolve_references(text, f"{overrides}\nnum_speakers: {num_speakers}".strip()).read()
    changed = _changed_keys(before, resolved) if any((folder / "save").glob("CKPT*")) else []
    if changed:
        raise InputError(
            f"{folder}: the checkpoint there was trained with another {', '.join(changed)}; start again with the same "
            "values, or train into another folder (--output_folder)"
        )
    return resolved


def record_hparams(resolved: str, folder: Path) -> None:
    """Write ``hyperparams.yaml``."""
    with written_whole(folder / "hyperparams.yaml") as temporary:
        temporary.write_text(resolved, encoding="utf-8")


def _changed_keys(before: str, after: str) -> list[str]:
    """Return the top-level keys whose values differ, those that may change left out."""
    free = keys_that_affect("free", "scoring")
    old, new = values_of(before), values_of(after)
    return [key for key in {**old, **new} if key not in free and old.get(key) != new.get(key)]


def values_of(resolved: str) -> dict[str, str]:
    """Return each key's value as YAML without comments, but with tags: two classes with the same arguments differ."""
    values = {}
    for key, node in YAML(typ="safe", pure=True).compose(resolved or "{}").value:
        text = io.StringIO()
        YAML(typ="safe", pure=True).serialize(node, text)
        values[key.value] = text.getvalue().removesuffix("...\n").strip()
    return values


def read_epochs(folder: Path) -> list[dict]:
    """Return the rows of ``metrics.csv``, one an epoch; none when it is not there."""
    path = folder / "metrics.csv"
    return pd.read_csv(path).to_dict("records") if path.is_file() else []


def record_epoch(row: dict, folder: Path) -> list[dict]:
    """Add ``row`` to ``metrics.csv`` in place of this epoch and later ones, and return all rows."""
    rows = [earlier for earlier in read_epochs(folder) if earlier["epoch"] < row["epoch"]] + [row]
    with written_whole(folder / "metrics.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return rows
