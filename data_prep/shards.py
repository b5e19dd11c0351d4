"""Pack a prepared corpus into tar files: ``python -m data_prep shards MANIFESTS OUTPUT --data_folder PATH [options]``.

    python prepare.py hparams/ecapa_small.yaml --corpus voxceleb --data_folder /voxceleb
    python -m data_prep shards results/ecapa_small/voxceleb/1986/manifests /shards --data_folder /voxceleb
    python train.py hparams/ecapa_small.yaml --corpus voxceleb --data_folder /shards

OUTPUT takes the place of the corpus as --data_folder, in training, evaluation and embed.py. For joined corpora give
--corpus a,b --data_folder A,B here, and OUTPUT,OUTPUT in training. --mib is the size of a tar file (default: 512).

The tar files have WebDataset's format: <key>.flac (the file as it was) and <key>.json (its manifest row), in random
order. The manifests in OUTPUT say where each file begins, so that it is read without the others. Whole tar files are
kept when the command is repeated.
"""

import io
import json
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from data_prep.settings import Settings, recorded_settings
from voice_biometrics.common.errors import InputError, OptionParser, tell_input_errors
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.manifest import data_roots, read_manifest, read_record, with_folders, write_manifest

logger = logging.getLogger(__name__)

PARTS = ("train", "valid", "test")
RECORD = "prepared.json"  # of the preparation; written last, so that a folder with it is complete


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Pack a corpus."""
    parser = OptionParser(__doc__)
    for name in ("manifests", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--corpus", default="corpus")
    parser.add_argument("--mib", type=float, default=512.0)
    options = parser.parse_args(arguments)
    roots = data_roots(options.corpus, options.data_folder)
    num_files, num_shards = write_shards(options.manifests, roots, options.output, round(options.mib * 2**20))
    print(f"{num_files:,} files in {num_shards:,} tar files: {options.output}\nNext: train with it as --data_folder")


def write_shards(manifests: Path, roots: dict[str, str], output: Path, max_bytes: int) -> tuple[int, int]:
    """Write the tar files and manifests of all parts; return the number of audio files and of tar files.

    ``manifests`` is the folder of ``prepare``, ``roots`` are the folders of each ``$data_root``; a tar file holds up to
    ``max_bytes`` of audio, or a file. Raises InputError if the manifests or a file are missing.
    """
    if not read_record(manifests):
        raise InputError(f"{manifests}: no {RECORD}; expected the manifests of a corpus: python prepare.py --help")
    (output / RECORD).unlink(missing_ok=True)
    num_files = num_shards = 0
    for part in PARTS:
        if not (manifests / f"{part}.csv").is_file():
            continue
        manifest = read_manifest(manifests / f"{part}.csv")
        root = manifest["wav"].str.partition("/")[0]
        channel = manifest["wav"].str.extract(r"(#channel=\d+)$", expand=False).fillna("")
        manifest["wav"] = [wav.removesuffix(end) for wav, end in zip(manifest["wav"], channel, strict=True)]
        manifest = with_folders(manifest, roots, manifests / f"{part}.csv")
        places: dict[str, str] = {}
        contents = list(_split(manifest, max_bytes))
        for number, rows in enumerate(tqdm(contents, f"{part} shards", unit="tar", dynamic_ncols=True)):
            places |= _write_shard(rows, output / f"{part}-{number:06d}.tar")
        num_shards += len(contents)
        num_files += len(places)
        write_manifest(manifest.assign(wav=root + "/" + manifest["wav"].map(places) + channel), output / f"{part}.csv")
    for path in (*manifests.glob("*_trials.csv"), manifests / RECORD):
        _copy(path, output)
    return num_files, num_shards


def _split(manifest: pd.DataFrame, max_bytes: int) -> Iterator[pd.DataFrame]:
    """Yield the rows of each tar file, a row per audio file, in random order: speakers are spread over all of them."""
    shuffled = manifest.iloc[np.random.default_rng(0).permutation(len(manifest))].drop_duplicates("wav")
    try:
        sizes = np.array([os.path.getsize(wav) for wav in shuffled["wav"]])
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}; prepare the corpus again") from error
    for _, rows in shuffled.assign(size=sizes).groupby(np.cumsum(sizes) // max_bytes):
        yield rows


def _write_shard(rows: pd.DataFrame, path: Path) -> dict[str, str]:
    """Write a tar file unless it is there; return the place of each audio file, ``<tar file>:<first byte>:<size>``."""
    keys = [re.sub(r"[^\w/-]", "_", utt_id) for utt_id in rows["ID"]]  # WebDataset ends a key at its first dot
    names = [key + Path(wav).suffix.lower() for key, wav in zip(keys, rows["wav"], strict=True)]
    expected = list(zip(names, rows["size"], strict=True))
    if not path.is_file() or [(item.name, item.size) for item in _audio(path)] != expected:
        with written_whole(path) as temporary, tarfile.open(temporary, "w") as tar:
            for key, name, row in zip(keys, names, rows.drop(columns="size").to_dict("records"), strict=True):
                _add(tar, name, Path(row.pop("wav")).read_bytes())
                _add(tar, f"{key}.json", json.dumps(row).encode())
    places = [f"{path.name}:{item.offset_data}:{item.size}" for item in _audio(path)]
    return dict(zip(rows["wav"], places, strict=True))


def _audio(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return [item for item in tar.getmembers() if not item.name.endswith(".json")]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    item = tarfile.TarInfo(name)  # without owner and time: two runs write identical files
    item.size = len(content)
    tar.addfile(item, io.BytesIO(content))


def shards_folder(settings: Settings) -> Path | None:
    """Return the folder of shards that the settings name as their data folder, or None if it is a corpus."""
    folders = set(settings.replacements().values())
    found = [Path(folder) for folder in folders if any(Path(folder).glob("train-*.tar"))]
    if found and len(folders) > 1:
        raise InputError(f"{found[0]}: shards cannot be joined with another folder; make shards of the joined corpora")
    return found[0] if found else None


def take_manifests(shards: Path, settings: Settings, manifest_folder: Path) -> dict:
    """Copy the manifests of a folder of shards, and return the record of their preparation.

    Raises InputError if they are not complete, or were prepared with other settings.
    """
    record = read_record(shards)
    if not record:
        raise InputError(f"{shards}: no {RECORD}; expected shards that are complete: repeat python -m data_prep shards")
    before = recorded_settings(record)
    different = [key for key, value in settings.portable().items() if before.get(key) != value]
    if different:
        raise InputError(
            f"{shards}: prepared with {different[0]} {before.get(different[0])!r}, but it is "
            f"{settings.portable()[different[0]]!r}; give the same value, or prepare and make the shards again"
        )
    for path in (*shards.glob("*.csv"), shards / RECORD):
        _copy(path, manifest_folder)
    logger.info("Using the manifests of the shards in %s", shards)
    return record


def _copy(path: Path, folder: Path) -> None:
    with written_whole(folder / path.name) as temporary:
        shutil.copyfile(path, temporary)
