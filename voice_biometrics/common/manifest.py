"""Manifests: one CSV row per utterance, with the columns that SpeechBrain's loaders expect.

``ID, duration, wav, start, stop, spk_id`` and further columns of metadata (``gender``, ``age``, ...): ``duration`` in
seconds, ``wav`` beginning with ``$data_root`` (``$data_root.<corpus>`` if corpora are joined), ``start`` and
``stop`` in samples at the file's own rate; a ``wav`` that ends with ``#channel=2`` is one channel of a
file. Rows are sorted by ``ID``, so two runs write identical files.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from voice_biometrics.common.audio import containing_file
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import read_json, written_whole

COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]
NUMBERS = {"duration": float, "start": int, "stop": int}


class CorpusFolder(NamedTuple):
    """One of the corpora of a run."""

    label: str  # name of the corpus, numbered if repeated: voxceleb, voxceleb_2
    corpus: str
    folder: Path


def corpus_folders(corpus: str, data_folder: str) -> list[CorpusFolder]:
    """Return the corpora named by the hparams keys ``corpus`` and ``data_folder``, comma-separated lists.

    Raises InputError for a different number of corpora and folders.
    """
    names, folders = ([item.strip() for item in text.split(",") if item.strip()] for text in (corpus, data_folder))
    if len(names) == 1:
        folders = [data_folder]  # whose name may have a comma
    if len(names) != len(folders):
        raise InputError(f"{len(names)} corpora, {len(folders)} data folders: name as many folders as corpora")
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    labels = [name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True)]
    return [CorpusFolder(*entry) for entry in zip(labels, names, map(Path, folders), strict=True)]


def data_roots(corpus: str, data_folder: str) -> dict[str, str]:
    """Return the folder of each root variable: ``data_root``, or ``data_root.<label>`` with joined corpora."""
    entries = corpus_folders(corpus, data_folder)
    return {root_variable(entry.label, len(entries) > 1): str(entry.folder) for entry in entries}


def root_variable(label: str, joined: bool) -> str:
    """Return the variable that manifests use for a corpus' folder."""
    return f"data_root.{label}" if joined else "data_root"


def read_record(manifest_folder: Path) -> dict:
    """Return the record of an earlier preparation (``prepared.json``), or an empty dict."""
    return read_json(manifest_folder / "prepared.json")


