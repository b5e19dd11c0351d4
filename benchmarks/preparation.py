"""Time the preparation of a corpus: ``python benchmarks/preparation.py [NUMBER_OF_FILES]``.

Makes that many small WAV files (150,000 unless named; 0.1 s, 100 a speaker) in a temporary folder and prepares their
manifests: listing, headers, split, trials, writing. Prints files a second, the first time and the second, when nothing
has changed.
"""

import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from data_prep.prepare import prepare
from data_prep.settings import Settings

UTTERANCES_A_SPEAKER = 100


def main(num_files: int) -> None:
    """Make the files, prepare them twice and print the speed."""
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder / "voices", num_files)
        settings = Settings("speaker_folders", str(folder / "voices"))
        for attempt in ("new", "unchanged"):
            started = time.perf_counter()
            prepare(settings, folder / "manifests")
            seconds = time.perf_counter() - started
            print(f"{attempt:>9}: {num_files:,} files in {seconds:.1f} s, {num_files / seconds:,.0f} files/s")


def make_files(folder: Path, num_files: int) -> None:
    """Write copies of one small file, a folder a speaker."""
    folder.mkdir()
    first = folder.parent / "first.wav"
    soundfile.write(first, np.random.default_rng(0).uniform(-0.1, 0.1, 1600), 16000)
    for number in range(num_files):
        place = folder / f"speaker{number // UTTERANCES_A_SPEAKER:05d}"
        place.mkdir(exist_ok=True)
        shutil.copyfile(first, place / f"{number}.wav")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150_000)
