"""What a report says of how it was made, so that somebody else can make it again."""

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from voice_biometrics import figures, thresholds
from voice_biometrics.report import Code, Facts, Section

PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "scipy", "pandas", "matplotlib")


def how_made(command: str, facts: Mapping[str, object], files: Sequence[Path]) -> Section:
    """Return the section with the command, facts of the run, seeds, versions, and checksums of ``files``."""
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    all_facts = {
        **facts,
        "seeds": f"bootstrap {figures.SEED}, folds {thresholds.SEED}; conditions: from each utterance's ID",
        "bootstrap": "1,000 draws of speakers",
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        **versions,
        **{f"SHA-256 of {file.name}": sha256(file) for file in files},
    }
    return Section("How this was made", [Code(command), Facts(all_facts)])


def sha256(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
