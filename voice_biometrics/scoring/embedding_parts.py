"""Embeddings of a manifest of any size, as a folder of Parquet files. Needs no PyTorch.

``part-000042.parquet`` holds rows 84,000 to 85,999 of the manifest, counted from 0: ``ID``, ``spk_id``, ``duration``
(seconds) and ``embedding`` (dims,) float32. A part is written atomically and only once, so interrupted work
resumes with the missing parts. Its metadata holds the fingerprint of the model, a checksum of its manifest rows, and
the number of rows of the manifest.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.manifest import manifest_blocks, with_folders

ROWS_PER_PART = 2000  # about a minute of one core, and 1.5 MB
MODEL, ROWS, NUM_ROWS = b"model", b"rows_sha256", b"num_rows"  # metadata of a part

Embed = Callable[[pd.DataFrame, tqdm], np.ndarray]  # manifest rows, progress bar -> (utterances, dims)


def shard_named(text: str) -> tuple[int, int]:
    """Return (i, n) of ``"i/n"``, the i-th of n shares, from 1; InputError for anything else."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: expected i/n with i from 1 to n, such as 3/8")
    return int(found[1]), int(found[2])


def write_parts(
    manifest_file: Path,
    replacements: dict[str, str],
    folder: Path,
    fingerprint: str,
    embed: Embed,
    shard: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """Embed every n-th part of a manifest, with a progress bar; return the numbers of parts written and already there.

    Arguments
    ---------
    manifest_file, replacements : utterances, and the folder of each ``$data_root``.
    folder : of the parts; created if needed.
    fingerprint : of the model.
    embed : returns the embeddings of manifest rows.
    shard : (i, n): write parts i - 1, i - 1 + n, ... Other processes or machines write the others.

    Raises
    ------
    InputError : a fault of the manifest or of an utterance, or a part of another model or of other rows is there.
    """
    first, step = shard[0] - 1, shard[1]
    num_rows = _count_rows(manifest_file)
    starts = range(first * ROWS_PER_PART, num_rows, step * ROWS_PER_PART)
    total = sum(min(ROWS_PER_PART, num_rows - start) for start in starts)
    blocks = enumerate(manifest_blocks(manifest_file, ROWS_PER_PART))
    written = found = 0
    with tqdm(total=total, desc=f"embeddings {shard[0]}/{step}", unit="utt", dynamic_ncols=True) as bar:
        for number, rows in islice(blocks, first, None, step):
            metadata = {MODEL: fingerprint.encode(), ROWS: _checksum(rows), NUM_ROWS: str(num_rows).encode()}
            path = folder / f"part-{number:06d}.parquet"
            if path.is_file():
                _check_same(path, metadata)
                bar.update(len(rows))
                found += 1
                continue
            embeddings = embed(with_folders(rows, replacements, manifest_file), bar)
            with written_whole(path) as temporary:
                pq.write_table(_table(rows, embeddings, metadata), temporary)
            written += 1
    return written, found


def read_parts(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a table of ``ID``, ``spk_id`` and ``duration``, and embeddings (utterances, dims) float32, of a folder.

    Raises InputError when there are none, some are missing, or they are of several models.
    """
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{folder}: expected part-000000.parquet, ...; found none: run python embed.py first")
    heads = [_head(path) for path in paths]
    models = [head.metadata[MODEL] for head in heads]
    if len(set(models)) > 1:
        other = paths[[model != models[0] for model in models].index(True)]
        raise InputError(f"{other}: of another model than {paths[0].name}; embed into a folder for each model")
    expected = max(int(head.metadata[NUM_ROWS]) for head in heads)
    rows = sum(head.num_rows for head in heads)
    if rows != expected:
        raise InputError(f"{folder}: expected {expected:,} utterances, found {rows:,}: run python embed.py to its end")
    dims = heads[0].schema.to_arrow_schema().field("embedding").type.list_size
    tables, embeddings = [], np.empty((rows, dims), np.float32)
    start = 0
    for path in paths:
        with _reading(path), pq.ParquetFile(path) as part:  # read_table closes its file later, in another thread
            table = part.read()
        values = table["embedding"].combine_chunks().flatten().to_numpy()
        embeddings[start : start + len(table)] = values.reshape(-1, dims)
        tables.append(table.drop_columns("embedding"))
        start += len(table)
    return pa.concat_tables(tables).to_pandas(), embeddings


def _head(path: Path) -> pq.FileMetaData:
    """Return the schema, number of rows and metadata of a part; InputError if embed.py did not write it."""
    with _reading(path):
        head = pq.read_metadata(path)
    if not {MODEL, ROWS, NUM_ROWS} <= set(head.metadata or {}):
        raise InputError(f"{path}: expected a Parquet file of embed.py, found another one; remove it")
    return head


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Context manager: a file that is not Parquet, or damaged, raises InputError."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: expected a Parquet file of embed.py: {reason}; remove it") from error


def _count_rows(manifest_file: Path) -> int:
    """Return the number of lines after the head; 0 without a file, which ``manifest_blocks`` reports."""
    if not manifest_file.is_file():
        return 0
    with manifest_file.open("rb") as lines:
        return sum(bool(line.strip()) for line in lines) - 1


def _checksum(rows: pd.DataFrame) -> bytes:
    text = rows[["ID", "wav", "start", "stop"]].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest().encode()


def _check_same(path: Path, metadata: dict[bytes, bytes]) -> None:
    """Raise InputError if a part was made with another model, or from other rows."""
    found = _head(path).metadata
    for key, name in ((MODEL, "model"), (ROWS, "manifest")):
        if found.get(key) != metadata[key]:
            raise InputError(f"{path}: made with another {name}; give another --output, or remove this folder")


def _table(rows: pd.DataFrame, embeddings: np.ndarray, metadata: dict[bytes, bytes]) -> pa.Table:
    columns = {
        "ID": pa.array(rows["ID"], pa.string()),
        "spk_id": pa.array(rows["spk_id"], pa.string()),
        "duration": pa.array(rows["duration"], pa.float64()),
        "embedding": pa.FixedSizeListArray.from_arrays(embeddings.astype(np.float32).ravel(), embeddings.shape[1]),
    }
    return pa.table(columns).replace_schema_metadata(metadata)
