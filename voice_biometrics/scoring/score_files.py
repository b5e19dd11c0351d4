"""Score files: read and write the trials of any system with their scores.

A score file has the columns ``enrol_id, test_id, target, score``, others are ignored: Parquet if its name ends in
``.parquet``, otherwise CSV, gzipped if it ends in ``.gz``. Scores keep full precision; higher means more alike.
``target`` is 1 or 0, or another of ``common.trial_lists.LABELS``. Windows line ends, blank lines and a byte-order mark
are read as well, and so are the lists of other tools (``score_lists``).
"""

import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.trial_lists import COLUMNS as TRIAL_COLUMNS
from voice_biometrics.common.trial_lists import LABELS, check_both_kinds
from voice_biometrics.scoring.score_lists import join_labels, read_score_list
from voice_biometrics.scoring.scored_trials import ID_COLUMNS, without_repeated

COLUMNS = [*TRIAL_COLUMNS, "score"]
BYTES_PER_BLOCK = 2**22  # of CSV text that is parsed at a time
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf(inity)?)?", re.IGNORECASE)  # or empty
DICTIONARY = pa.dictionary(pa.int32(), pa.string())  # each text once, and a number per row
OUTLIER_SHARE, OUTLIER_DISTANCE, FEWEST_OTHERS = 0.01, 10, 10


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write a score file in the format of its name, atomically; equal scores give equal bytes."""
    with written_whole(path) as temporary:
        if _is_parquet(path):
            scores[COLUMNS].to_parquet(temporary, index=False)
        elif path.suffix == ".gz":
            with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                scores[COLUMNS].to_csv(file, index=False)
        else:
            scores[COLUMNS].to_csv(temporary, index=False)


def read_scores(path: Path, trials_file: Path | None = None) -> pd.DataFrame:
    """Return a score file as a table of its trials, in their order, without repetitions (their number is printed).

    ``trials_file`` has the labels; those of the score file, if any, must be equal. A CSV is parsed block by block and
    each ID is kept once, so millions of trials fit into memory: 20 bytes a trial, and twice as much while repeated
    trials are searched for.

    Returns
    -------
    ``enrol_id, test_id`` (categorical text with the same categories), ``target`` (int8, 1 or 0), ``score`` (float64).

    Raises
    ------
    InputError : the file or a column is missing; a row is malformed, has an unknown label, no ID or a score that is not
        a finite number, or far from all others; an utterance is compared with itself; a trial is repeated with another
        score or label; one kind of trial is missing; or as ``join_labels``. The line (the row of a Parquet file) is
        named.
    """
    if not path.is_file():
        raise InputError(f"{path}: score file not found")
    try:
        table, name_row, is_joined = _read_table(path, trials_file)
        ids = [_encoded(table[column]) for column in ID_COLUMNS]
        target = _encoded(table["target"], as_text=False)
        score = table["score"].cast(pa.float64()).to_numpy()
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError, zlib.error, csv.Error) as error:
        if not _is_parquet(path) and isinstance(error, pa.ArrowInvalid):
            _fail_on_malformed_line(path)
        form = "Parquet" if _is_parquet(path) else "CSV"
        raise InputError(f"{path}: expected {form} with the columns {', '.join(COLUMNS)}: {error}") from error
    names, codes = _codes(pa.chunked_array([*ids[0].chunks, *ids[1].chunks], DICTIONARY))
    sides = np.split(codes, 2)
    for column, side in zip(ID_COLUMNS, sides, strict=True):
        _check_rows(path, name_row, table[column], np.append(names != "", False)[side], f"an utterance ID as {column}")
    values, codes = _codes(target)
    labels = [LABELS.get(str(value).strip().lower(), -1) for value in values]
    target = np.array([*labels, -1], np.int8)[codes]
    _check_rows(path, name_row, table["target"], target >= 0, "0 or 1 (or nontarget, target) as target")
    _check_rows(path, name_row, table["score"], np.isfinite(score), "a finite number as score")
    check_both_kinds(target, str(path))
    _check_outliers(path, name_row, score, target)
    categories = pd.Index(names, dtype=str)
    enrol_id, test_id = (pd.Categorical.from_codes(side, categories=categories) for side in sides)
    _check_two_sides(path, name_row, names, sides)
    scores = pd.DataFrame({"enrol_id": enrol_id, "test_id": test_id, "target": target, "score": score}, copy=False)
    if trials_file is not None and not is_joined:
        join_labels(scores.astype({column: object for column in ID_COLUMNS}), path, trials_file, name_row)
    return without_repeated(scores, str(path), name_row)


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _read_table(path: Path, trials_file: Path | None) -> tuple[pa.Table, Callable[[int], str], bool]:
    """Return the columns ``COLUMNS``, checked for malformed rows only, a function that names a row, and whether the
    labels are those of ``trials_file``."""
    if _is_parquet(path):
        _check_columns(path, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path, columns=COLUMNS, read_dictionary=ID_COLUMNS)
        return table, lambda row: f"row {row + 1}", False
    with _open_text(path) as lines:  # pyarrow's streaming reader left a thread that aborted the process at its exit
        found = next(csv.reader(lines), [])
    if set(COLUMNS) <= {name.strip() for name in found}:
        return _read_csv(path, found), lambda row: _name_line(path, row), False
    listed = read_score_list(path)
    if trials_file is not None:
        listed = join_labels(listed, path, trials_file)
    elif "target" not in listed:
        first = " ".join(listed.iloc[0])
        raise InputError(f"{path}: expected a label beside {first!r}; give the list that has it as --trials")
    score = pa.array(pd.to_numeric(listed["score"], errors="coerce").to_numpy())
    columns = {name: pa.array(listed[name].to_numpy(object), pa.string()) for name in TRIAL_COLUMNS}
    table = pa.table(columns | {"score": pa.chunked_array([score])})
    return table, lambda row: f"line {listed.index[row]}", trials_file is not None


def _read_csv(path: Path, found: list[str]) -> pa.Table:
    """Return the columns ``COLUMNS`` of a CSV whose header is ``found``."""
    _check_columns(path, [name.strip() for name in found])
    names = {name.strip(): name for name in found}
    types = {names[column]: DICTIONARY for column in TRIAL_COLUMNS} | {names["score"]: pa.float64()}
    table = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=BYTES_PER_BLOCK),  # or errors name no row
        convert_options=pa.csv.ConvertOptions(
            include_columns=[names[column] for column in COLUMNS], column_types=types, null_values=[""]
        ),
    )
    return table.rename_columns(COLUMNS)


def _check_columns(path: Path, names: list[str]) -> None:
    """Raise InputError unless each of ``COLUMNS`` is there once."""
    wrong = [f"{column} {'twice' if column in names else 'missing'}" for column in COLUMNS if names.count(column) != 1]
    if wrong:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(wrong)}")


def _encoded(column: pa.ChunkedArray, as_text: bool = True) -> pa.ChunkedArray:
    """Return a column with each value once and a number per row."""
    if column.type == DICTIONARY:
        return column
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return (plain.cast(pa.string()) if as_text else plain).dictionary_encode()


def _codes(encoded: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values, and which of them each row has, (rows,) int; missing values are numbered last."""
    chunks = encoded.unify_dictionaries().chunks
    values = np.array(chunks[0].dictionary.to_pylist() if chunks else [], object)
    codes = [chunk.indices.fill_null(len(values)).to_numpy(zero_copy_only=False) for chunk in chunks]
    return values, np.concatenate([np.empty(0, np.int32), *codes])


