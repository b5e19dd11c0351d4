"""Report recordings that should be listened to: copies, rumble, different sounds on the channels."""

import hashlib
import logging
from collections import defaultdict
from pathlib import Path

import pandas as pd

from voice_biometrics.common.audio_files import Header, shortened

logger = logging.getLogger(__name__)
COMPARED_BYTES = 4096  # in the middle of two files of one size; equal ones are compared in full


def report_copies(root: Path, files: pd.DataFrame) -> None:
    """Log copies of a file, under another speaker and under the same one.

    ``files`` has the columns ``path``, below ``root``, and ``spk_id``.
    """
    keys: list[str] = []
    for key in (_size, _middle, _checksum):
        keys.append(key.__name__)
        files = files.assign(**{key.__name__: [key(root / path) for path in files["path"]]})
        files = files[files.duplicated(keys, keep=False)]
    first = files.groupby(keys)[["path", "spk_id"]].transform("first")
    is_copy, is_same = files.duplicated(keys), files["spk_id"] == first["spk_id"]
    copies = files["path"] + " of " + first["path"]
    if (other := copies[is_copy & ~is_same]).size:
        logger.warning("%s: copies under another speaker, remove one of each: %s", root, shortened(other))
    if (same := copies[is_copy & is_same]).size:
        logger.warning("%s: copies that would make trials of equal recordings: %s", root, shortened(same))


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return _as_number(hashlib.blake2b(file.read(COMPARED_BYTES)))


def _checksum(path: Path) -> int:
    with path.open("rb") as file:
        return _as_number(hashlib.file_digest(file, "blake2b"))


def _as_number(digest) -> int:
    """Return the first 63 bits, which take less memory than the whole digest."""
    return int.from_bytes(digest.digest()[:8]) >> 1


class Remarks:
    """Remarks on the files of a part, collected while their headers are read."""

    def __init__(self) -> None:
        self.num_files = self.num_several = 0
        self.files_with: dict[str, list[str]] = defaultdict(list)

    def add(self, path: str, header: Header) -> None:
        """Take the remarks of a file."""
        self.num_files += 1
        self.num_several += header.num_channels > 1
        for remark in header.remarks:
            self.files_with[remark].append(path)

    def report(self, label: str, channel: int) -> None:
        """Log how many files have each remark, and files with several channels that were not compared."""
        for remark, files in self.files_with.items():
            logger.warning(
                "%s: %d of %d files have %s: %s", label, len(files), self.num_files, remark, shortened(files)
            )
        if self.num_several and not channel and not self.files_with:
            logger.info(
                "%s: channels of %d files are averaged; --channel 1 takes the first one", label, self.num_several
            )
