"""Trial lists: pairs of utterances to compare, labelled as same or different speaker.

CSV with the columns ``enrol_id, test_id, target`` (1: same speaker, 0: different speakers). Also read:

- VoxCeleb's text lists, lines ``1 path path``, and Kaldi's, WeSpeaker's and NIST's, lines ``id id target``;
- two paths and a label with commas, semicolons, tabs or blanks between them, with a header line (``target.csv`` of the
  project that this recipe follows) or without;
- labels ``1.0``, ``target``, ``tgt``, ``genuine`` and ``0.0``, ``nontarget``, ``imp``, ``impostor``.

Gzipped files (``.gz``), Windows line endings and paths, and a byte-order mark are accepted; IDs become composed
Unicode.
"""

import gzip
import logging
import re
import unicodedata
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from voice_biometrics.common.audio_files import without_suffix
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole

logger = logging.getLogger(__name__)

UNREADABLE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error)  # EOFError: a gzipped file without its end
COLUMNS = ["enrol_id", "test_id", "target"]
SAMPLE = 100  # lines that decide which column is which
LABELS = dict.fromkeys(("1", "1.0", "target", "tgt", "genuine", "true"), 1)
LABELS |= dict.fromkeys(("0", "0.0", "nontarget", "non-target", "imp", "impostor", "false"), 0)


def read_trials(path: Path) -> pd.DataFrame:
    """Return a trial list as a table ``enrol_id`` (str), ``test_id`` (str), ``target`` (int8, 1 or 0), in file order.

    The index holds line numbers. A repeated trial counts once and is logged. Raises InputError for a missing or empty
    file, a malformed line or label, an utterance compared with itself, a trial with both labels (each with its line
    number), and a list without target or without non-target trials.
    """
    if not path.is_file():
        raise InputError(f"{path}: trial list not found")
    fields = read_fields(path, separator_of(first_line(path)), COLUMNS)
    order, is_label = COLUMNS, fields.iloc[:SAMPLE].apply(lambda column: column.str.lower().isin(LABELS)).mean()
    if is_label["enrol_id"] > is_label["target"]:
        order = ["target", "enrol_id", "test_id"]
        fields = fields.set_axis([*order, "excess"], axis=1)
    if has_header(fields):
        fields = fields.iloc[1:]
    label = fields["target"].str.lower().map(LABELS)
    ids = fields[["enrol_id", "test_id"]].map(plain_path)
    wrong = (fields["excess"].ne("") | label.isna() | ids.eq("").any(axis=1)).to_numpy()
    if wrong.any():
        _fail_on_line(path, int(fields.index[int(np.argmax(wrong))]), order)
    trials = _counted_once(ids.assign(target=label.astype(np.int8)), path)
    check_both_kinds(trials["target"].to_numpy(), str(path))
    return trials


