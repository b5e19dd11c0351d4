"""Trials with their scores: from embeddings, or from a score file.

A score file has the columns ``enrol_id, test_id, target, score``, further ones being left alone: Parquet where its name
ends in ``.parquet``, else CSV, gzipped where it ends in ``.gz``. Scores keep full precision; higher means more alike.
``target`` is 1 or 0; ``target`` and ``nontarget`` (Kaldi's words), True and False are read as well. Windows line ends,
blank lines and a byte-order mark do no harm.

A trial is an ordered pair: (a, b) and (b, a) are two trials, since a system may treat its two sides differently.
"""

import csv
import gzip
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.trial_lists import COLUMNS as TRIAL_COLUMNS
from voice_biometrics.common.trial_lists import check_both_kinds
from voice_biometrics.scoring.scored_trials import ID_COLUMNS, without_repeated

COLUMNS = [*TRIAL_COLUMNS, "score"]
LABELS = {1: 1, 0: 0, "1": 1, "0": 0, "target": 1, "nontarget": 0, "true": 1, "false": 0}
BYTES_PER_BLOCK = 2**22  # of CSV text that is parsed at a time
ROWS_PER_BLOCK = 2**17  # of Parquet
REPEATED = pa.dictionary(pa.int32(), pa.string())  # each text once, and a number per row


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write a score file in the form that its name tells, whole or not at all; the same scores give the same bytes."""
    with written_whole(path) as temporary:
        if _is_parquet(path):
            scores[COLUMNS].to_parquet(temporary, index=False)
        elif path.suffix == ".gz":
            with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                scores[COLUMNS].to_csv(file, index=False)
        else:
            scores[COLUMNS].to_csv(temporary, index=False)


def read_scores(path: Path) -> pd.DataFrame:
    """Return a score file as a table of its trials, in their order, each once.

    It is read block by block, and each ID is kept once, so that millions of trials fit: 17 bytes a trial, and twice as
    much while trials are looked through for repeated ones. Their number is told on screen.

    Returns
    -------
    ``enrol_id, test_id`` (categorical text, both of the same categories), ``target`` (int8, 1 or 0), ``score``
    (float64).

    Raises
    ------
    InputError : the file or a column is missing; a row is malformed, has an unknown label, no ID or a score that is no
        finite number; a trial is repeated with another score or label; or one kind of trial is missing. A fault is
        named by its line, or its row in Parquet.
    """
    if not path.is_file():
        raise InputError(f"{path}: the score file is missing")
    try:
        scores = _read_blocks(path, _parquet_blocks(path) if _is_parquet(path) else _csv_blocks(path))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        form = "Parquet" if _is_parquet(path) else "CSV"
        raise InputError(f"{path}: expected {form} with the columns {', '.join(COLUMNS)}: {error}") from error
    check_both_kinds(scores["target"].to_numpy(), str(path))
    return without_repeated(scores, str(path), lambda row: _name_row(path, row))


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _csv_blocks(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV as text, the columns ``COLUMNS`` first."""
    names = _csv_header(path)
    _check_columns(path, names)
    types = dict.fromkeys(TRIAL_COLUMNS, REPEATED) | {"score": pa.string()}
    malformed = []
    try:
        yield from pa.csv.open_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=names, skip_rows=1, block_size=BYTES_PER_BLOCK),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=lambda row: malformed.append(row) or "error"),
            convert_options=pa.csv.ConvertOptions(include_columns=COLUMNS, column_types=types),
        )
    except pa.ArrowInvalid:
        if malformed:
            _fail_on_fields(path, malformed[0])
        raise


def _csv_header(path: Path) -> list[str]:
    """Return the column names of a CSV; InputError when its first line is blank."""
    with _open_text(path) as lines:
        line = next(lines, "").strip()
    if not line:
        raise InputError(f"{path}: expected a CSV with the columns {', '.join(COLUMNS)}, found an empty first line")
    return [name.strip() for name in next(csv.reader([line]))]


def _open_text(path: Path) -> io.TextIOWrapper:
    """Open a text file, compressed or not, without its byte-order mark."""
    return io.TextIOWrapper(pa.input_stream(path), encoding="utf-8-sig", errors="replace")


