"""The run folder: its lock, its hparams, and its figures per epoch."""

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
from voice_biometrics.experiment.hparams import RECORD, RENAMED, as_yaml, default_tree, keys_that_affect, merge


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Lock the run folder, created if needed, for one run; InputError if another process has locked it.

    The system releases the lock when the process ends, even by a kill.
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


def check_same_hparams(text: str, overrides: str, folder: Path) -> None:
    """Raise InputError, naming the keys, if a checkpoint in ``folder`` was trained with other hparams.

    A key, or an argument of a class, that is newer than the run may have its default.
    """
    path = folder / RECORD
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not before.strip() or not has_checkpoint(folder):
        return
    free = keys_that_affect("free", "scoring")
    old, new = values_of(before), values_of(resolve_references(text, overrides).read())
    filled = values_of(resolve_references(as_yaml(merge(default_tree(), YAML().load(before)))).read())
    changed = [key for key in {**old, **new} if key not in free and new.get(key) not in (old.get(key), filled.get(key))]
    if RENAMED.keys() & old.keys():
        raise InputError(
            f"{folder}: trained by an older version of train.py (key {min(RENAMED.keys() & old.keys())}); it can be "
            "evaluated and exported by naming its folder, but not trained further: use another --output_folder"
        )
    if changed:
        raise InputError(
            f"{folder}: the checkpoint there was trained with another {', '.join(changed)}; give the same values, or "
            f"train into another folder (--output_folder), from these weights if you like (--pretrained {folder})"
        )


def has_checkpoint(folder: Path) -> bool:
    """Return True if something was trained in a run folder."""
    return any((folder / "save").glob("CKPT*"))


def write_hparams(text: str, overrides: str, folder: Path) -> None:
    """Write the hparams: ``merged.yaml`` with references kept, ``hyperparams.yaml`` with overrides, all resolved."""
    for name, content in (("merged.yaml", text), (RECORD, resolve_references(text, overrides).read())):
        with written_whole(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def values_of(resolved: str) -> dict[str, str]:
    """Return each key's value as YAML without comments, but with tags: two classes with the same arguments differ."""
    values = {}
    for key, node in YAML(typ="safe", pure=True).compose(resolved or "{}").value:
        text = io.StringIO()
        YAML(typ="safe", pure=True).serialize(node, text)
        values[key.value] = text.getvalue().removesuffix("...\n").strip()
    return values


def read_epochs(folder: Path) -> list[dict]:
    """Return the rows of ``metrics.csv``, one per epoch; empty without the file."""
    path = folder / "metrics.csv"
    return pd.read_csv(path).to_dict("records") if path.is_file() else []


def record_epoch(row: dict, folder: Path) -> list[dict]:
    """Add ``row`` to ``metrics.csv``, replacing this epoch and later ones, and return all rows."""
    rows = [earlier for earlier in read_epochs(folder) if earlier["epoch"] < row["epoch"]] + [row]
    with written_whole(folder / "metrics.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return rows
