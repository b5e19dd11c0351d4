"""Files that are read only when they are what ``SHA256SUMS`` of their folder says.

``SHA256SUMS`` has the form that ``sha256sum --check`` reads: a line a file, ``<64 hex digits>  <path in the folder>``,
sorted by path. A file that changed by accident or by halves is refused. It is no signature: whoever may write the
folder may write the sums as well.
"""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from voice_biometrics.errors import InputError
from voice_biometrics.files import written_whole

SUMS_NAME = "SHA256SUMS"
MAX_FILES = 64
MAX_FILE_BYTES = 256 * 2**20  # of one file
MAX_SUMS_BYTES = 64 * 2**10
SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._/-]{0,199})")
ADVICE = "take a fresh copy of the model folder, or export it again"


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` for every file of ``folder`` and below."""
    names = sorted(_names_of_files(folder))
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    with written_whole(folder / SUMS_NAME) as temporary:
        temporary.write_text("".join(lines), encoding="ascii")


def read_checked_files(folder: Path, keep: Mapping[str, int]) -> dict[str, bytes]:
    """Check every file that ``SHA256SUMS`` lists and return the contents of those named in ``keep``.

    What is returned is what was checked: the bytes are read once.

    Arguments
    ---------
    folder : the model folder.
    keep : name -> largest size in bytes; each must be listed.

    Raises
    ------
    InputError : a file is missing, unlisted (hidden ones apart), too large, no plain file, outside the folder (by its
        path or a symbolic link), or differs from its checksum; it is named.
    """
    sums = _read_sums(folder)
    missing = sorted(set(keep) - set(sums))
    if missing:
        raise InputError(f"{folder / SUMS_NAME}: expected a line for {missing[0]}, found none; {ADVICE}")
    unlisted = sorted(_names_of_files(folder) - set(sums))
    if unlisted:
        raise InputError(f"{folder / unlisted[0]}: not listed in {SUMS_NAME}; take it out of the folder, or {ADVICE}")
    contents = {}
    for name, expected in sums.items():
        content = _read_bounded(folder, name, keep.get(name, MAX_FILE_BYTES))
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise InputError(f"{folder / name}: expected sha256 {expected[:12]}..., found {found[:12]}...; {ADVICE}")
        if name in keep:
            contents[name] = content
    return contents


def _names_of_files(folder: Path) -> set[str]:
    """Return the paths in the folder of all that is to be listed: every file but the list, and what is hidden."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)} - {SUMS_NAME}


def _read_sums(folder: Path) -> dict[str, str]:
    """Return path -> checksum."""
    path = folder / SUMS_NAME
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a model folder, found none; make one with export.py")
    text = _read_bounded(folder, SUMS_NAME, MAX_SUMS_BYTES).decode("ascii", errors="replace")
    sums: dict[str, str] = {}
    *lines, rest = text.split("\n")
    if rest:
        raise InputError(f"{path}: expected a newline at its end, found none: cut short; {ADVICE}")
    for number, line in enumerate(lines, start=1):
        match = SUMS_LINE.fullmatch(line)
        if match is None or ".." in PurePosixPath(match[2]).parts:
            raise InputError(f"{path}, line {number}: expected '<sha256>  <path in the folder>'; {ADVICE}")
        if match[2] in sums:
            raise InputError(f"{path}, line {number}: {match[2]} is listed twice; {ADVICE}")
        sums[match[2]] = match[1]
    if not 0 < len(sums) <= MAX_FILES:
        raise InputError(f"{path}: expected 1 to {MAX_FILES} files, found {len(sums)}; {ADVICE}")
    return sums


def _read_bounded(folder: Path, name: str, max_bytes: int) -> bytes:
    """Return the bytes of one plain file that lies in ``folder``; never more than ``max_bytes``."""
    path = folder / name
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            raise InputError(f"{path}: a symbolic link leads out of the model folder, to {real}; {ADVICE}")
        with open(real, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: expected a plain file; {ADVICE}")
            content = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(f"{path}: could not be read ({getattr(error, 'strerror', error)}); {ADVICE}") from error
    size = max(status.st_size, len(content))
    if size > max_bytes:
        raise InputError(f"{path}: expected at most {max_bytes:,} bytes, found {size:,}; {ADVICE}")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file, but no pipe that would wait for a writer, and no link that was put there meanwhile."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
