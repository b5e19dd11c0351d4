"""Common Voice: sentences read by volunteers in many languages, each on their own device.

Corpus card: Common Voice 6.1 (December 2020) has 9,283 hours, 7,335 of them validated; mono MP3, CC0. Age, gender
and accent are self-reported and often empty. The excerpt used by the tests has 2,254 speakers in 59
languages, 5,296 clips and 5.6 hours, as Opus.
https://commonvoice.mozilla.org/datasets (Ardila et al., LREC 2020). **Users agree not to try to identify a speaker.**

Folder shape, as released: ``cv-corpus-*/<language>/validated.tsv`` with ``<language>/clips/*.mp3`` beside it (other
audio formats work as well). The data folder is one language, a folder of languages, or the parent of one
``cv-corpus-*``. Only ``validated.tsv`` is read: ``train.tsv``, ``dev.tsv`` and ``test.tsv`` are subsets of it, made for
speech recognition. There is no test part; hold out speakers with ``valid_speakers`` and ``test_speakers``.

IDs are ``cv-<language>-<speaker>-<number>``. Metadata columns: ``language`` (``de``), ``age_group`` (``twenties``),
``gender`` (``m``, ``f``, or another word) and ``accent``; empty where not given. A speaker is a ``client_id``,
shortened to the fewest characters that are unique in the data folder, at least 8; in two languages it is one speaker.
Clips with more down-votes than up-votes and missing clips are left out and listed in ``skipped.csv``.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.corpus import MAX_SKIPPED, Corpus, Utterance, need_folder
from voice_biometrics.common.errors import InputError

TABLE = "validated.tsv"
OTHER_TABLES = ("train.tsv", "dev.tsv", "test.tsv", "invalidated.tsv", "other.tsv")
COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender")  # in every release
GENDERS = {"male": "m", "male_masculine": "m", "female": "f", "female_feminine": "f"}  # before and since release 17
MIN_ID_LENGTH = 8  # characters of a client_id; it has 128

logger = logging.getLogger(__name__)


class Clip(NamedTuple):
    """One row of ``validated.tsv``."""

    client_id: str
    path: str  # below the data folder
    is_missing: bool
    is_outvoted: bool  # more down- than up-votes
    metadata: dict[str, str]


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the validated clips of all languages, with language, age group, gender and accent.

    Raises InputError when there is no ``validated.tsv``, a language lacks it or its ``clips/``, a table is empty or
    malformed, or more than 1 % of the clips are missing.
    """
    need_folder(data_folder, f"Common Voice with <language>/{TABLE}")
    if trial_list:
        raise InputError(f"trial_list {trial_list}: Common Voice has no list; hold out speakers with --test_speakers")
    clips = [clip for folder in _language_folders(data_folder) for clip in _read_language(data_folder, folder)]
    _check_listed_once(data_folder, clips)
    left_out = _left_out(data_folder, clips)
    length = _id_length({clip.client_id for clip in clips})
    train = [
        Utterance(_utterance_id(clip, length), clip.client_id[:length], clip.path, clip.metadata)
        for clip in clips
        if not (clip.is_missing or clip.is_outvoted)
    ]
    return Corpus(data_folder, train, left_out=left_out)


def _language_folders(data_folder: Path) -> list[Path]:
    """Return the folders that hold ``validated.tsv``, sorted: the data folder itself or folders in it."""
    if _is_language(data_folder):
        return [_need_table(data_folder)]
    releases = sorted(folder for folder in data_folder.glob("cv-corpus-*") if folder.is_dir())
    if len(releases) > 1:
        names = ", ".join(folder.name for folder in releases)
        raise InputError(f"{data_folder}: expected one release, found {names}; name one of them as --data_folder")
    parent = releases[0] if releases else data_folder
    folders = [_need_table(folder) for folder in sorted(parent.iterdir()) if folder.is_dir() and _is_language(folder)]
    if not folders:
        raise InputError(f"{parent}: expected {TABLE} or <language>/{TABLE}, found neither; check --data_folder")
    return folders


def _is_language(folder: Path) -> bool:
    """Return True for a language folder, complete or not."""
    return (folder / "clips").is_dir() or any((folder / name).is_file() for name in (TABLE, *OTHER_TABLES))


def _need_table(folder: Path) -> Path:
    """Return ``folder``; raise InputError when its ``validated.tsv`` or ``clips/`` is missing."""
    if not (folder / TABLE).is_file():
        raise InputError(f"{folder / TABLE}: missing; extract the language's archive again, or move its folder away")
    if not (folder / "clips").is_dir():
        raise InputError(f"{folder / 'clips'}: expected the folder of the clips in {TABLE}, found none; extract it")
    return folder


