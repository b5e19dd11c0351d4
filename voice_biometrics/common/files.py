"""Files that are whole or not there: written under a temporary name, then renamed."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from voice_biometrics.common.errors import InputError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and rename it to ``path`` when the block ends well.

    The temporary name keeps the suffix, which tells many writers the format. When the block fails the temporary file
    is removed and ``path`` is as it was. Raises InputError when the disk is full or the folder not writable.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: could not be written ({error.strerror or error}); check space and rights") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(content: dict, path: Path) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
