"""Report recordings that should be listened to: copies, rumble, different sounds on the channels."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from voice_biometrics.common.audio_files import Header, shortened

logger = logging.getLogger(__name__)
COMPARED_BYTES = 4096  # in the middle of two files of one size; equal ones are compared in full


def report_copies(root: Path, speaker_of: dict[str, str]) -> None:
    """Log copies of a file, under another speaker and under the same one; ``speaker_of`` has paths below ``root``."""
    same, other = [], []
    for first, *copies in _equal_files(root, list(speaker_of)):
        for path in copies:
            (same if speaker_of[path] == speaker_of[first] else other).append(f"{path} of {first}")
    if other:
        logger.warning("%s: copies under another speaker, remove one of each: %s", root, shortened(other))
    if same:
        logger.warning("%s: copies that would make trials of equal recordings: %s", root, shortened(same))


def _equal_files(root: Path, paths: Sequence[str]) -> list[list[str]]:
    """Return the groups of two or more files with the same content."""
    groups = [list(paths)]
    for key in (lambda path: path.stat().st_size, _middle, _checksum):
        split: list[list[str]] = []
        for group in groups:
            found = defaultdict(list)
            for path in group:
                found[key(root / path)].append(path)
            split += [part for part in found.values() if len(part) > 1]
        groups = split
    return groups


def _middle(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(COMPARED_BYTES)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def report_remarks(label: str, paths: Sequence[str], headers: Sequence[Header], channel: int) -> None:
    """Log how many files have each remark, and files with several channels that were not compared."""
    files_with = defaultdict(list)
    for path, header in zip(paths, headers, strict=True):
        for remark in header.remarks:
            files_with[remark].append(path)
    for remark, files in files_with.items():
        logger.warning("%s: %d of %d files have %s: %s", label, len(files), len(paths), remark, shortened(files))
    num_several = sum(header.num_channels > 1 for header in headers)
    if num_several and not channel and not files_with:
        logger.info("%s: channels of %d files are averaged; --channel 1 takes the first one", label, num_several)