def _read_language(data_folder: Path, folder: Path) -> Iterator[Clip]:
    """Yield the clips of one language in the order of its table."""
    below = "" if folder == data_folder else folder.relative_to(data_folder).as_posix() + "/"
    found = set(os.listdir(folder / "clips"))
    for number, row in _read_rows(folder / TABLE):
        if not (row["client_id"] and row["path"]):
            raise InputError(f"{folder / TABLE}, line {number}: expected a client_id and a path, found an empty one")
        votes = [row["up_votes"], row["down_votes"]]
        if not all(vote.isdecimal() for vote in votes):
            raise InputError(f"{folder / TABLE}, line {number}: expected up_votes and down_votes, found {votes}")
        metadata = {
            "language": row.get("locale") or folder.resolve().name,
            "age_group": row["age"],
            "gender": GENDERS.get(row["gender"], row["gender"]),
            "accent": row.get("accent") or row.get("accents") or "",
        }
        is_outvoted = int(votes[1]) > int(votes[0])
        yield Clip(row["client_id"], f"{below}clips/{row['path']}", row["path"] not in found, is_outvoted, metadata)


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row. The format has no quoting, so a quote is a character.

    Raises InputError when the table lacks a column or has no rows, when a row is too short, or for bytes that are not
    UTF-8.
    """
    number, is_empty = 0, True
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as lines:  # a sentence may hold other line separators
            columns = _check_columns(path, next(lines, "").rstrip("\r\n").split("\t"))
            start = columns.index("sentence")
            for number, line in enumerate(lines, 2):
                fields = line.rstrip("\r\n").split("\t")
                if fields == [""]:
                    continue
                surplus, is_empty = len(fields) - len(columns), False
                if surplus < 0:
                    raise InputError(f"{path}, line {number}: expected {len(columns)} fields, found {len(fields)}")
                fields[start : start + surplus + 1] = ["\t".join(fields[start : start + surplus + 1])]  # tabs in it
                yield number, dict(zip(columns, fields, strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after line {number}: expected UTF-8: {error}") from error
    if is_empty:
        raise InputError(f"{path}: expected at least one clip, found a header only; move the language's folder away")


def _check_columns(path: Path, columns: list[str]) -> list[str]:
    """Return the columns of the header; InputError when one that is needed is missing."""
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        found = ", ".join(columns)[:200] or "an empty file"
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing in: {found}")
    return columns


def _check_listed_once(data_folder: Path, clips: list[Clip]) -> None:
    """Raise InputError naming the first clip that has two rows."""
    speaker_of: dict[str, str] = {}
    for clip in clips:
        if clip.path in speaker_of:
            owners = f"{speaker_of[clip.path][:MIN_ID_LENGTH]} and {clip.client_id[:MIN_ID_LENGTH]}"
            raise InputError(f"{data_folder / clip.path}: expected one row in {TABLE}, found rows of {owners}")
        speaker_of[clip.path] = clip.client_id


def _left_out(data_folder: Path, clips: list[Clip]) -> list[tuple[str, str]]:
    """Return ``(file, reason)`` of the clips left out, and log their numbers; InputError when too many are missing."""
    missing = [(clip.path, f"missing: listed in {TABLE}") for clip in clips if clip.is_missing]
    if len(missing) > MAX_SKIPPED * len(clips):
        raise InputError(
            f"{data_folder}: {len(missing)} of {len(clips)} clips in {TABLE} are missing (at most {MAX_SKIPPED:.0%} "
            f"are skipped); the first is {missing[0][0]}; extract the archive again"
        )
    outvoted = [(c.path, "more down-votes than up-votes") for c in clips if c.is_outvoted and not c.is_missing]
    if missing or outvoted:
        logger.warning(
            "%s: %d of %d clips left out: %d missing, %d with more down-votes than up-votes",
            *(data_folder, len(missing) + len(outvoted), len(clips), len(missing), len(outvoted)),
        )
    return missing + outvoted


def _utterance_id(clip: Clip, length: int) -> str:
    """Return ``cv-<language>-<speaker>-<number of the clip>``."""
    number = clip.path.rpartition("/")[2].rpartition(".")[0].removeprefix(f"common_voice_{clip.metadata['language']}_")
    return f"cv-{clip.metadata['language']}-{clip.client_id[:length]}-{number}"


def _id_length(client_ids: set[str]) -> int:
    """Return the length of the shortest unique prefixes of ``client_ids``, at least ``MIN_ID_LENGTH``."""
    ordered = sorted(client_ids)
    shared = [len(os.path.commonprefix(pair)) for pair in zip(ordered, ordered[1:], strict=False)]
    return max([MIN_ID_LENGTH, *(length + 1 for length in shared)])
