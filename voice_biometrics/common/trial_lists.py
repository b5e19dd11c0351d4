"""Trial lists: pairs of utterances to compare, labelled as same or different speaker.

CSV with the columns ``enrol_id, test_id, target`` (1: same speaker, 0: different speakers). Also read:

- VoxCeleb's text lists, lines ``1 path path``;
- CSV of two paths and a label, with a header line (``target.csv`` of the project that this recipe follows) or without.

Gzipped files (``.gz``), Windows line endings and a byte-order mark are accepted.
"""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from voice_biometrics.common.audio_files import without_suffix
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole

COLUMNS = ["enrol_id", "test_id", "target"]
LABELS = {"1": 1, "0": 0}


def read_trials(path: Path) -> pd.DataFrame:
    """Return a trial list as a table ``enrol_id`` (str), ``test_id`` (str), ``target`` (int8, 1 or 0), in file order.

    Raises InputError for a missing or empty file, a malformed line or label (with the line number), and a list without
    target or without non-target trials.
    """
    if not path.is_file():
        raise InputError(f"{path}: trial list not found")
    first_line = _first_line(path)
    is_csv = "," in first_line
    order = COLUMNS if is_csv else ["target", "enrol_id", "test_id"]
    fields = _read_fields(path, "," if is_csv else r"\s+", order)
    if is_csv and _is_header(first_line):
        fields = fields.iloc[1:]
    label = fields["target"].map(LABELS)
    wrong = (fields["excess"].ne("") | label.isna() | fields["enrol_id"].eq("") | fields["test_id"].eq("")).to_numpy()
    if wrong.any():
        _fail_on_line(path, int(fields.index[int(np.argmax(wrong))]) + 1, order)
    trials = fields[COLUMNS].assign(target=label.astype(np.int8)).reset_index(drop=True)
    check_both_kinds(trials["target"].to_numpy(), str(path))
    return trials


def _open_text(path: Path):
    """Open a text file, optionally gzipped, skipping a byte-order mark."""
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig")


def _first_line(path: Path) -> str:
    """Return the first line; raises InputError for an empty file or one that is not UTF-8 text."""
    try:
        with _open_text(path) as lines:
            line = next(lines, "")
    except (UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: expected a trial list in UTF-8 text, found other bytes ({error})") from error
    if not line.strip():
        raise InputError(f"{path}: expected a trial in the first line, found nothing")
    return line


def _is_header(line: str) -> bool:
    """Return True if the third field is a word, as in a header."""
    fields = [field.strip(' "\r\n') for field in line.split(",")]
    return len(fields) == 3 and bool(fields[2]) and not fields[2].lstrip("+-").replace(".", "").isdigit()


def _read_fields(path: Path, separator: str, order: list[str]) -> pd.DataFrame:
    """Read the lines as text fields, indexed by line number - 1; blank lines are skipped."""
    try:
        with _open_text(path) as lines:
            fields = pd.read_csv(
                lines,
                sep=separator,
                header=None,
                names=[*order, "excess"],
                index_col=False,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,  # the index counts lines
                skipinitialspace=True,
            ).fillna("")
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected lines of {', '.join(order)}: {str(error).strip()}") from error
    return fields[fields.ne("").any(axis=1)]


def _fail_on_line(path: Path, number: int, order: list[str]) -> None:
    """Raise InputError with the text of a line."""
    with _open_text(path) as lines:
        text = next(line for count, line in enumerate(lines, 1) if count == number).strip()
    raise InputError(f"{path}, line {number}: expected {', '.join(order)} with target 0 or 1, found {text[:120]!r}")


def check_both_kinds(is_target: np.ndarray, name: str) -> None:
    """Raise InputError unless ``is_target`` (trials,) contains both target and non-target trials."""
    num_target = int(np.count_nonzero(is_target))
    num_nontarget = is_target.size - num_target
    if not (num_target and num_nontarget):
        raise InputError(
            f"{name}: expected target and non-target trials, found {num_target} and {num_nontarget}; "
            "error rates need both"
        )


def resolve_trials(trials: pd.DataFrame, utt_ids: pd.Index, name: str) -> pd.DataFrame:
    """Return ``trials`` with paths replaced by utterance IDs (the path without suffix).

    Raises InputError naming the first utterance that is not in ``utt_ids``.
    """
    resolved = trials.copy()
    for column in ("enrol_id", "test_id"):
        names = pd.Index(trials[column].unique())
        ids = {item: item if item in utt_ids else without_suffix(item) for item in names}
        unknown = [item for item, utt_id in ids.items() if utt_id not in utt_ids]
        if unknown:
            row = int(np.argmax(trials[column] == unknown[0]))
            raise InputError(
                f"{name}, trial {row + 1}: utterance {unknown[0]} is not among the {len(utt_ids)} utterances of the "
                f"manifest ({len(unknown)} such in this column); check the test folder and the trial list"
            )
        resolved[column] = trials[column].map(ids)
    return resolved


def make_trials(utterances: pd.DataFrame, max_trials: int | None, seed: int) -> pd.DataFrame:
    """Return all pairs of utterances as trials, or a random ``max_trials`` of them, up to half of them targets.

    ``utterances`` has the columns ``ID`` and ``spk_id``. Pairs are unordered, of two different utterances, and sorted.
    Raises InputError without target or without non-target pairs.
    """
    ids = utterances["ID"].to_numpy()
    speakers = pd.factorize(utterances["spk_id"])[0]
    num_pairs = ids.size * (ids.size - 1) // 2
    if max_trials is None or num_pairs <= max_trials:
        enrol, test = np.triu_indices(ids.size, k=1)
    else:
        enrol, test = _draw_pairs(speakers, max_trials, np.random.default_rng(seed))
    target = (speakers[enrol] == speakers[test]).astype(np.int8)
    check_both_kinds(target, f"the pairs of {ids.size} utterances of {speakers.max(initial=-1) + 1} speakers")
    return pd.DataFrame({"enrol_id": ids[enrol], "test_id": ids[test], "target": target})


def _draw_pairs(speakers: np.ndarray, max_trials: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw distinct pairs of utterances (rows): at most half targets, the rest non-targets."""
    order = np.argsort(speakers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(speakers[order])) + 1)
    targets = np.concatenate([np.sort(group)[np.stack(np.triu_indices(group.size, k=1))] for group in groups], axis=1)
    if targets.shape[1] > max_trials // 2:
        targets = targets[:, rng.choice(targets.shape[1], max_trials // 2, replace=False)]
    nontargets = np.empty((2, 0), dtype=np.int64)
    while nontargets.shape[1] < max_trials - targets.shape[1]:
        pairs = np.sort(rng.integers(speakers.size, size=(2, max_trials)), axis=0)
        pairs = pairs[:, speakers[pairs[0]] != speakers[pairs[1]]]
        nontargets = np.unique(np.concatenate([nontargets, pairs], axis=1), axis=1)
        if nontargets.shape[1] > max_trials - targets.shape[1]:
            keep = rng.choice(nontargets.shape[1], max_trials - targets.shape[1], replace=False)
            nontargets = nontargets[:, keep]
        if len(groups) == 1:
            break
    pairs = np.concatenate([targets, nontargets], axis=1)
    enrol, test = pairs[:, np.lexsort((pairs[1], pairs[0]))]
    return enrol, test


def write_trials(trials: pd.DataFrame, path: Path) -> None:
    """Write ``trials`` as CSV, atomically."""
    with written_whole(path) as temporary:
        trials[COLUMNS].to_csv(temporary, index=False)
