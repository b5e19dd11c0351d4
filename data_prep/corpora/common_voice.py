"""Common Voice: sentences read by volunteers into their own devices, in many languages.

Corpus card: Common Voice 6.1 has 60 languages, about 185,000 speakers and 7,300 validated hours, MP3; later releases
have more. CC0; users agree not to identify speakers. https://commonvoice.mozilla.org (Ardila et al., LREC 2020).

Folder shape, as released: ``cv-corpus-*/<language>/validated.tsv`` and ``clips/*.mp3`` (other audio formats work as
well). ``data_folder`` is a release, a folder of releases, or the folder of one language. Only ``validated.tsv`` is
read: ``train.tsv``, ``dev.tsv`` and ``test.tsv`` are subsets of it, split for speech recognition.

Speakers are ``client_id``, shortened as far as it stays unique; one person in two languages is one speaker. Metadata
columns: ``gender`` (m, f, other), ``age_group``, ``accent`` and ``language``. Many speakers have a single clip: they
can be used for training, but held-out speakers need two.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.corpus import Corpus, Utterance, need_folder
from voice_biometrics.common.audio_files import without_suffix
from voice_biometrics.common.errors import InputError

logger = logging.getLogger(__name__)

TABLE = "validated.tsv"
NEEDED = ("client_id", "path", "sentence", "up_votes", "down_votes")
GENDERS = {"male": "m", "female": "f", "male_masculine": "m", "female_feminine": "f", "": ""}
MIN_ID_LENGTH = 8  # characters of a client_id
MAX_MISSING = 0.01  # fraction of the clips


class Clip(NamedTuple):
    """One row of ``validated.tsv``."""

    client_id: str
    path: str  # relative to the corpus root
    metadata: dict[str, str]


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the validated clips of all languages, as training part.

    Raises InputError without a ``validated.tsv``, for a malformed or empty table, and if over 1 % of the clips are
    missing.
    """
    need_folder(data_folder, f"Common Voice with <language>/{TABLE} and <language>/clips/")
    if trial_list:
        raise InputError(f"trial_list {trial_list}: Common Voice has no list; the trials are made of held-out speakers")
    clips = [clip for folder in _language_folders(data_folder) for clip in _read_language(data_folder, folder)]
    names = _shortened({clip.client_id for clip in clips})
    return Corpus(
        data_folder,
        [
            Utterance(without_suffix(Path(clip.path).name), names[clip.client_id], clip.path, clip.metadata)
            for clip in clips
        ],
    )


def _language_folders(data_folder: Path) -> list[Path]:
    """Return the language folders: ``data_folder`` itself, or all one or two levels below it."""
    for pattern in (TABLE, f"*/{TABLE}", f"*/*/{TABLE}"):
        found = sorted(path.parent for path in data_folder.glob(pattern))
        if found:
            return found
    raise InputError(f"{data_folder}: expected <language>/{TABLE}, found none; check --data_folder")


def _read_language(root: Path, folder: Path) -> list[Clip]:
    """Return the clips of one language; rejected and missing ones are left out and counted."""
    present = {path.name for path in (folder / "clips").glob("*.*")}
    below = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    clips, missing, num_rejected = [], [], 0
    for row in _read_rows(folder / TABLE):
        if int(row["down_votes"] or 0) > int(row["up_votes"] or 0):
            num_rejected += 1
        elif row["path"] not in present:
            missing.append(row["path"])
        else:
            clips.append(Clip(row["client_id"], f"{below}clips/{row['path']}", _metadata(row, folder.name)))
    if len(missing) > MAX_MISSING * (len(clips) + len(missing)):
        raise InputError(
            f"{folder / TABLE}: {len(missing)} of {len(clips) + len(missing)} clips are missing (at most "
            f"{MAX_MISSING:.0%} may be), the first is clips/{missing[0]}; unpack the whole archive"
        )
    for number, reason in ((len(missing), "clip missing"), (num_rejected, "more down-votes than up-votes")):
        if number:
            logger.warning("%s: %d rows left out: %s", folder / TABLE, number, reason)
    return clips


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a table. Fields are not quoted; a tab too many belongs to the sentence.

    Raises InputError for a missing column, a row with too few fields, votes that are not numbers, or no rows at all.
    """
    header, *lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    columns = header.rstrip("\r").split("\t")
    lacking = [name for name in NEEDED if name not in columns]
    if lacking or not any(lines):
        found = f"no column {lacking[0]}" if lacking else "no rows"
        raise InputError(f"{path}: expected rows of {', '.join(NEEDED)}, found {found}; unpack the archive again")
    sentence = columns.index("sentence")
    for number, line in enumerate(lines, 2):
        fields = line.rstrip("\r").split("\t")
        excess = max(0, len(fields) - len(columns))
        fields[sentence : sentence + excess + 1] = ["\t".join(fields[sentence : sentence + excess + 1])]
        row = dict(zip(columns, fields, strict=False))
        votes = row.get("up_votes", "?"), row.get("down_votes", "?")
        if (
            len(fields) < len(columns)
            or not row["client_id"]
            or not all(vote.isdecimal() or not vote for vote in votes)
        ):
            raise InputError(f"{path}, line {number}: expected {len(columns)} fields, found {line[:100]!r}")
        yield row


def _metadata(row: dict[str, str], language: str) -> dict[str, str]:
    return {
        "gender": GENDERS.get(row.get("gender", ""), "other"),
        "age_group": row.get("age", ""),
        "accent": row.get("accents", row.get("accent", "")),
        "language": language,
    }


def _shortened(client_ids: set[str]) -> dict[str, str]:
    """Return the shortest prefixes, of one length, that are unique."""
    length = MIN_ID_LENGTH
    while len({client_id[:length] for client_id in client_ids}) < len(client_ids):
        length += 1
    return {client_id: client_id[:length] for client_id in client_ids}