def _open_text(path: Path) -> TextIO:
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", errors="replace", newline="")


def _fail_on_malformed_line(path: Path) -> None:
    """Raise InputError for the first line with another number of fields or a score that is not a number, if any.

    pyarrow names the row only when it happens to read in one thread.
    """
    with _open_text(path) as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        for row in filter(None, reader):
            place = f"{path}, line {reader.line_num}"
            if len(row) != len(header):
                raise InputError(f"{place}: expected {len(header)} fields, found {len(row)}: {','.join(row)[:120]!r}")
            score = row[header.index("score")] if "score" in header else "0"
            if not NUMBER.fullmatch(score.strip()):
                raise InputError(f"{place}: expected a number as score, found {score[:60]!r}")


def _check_rows(
    path: Path, name_row: Callable[[int], str], values: pa.ChunkedArray, sound: np.ndarray, expected: str
) -> None:
    """Raise InputError naming the first row whose value is not sound."""
    if not sound.all():
        row = int(np.argmin(sound))
        raise InputError(f"{path}, {name_row(row)}: expected {expected}, found {values[row].as_py()!r}")


def _check_two_sides(path: Path, name_row: Callable[[int], str], names: np.ndarray, sides: list[np.ndarray]) -> None:
    """Raise InputError naming the first trial of an utterance with itself."""
    if (itself := sides[0] == sides[1]).any():
        row = int(np.argmax(itself))
        found = f"found {names[sides[0][row]]} twice ({np.count_nonzero(itself):,} such); leave them out"
        raise InputError(f"{path}, {name_row(row)}: expected two utterances, {found}")


def _check_outliers(path: Path, name_row: Callable[[int], str], score: np.ndarray, target: np.ndarray) -> None:
    """Raise InputError for a few scores far from all others, such as -9999 for a trial that failed.

    They are the lowest or the highest score, of 1 % of the trials at most, ten times as far from the next as that is
    from the other end; and each kind of trials has others.
    """
    is_end = [score == end for end in (score.min(), score.max())]
    rare = [few for few in is_end if np.count_nonzero(few) <= OUTLIER_SHARE * score.size]
    is_other = ~np.logical_or.reduce(rare or is_end)
    if np.bincount(target[is_other], minlength=2).min() < FEWEST_OTHERS:
        return
    low, high = score[is_other].min(), score[is_other].max()
    for few in rare:
        end = score[few][0]
        if max(low - end, end - high) > OUTLIER_DISTANCE * (high - low):
            raise InputError(
                f"{path}, {name_row(int(np.argmax(few)))}: score {end:g} is far from all others ({low:.4g} to "
                f"{high:.4g}; {np.count_nonzero(few):,} such): correct it, or leave out the trial for every system "
                "if it could not be scored"
            )


def _name_line(path: Path, row: int) -> str:
    """Return the line of a row of a CSV, counted from 0."""
    with io.TextIOWrapper(pa.input_stream(path), encoding="utf-8", errors="replace") as lines:
        numbers = (number for number, line in enumerate(lines, 1) if line != "\n")  # blank lines are not rows
        return f"line {next(itertools.islice(numbers, row + 1, None))}"