def read_manifest(path: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Return a manifest as a table: ``duration`` float, ``start`` and ``stop`` int, all else text.

    ``columns`` are required; ``ID`` and ``spk_id`` suffice where no audio is read. Raises InputError for a missing or
    empty manifest, a missing column, a malformed number or a duplicate ID.
    """
    return _checked(next(_read_blocks(path, columns, None)), path, columns)


def manifest_blocks(path: Path, num_rows: int) -> Iterator[pd.DataFrame]:
    """Yield a manifest in blocks of ``num_rows``, so that memory does not grow with it.

    Otherwise as ``read_manifest``, but a duplicate ID is only found within a block.
    """
    for block in _read_blocks(path, COLUMNS, num_rows):
        yield _checked(block.reset_index(drop=True), path, COLUMNS)


def _read_blocks(path: Path, columns: Sequence[str], num_rows: int | None) -> Iterator[pd.DataFrame]:
    """Yield a CSV as text in blocks (None: as one)."""
    if not path.is_file():
        raise InputError(f"{path}: manifest not found; prepare the corpus first (python prepare.py --help)")
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", chunksize=num_rows)
        yield from [found] if num_rows is None else found
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a CSV with the columns {', '.join(columns)}: {error}") from error


def _checked(manifest: pd.DataFrame, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a table with its numbers as numbers; InputError for what ``read_manifest`` refuses."""
    missing = [column for column in columns if column not in manifest.columns]
    if missing:
        raise InputError(f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} missing")
    if manifest.empty:
        raise InputError(f"{path}: expected at least one utterance, found none")
    try:
        manifest = manifest.astype({name: kind for name, kind in NUMBERS.items() if name in manifest})
    except ValueError as error:
        raise InputError(f"{path}: expected numbers as duration, start and stop: {error}") from error
    for column in {"ID", "spk_id"} & set(manifest):  # composed Unicode, as in trial lists
        manifest[column] = manifest[column].str.normalize("NFC")
    check_unique_ids(manifest, str(path))
    _check_numbers(manifest, path)
    return manifest


def _check_numbers(manifest: pd.DataFrame, path: Path) -> None:
    """Raise InputError naming the first utterance that is empty or that ends before it begins."""
    if not NUMBERS.keys() <= set(manifest.columns):
        return
    is_sound = manifest["duration"].between(0, math.inf, "neither") & (manifest["start"] >= 0)
    wrong = manifest[~(is_sound & (manifest["start"] < manifest["stop"]))]
    if len(wrong):
        utt_id, *numbers = wrong.iloc[0][["ID", *NUMBERS]]
        raise InputError(
            f"{path}: {utt_id}: expected a duration above 0 and 0 <= start < stop, found {', '.join(map(str, numbers))}"
        )


def check_unique_ids(manifest: pd.DataFrame, name: str) -> None:
    """Raise InputError naming the first duplicate ID and both files."""
    twice = manifest["ID"].duplicated(keep=False)
    if twice.any():
        first = manifest[twice].iloc[0]["ID"]
        named_by = "wav" if "wav" in manifest else "spk_id"
        found = manifest.loc[manifest["ID"] == first, named_by].tolist()
        raise InputError(f"{name}: duplicate utterance ID {first} ({', '.join(found[:2])}); rename or remove one")


def write_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write ``manifest`` sorted by ``ID``, atomically."""
    further = [column for column in manifest.columns if column not in COLUMNS]
    with written_whole(path) as temporary:
        manifest[COLUMNS + further].sort_values("ID").to_csv(temporary, index=False)


def describe(manifest: pd.DataFrame) -> str:
    """Return the size of a manifest as text: utterances, speakers, hours."""
    hours = manifest["duration"].sum() / 3600
    return f"{len(manifest):,} utterances, {manifest['spk_id'].nunique():,} speakers, {hours:.2f} hours"


def read_utterances(manifest_file: Path, replacements: dict[str, str]) -> pd.DataFrame:
    """Return a manifest with ``$data_root`` replaced in ``wav``.

    Raises InputError for a root that is not in ``replacements``, or if the first file does not exist.
    """
    return with_folders(read_manifest(manifest_file), replacements, manifest_file)


def with_folders(manifest: pd.DataFrame, replacements: dict[str, str], manifest_file: Path) -> pd.DataFrame:
    """Return ``manifest``, read from ``manifest_file``, with its roots replaced; errors as ``read_utterances``."""
    root = manifest["wav"].str.extract(r"^\$([\w.]+)/", expand=False)
    unknown = root.dropna()[~root.dropna().isin(list(replacements))]
    if len(unknown):
        raise InputError(
            f"{manifest_file}: ${unknown.iloc[0]} is not a known root; expected {', '.join(replacements) or 'none'}; "
            "give --corpus and --data_folder of this manifest"
        )
    for name, folder in replacements.items():
        manifest["wav"] = manifest["wav"].where(root != name, folder + manifest["wav"].str.slice(len(name) + 1))
    first = manifest["wav"].iloc[0]
    if not containing_file(first).is_file():
        raise InputError(f"{manifest_file}: {first} is missing; check --data_folder")
    return manifest


def cut_digest(row: Mapping) -> str:
    """Return 16 hex digits that differ for other audio: of path and cut of a manifest row, however it was read."""
    cut = f"{row['wav']} {int(row['start'])} {int(row['stop'])}"
    return hashlib.sha256(cut.encode()).hexdigest()[:16]
