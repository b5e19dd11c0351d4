"""Manifests: one CSV row an utterance, in the columns that SpeechBrain's loaders expect.

``ID, duration, wav, start, stop, spk_id`` and further columns of metadata (``gender``, ``age``, ...): ``duration`` in
seconds, ``wav`` beginning with ``$data_root`` (or ``$data_root.<corpus>`` where corpora are joined), ``start`` and
``stop`` in samples at the file's own rate. Rows are sorted by ``ID``, so two runs write the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from voice_biometrics.errors import InputError
from voice_biometrics.files import written_whole

COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]
NUMBERS = {"duration": float, "start": int, "stop": int}


def read_manifest(path: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Return a manifest as a table: ``duration`` float, ``start`` and ``stop`` int, all else text.

    ``columns`` are those that it must have: where no audio is read, ``ID`` and ``spk_id`` will do. Raises InputError
    when it is missing or empty, lacks a column, has a malformed number or an ID twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: the manifest is missing; prepare the corpus first (python -m data_prep --help)")
    try:
        manifest = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a CSV with the columns {', '.join(columns)}: {error}") from error
    missing = [column for column in columns if column not in manifest.columns]
    if missing:
        raise InputError(f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} missing")
    if manifest.empty:
        raise InputError(f"{path}: expected at least one utterance, found none")
    try:
        manifest = manifest.astype({name: kind for name, kind in NUMBERS.items() if name in manifest})
    except ValueError as error:
        raise InputError(f"{path}: expected numbers as duration, start and stop: {error}") from error
    check_unique_ids(manifest, str(path))
    return manifest


def check_unique_ids(manifest: pd.DataFrame, name: str) -> None:
    """Raise InputError naming the first ID that stands twice, and both files."""
    twice = manifest["ID"].duplicated(keep=False)
    if twice.any():
        first = manifest[twice].iloc[0]["ID"]
        stands_for = "wav" if "wav" in manifest else "spk_id"
        found = manifest.loc[manifest["ID"] == first, stands_for].tolist()
        raise InputError(f"{name}: utterance ID {first} stands for {' and '.join(found[:2])}; rename or remove one")


def write_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write ``manifest`` sorted by ``ID``, whole or not at all."""
    further = [column for column in manifest.columns if column not in COLUMNS]
    with written_whole(path) as temporary:
        manifest[COLUMNS + further].sort_values("ID").to_csv(temporary, index=False)


def describe(manifest: pd.DataFrame) -> str:
    """Say how much a manifest holds: utterances, speakers, hours."""
    hours = manifest["duration"].sum() / 3600
    return f"{len(manifest):,} utterances, {manifest['spk_id'].nunique():,} speakers, {hours:.2f} hours"