def _parquet_blocks(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, the columns ``COLUMNS`` only."""
    with pa.parquet.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names)
        yield from file.iter_batches(batch_size=ROWS_PER_BLOCK, columns=COLUMNS)


def _check_columns(path: Path, names: list[str]) -> None:
    """Raise InputError unless each of ``COLUMNS`` is there once."""
    wrong = [f"{column} {'twice' if column in names else 'missing'}" for column in COLUMNS if names.count(column) != 1]
    if wrong:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(wrong)}")


def _read_blocks(path: Path, blocks: Iterator[pa.RecordBatch]) -> pd.DataFrame:
    """Check and convert block by block, then put the blocks together."""
    ids: dict[str, list[pa.DictionaryArray]] = {column: [] for column in ID_COLUMNS}
    targets, scores = [np.empty(0, np.int8)], [np.empty(0)]
    num_rows = 0
    for block in blocks:
        for column, read in ids.items():
            read.append(_ids(path, num_rows, column, block[column]))
        targets.append(_targets(path, num_rows, block["target"]))
        scores.append(_scores(path, num_rows, block["score"]))
        num_rows += block.num_rows
    enrol_id, test_id = np.split(_joined(ids["enrol_id"] + ids["test_id"]), 2)
    target, score = np.concatenate(targets), np.concatenate(scores)
    return pd.DataFrame({"enrol_id": enrol_id, "test_id": test_id, "target": target, "score": score}, copy=False)


def _ids(path: Path, first_row: int, column: str, values: pa.Array) -> pa.DictionaryArray:
    """Return utterance IDs of a block, each once."""
    encoded = _encoded(values, as_text=True)
    sound = np.array([value not in ("", None) for value in encoded.dictionary.to_pylist()] + [False])
    _check_rows(path, first_row, column, "an utterance ID", values, sound[_codes(encoded)])
    return encoded


def _targets(path: Path, first_row: int, values: pa.Array) -> np.ndarray:
    """Return the labels of a block, (rows,) int8."""
    encoded = _encoded(values)
    plain = [value.strip().lower() if isinstance(value, str) else value for value in encoded.dictionary.to_pylist()]
    label = np.array([*(LABELS.get(value, -1) for value in plain), -1], np.int8)[_codes(encoded)]
    _check_rows(path, first_row, "target", "0 or 1 (or nontarget, target)", values, label >= 0)
    return label


def _scores(path: Path, first_row: int, values: pa.Array) -> np.ndarray:
    """Return the scores of a block, (rows,) float64."""
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    plain = pa.compute.utf8_trim_whitespace(values) if text else values
    try:
        score = plain.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        score = pd.to_numeric(plain.to_pandas(), errors="coerce").to_numpy(np.float64)
    _check_rows(path, first_row, "score", "a finite number", values, np.isfinite(score))
    return score


def _encoded(values: pa.Array, as_text: bool = False) -> pa.DictionaryArray:
    """Return a column of a block with each value once; the CSV reader has done so already."""
    if values.type == REPEATED:
        return values
    plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    return (plain.cast(pa.string()) if as_text else plain).dictionary_encode()


def _codes(encoded: pa.DictionaryArray) -> np.ndarray:
    """Return which value each row has, (rows,) int; the one after the last stands for a missing value."""
    return encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)


def _joined(parts: list[pa.DictionaryArray]) -> pd.Categorical:
    """Return the IDs of all blocks, of one set of categories."""
    chunks = pa.chunked_array(parts, type=REPEATED).unify_dictionaries().chunks
    codes = np.concatenate([np.empty(0, np.int32), *(chunk.indices.to_numpy() for chunk in chunks)])
    names = chunks[-1].dictionary.to_pandas() if chunks else []
    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=str))


def _check_rows(path: Path, first_row: int, column: str, expected: str, values: pa.Array, sound: np.ndarray) -> None:
    """Raise InputError naming the first row of a block whose value is not sound."""
    if not sound.all():
        row = int(np.argmin(sound))
        found = values[row].as_py()
        place = _name_row(path, first_row + row)
        raise InputError(f"{path}, {place}: expected {expected} as {column}, found {found!r}")


def _name_row(path: Path, row: int) -> str:
    """Return what a reader calls a row, counted from 0: its line, or its number in Parquet."""
    if _is_parquet(path):
        return f"row {row + 1}"
    with _open_text(path) as lines:
        numbers = (number for number, line in enumerate(lines, 1) if line != "\n")  # blank lines are no rows
        return f"line {next(itertools.islice(numbers, row + 1, None))}"


def _fail_on_fields(path: Path, row: pa.csv.InvalidRow) -> NoReturn:
    """Raise InputError naming the line with too many or too few fields."""
    with _open_text(path) as lines:
        number = next(number for number, line in enumerate(lines, 1) if line.rstrip("\n") == row.text)
    raise InputError(
        f"{path}, line {number}: expected {row.expected_columns} fields as in the header, found {row.actual_columns}: "
        f"{row.text[:120]!r}"
    )
