"""Atomic file writes (temporary file + rename), records of what made a file, and checksums."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from voice_biometrics.common.errors import InputError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Context manager: yield a temporary path in the same folder, renamed to ``path`` on success.

    The temporary name keeps the suffix, from which many writers infer the format. On failure the temporary file is
    removed and ``path`` is unchanged. Raises InputError when the disk is full or the folder is not writable.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write: {error.strerror or error}; check free space and permissions"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(content: dict, path: Path) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Return the content of a JSON file that ``write_json`` wrote; empty if it is missing or malformed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