def _counted_once(trials: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return ``trials`` without repetitions; raise InputError for self trials and contradicting labels."""
    if (itself := trials["enrol_id"] == trials["test_id"]).any():
        line = itself.idxmax()
        raise InputError(f"{path}, line {line}: expected two utterances, found {trials['enrol_id'][line]} twice")
    repeated = trials.duplicated(["enrol_id", "test_id"])
    if not repeated.any():
        return trials
    pairs = trials.groupby(["enrol_id", "test_id"], sort=False)["target"]
    both = trials[pairs.transform("nunique") > 1]
    if len(both):
        enrol_id, test_id = both.iloc[0][["enrol_id", "test_id"]]
        lines = both.index[(both["enrol_id"] == enrol_id) & (both["test_id"] == test_id)]
        raise InputError(
            f"{path}, lines {' and '.join(map(str, lines))}: trial {enrol_id} {test_id} is both target and non-target"
        )
    logger.warning("%s: %d repeated trials, each counts once", path, repeated.sum())
    return trials[~repeated]


def check_speakers(trials: pd.DataFrame, speaker_of: Mapping[str, str], name: str) -> None:
    """Raise InputError naming the first trial whose label contradicts the speakers; the index holds line numbers."""
    is_same = trials["enrol_id"].map(speaker_of) == trials["test_id"].map(speaker_of)
    wrong = is_same != trials["target"].astype(bool)
    if wrong.any():
        line = wrong.idxmax()
        enrol_id, test_id, target = trials.loc[line, COLUMNS]
        raise InputError(
            f"{name}, line {line}: target {target} for {enrol_id} and {test_id}, whose speakers are "
            f"{speaker_of[enrol_id]} and {speaker_of[test_id]} ({wrong.sum()} such trials); correct the list"
        )


def _open_text(path: Path):
    """Open a text file, optionally gzipped, skipping a byte-order mark."""
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig")


def first_line(path: Path) -> str:
    """Return the first line; raises InputError for an empty file or one that is not UTF-8 text."""
    try:
        with _open_text(path) as lines:
            line = next(lines, "")
    except UNREADABLE as error:
        raise InputError(f"{path}: expected a trial list in UTF-8 text, found other bytes ({error})") from error
    if not line.strip():
        raise InputError(f"{path}: expected a trial in the first line, found nothing")
    return line


def separator_of(line: str) -> str:
    """Return what separates the fields of a line, as a regular expression."""
    return next((separator for separator in ",;" if separator in line), r"\s+")


def has_header(trials: pd.DataFrame) -> bool:
    """Return True if the first line has our names of the columns, or a label that is none or stands above numbers."""
    first, *others = trials["target"].iloc[:SAMPLE].str.lower()
    is_word = re.fullmatch(r"[^\W\d][\w -]*", first) is not None
    is_ours = trials[COLUMNS[:2]].iloc[0].tolist() == COLUMNS[:2]
    return is_ours or (is_word and (first not in LABELS or not any(label.isalpha() for label in others)))


def read_fields(path: Path, separator: str, order: list[str]) -> pd.DataFrame:
    """Read the lines as text fields, indexed by line number; blank lines are skipped."""
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
    except (pd.errors.ParserError, *UNREADABLE) as error:
        raise InputError(f"{path}: expected lines of {', '.join(order)}: {str(error).strip()}") from error
    fields.index += 1
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
        ids = {item: utterance_id(item, utt_ids) for item in names}
        unknown = [item for item, utt_id in ids.items() if utt_id not in utt_ids]
        if unknown:
            row = trials.index[int(np.argmax(trials[column] == unknown[0]))]
            raise InputError(
                f"{name}, line {row}: utterance {unknown[0]} is not among the {len(utt_ids)} utterances of the "
                f"manifest ({len(unknown)} such in this column); check the test folder and the trial list"
            )
        resolved[column] = trials[column].map(ids)
    return resolved


def plain_path(path: str) -> str:
    """Return a path with slashes, without ``./`` before it, in composed Unicode (NFC)."""
    return unicodedata.normalize("NFC", path).replace("\\", "/").removeprefix("./")


def utterance_id(path: str, utt_ids: pd.Index) -> str:
    """Return the ID of a path: the path itself or without suffix; of an absolute one also its longest known end."""
    parts = path.split("/")
    ends = ["/".join(parts[start:]) for start in range(len(parts) if path.startswith("/") or ":" in parts[0] else 1)]
    candidates = [name for end in ends for name in (end, without_suffix(end))]
    return next((name for name in candidates if name in utt_ids), without_suffix(path))


def make_trials(utterances: pd.DataFrame, max_trials: int | None, seed: int) -> pd.DataFrame:
    """Return all pairs of utterances as trials, or a random ``max_trials`` of them, up to half of them targets.

    ``utterances`` has the columns ``ID`` and ``spk_id``. Pairs are unordered, of two different utterances, and sorted.
    Raises InputError without target or without non-target pairs.
    """
    if max_trials is not None and max_trials < 2:
        raise InputError(f"max_trials {max_trials}: expected at least 2, a target and a non-target trial")
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
