"""Feed broken recordings and model folders to the recognizer: ``python benchmarks/fuzz.py [OPTIONS]``.

    python benchmarks/fuzz.py --model pretrained --owner anna1.wav anna2.wav --strangers bert1.wav carl1.wav

The owner is enrolled; then three kinds of mutants are tried:

- recordings: a stranger's recording as WAV, FLAC, OGG, Opus, MP3 or AIFF is verified against the owner at the ``door``
  threshold. Expected: refused with a message of one line, or rejected.
- folders: one file of the model folder is changed. Expected: refused with a message of one line.
- resummed: the same with new checksums, so that the parsers read the change. Such a folder may accept, but not crash.

Any other exception, a crash, more than 60 s or more than 2 GiB is a failure. The work is done in child processes, so a
crash costs one mutant. Without --model, a toy model and synthetic voices are used. Prints the counts as JSON, and for
each failure the number and seed that reproduce it; exit status 1 if there was one.
"""

import argparse
import collections
import contextlib
import io
import json
import random
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import soundfile
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference import Recognizer
from voice_biometrics.inference.model_folder import SUMS_NAME, write_sums

BATCH = 500
TIMEOUT_S = 60.0
MAX_BYTES = 2 * 2**30
SAMPLE_RATE = 16000
USE = "door"
FORMATS = (
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"),
)  # fmt: skip
GOOD = {"recordings": {"rejected", "refused"}, "folders": {"refused"}, "resummed": {"rejected", "refused", "accepted"}}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 200  # where most formats describe their content


def main(arguments: list[str]) -> int:
    """Try all mutants, or, as a child process, some of one kind; return the exit status."""
    options = parse_options(arguments)
    if options.only:
        kind, start, stop = options.only
        run_here(kind, range(int(start), int(stop)), options.seed, Path(options.work))
        return 0
    with tempfile.TemporaryDirectory() as work:
        prepare(options, Path(work))
        failures, counts = try_all(options, Path(work))
    print(json.dumps({"seed": options.seed, "counts": counts, "failures": failures}, indent=2))
    return 1 if failures else 0


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, number in (("recordings", 20_000), ("folders", 2_000), ("resummed", 500)):
        parser.add_argument(f"--{kind}", type=int, default=number, help=f"mutants of this kind (default {number:,})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--owner", type=Path, nargs="+", help="recordings of the owner")
    parser.add_argument("--strangers", type=Path, nargs="+", help="recordings of other speakers")
    parser.add_argument("--only", nargs=3, metavar=("KIND", "START", "STOP"), help="try these mutants in this process")
    parser.add_argument("--work", help="the prepared folder, for --only")
    options = parser.parse_args(arguments)
    if options.model and not (options.owner and options.strangers):
        parser.error("--model needs --owner and --strangers")
    return options


def prepare(options: argparse.Namespace, work: Path) -> None:
    """Write the model folder, a store with the owner, and the recordings to change to ``work``."""
    if options.model:
        shutil.copytree(options.model, work / "model")
    else:
        make_toys(options, work)
    recognizer = Recognizer(work / "model", work / "voices.db", use=USE)
    recognizer.enrol("owner", options.owner)
    (work / "recordings").mkdir()
    for number, path in enumerate(options.strangers):
        samples = read_audio(path, SAMPLE_RATE)
        for file_format, subtype in FORMATS:
            to = work / "recordings" / f"{number}.{file_format}.{subtype}"
            soundfile.write(to, samples, SAMPLE_RATE, format=file_format, subtype=subtype)
            if recognizer.verify("owner", to).is_accepted:
                sys.exit(f"{path}: accepted without a change; give recordings of speakers that the model tells apart")


def make_toys(options: argparse.Namespace, work: Path) -> None:
    """Make a toy model folder and synthetic voices."""
    from tests.conftest import make_speech
    from tests.model_folders import write_toy_model_folder

    write_toy_model_folder(work / "model")
    for pitch_hz in (110, 230):
        soundfile.write(work / f"{pitch_hz}.wav", make_speech(pitch_hz, 2, seed=0), SAMPLE_RATE)
    options.owner, options.strangers = [work / "110.wav"], [work / "230.wav"]


def try_all(options: argparse.Namespace, work: Path) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Return the failures, and the number of mutants by kind and outcome."""
    failures, counts = [], {}
    for kind in GOOD:
        outcomes = collections.Counter()
        for number, outcome in tqdm(run_apart(kind, options, work), kind, getattr(options, kind), unit="mutants"):
            outcomes[outcome.split(":")[0]] += 1
            if outcome not in GOOD[kind]:
                failures.append(f"{kind} {number}, seed {options.seed}: {outcome}")
        counts[kind] = dict(outcomes)
    return failures, counts


def run_apart(kind: str, options: argparse.Namespace, work: Path) -> Iterator[tuple[int, str]]:
    """Yield number and outcome of every mutant; a child process that dies or hangs is replaced."""
    start, end = 0, getattr(options, kind)
    while start < end:
        stop = min(start + BATCH, end)
        command = [sys.executable, __file__, "--seed", str(options.seed), "--work", str(work)]
        command += ["--only", kind, str(start), str(stop)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:  # unbuffered, for select
            while start < stop:
                is_ready = select.select([process.stdout], [], [], TIMEOUT_S)[0]
                line = process.stdout.readline() if is_ready else b""
                if not line:
                    process.kill()
                    yield start, "hang" if not is_ready else f"crash: exit status {process.wait()}"
                    start += 1
                    break
                yield start, line.decode().strip()
                start += 1


def run_here(kind: str, numbers: range, seed: int, work: Path) -> None:
    """Print one line per mutant with its outcome."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        attempt = recordings(work, Path(scratch)) if kind == "recordings" else folders(kind, work, Path(scratch))
        for number in numbers:
            print(outcome_of(attempt, random.Random(f"{kind} {seed} {number}")), flush=True)


def outcome_of(attempt: Callable[[random.Random], bool], rng: random.Random) -> str:
    """Return "accepted", "rejected", "refused" or another outcome in one line."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:  # standard output is for answers only
        try:
            outcome = "accepted" if attempt(rng) else "rejected"
        except InputError as error:
            outcome = "refused" if len(str(error).splitlines()) == 1 else f"refused in many lines: {str(error)!r}"
        except Exception as error:
            outcome = f"exception: {type(error).__name__} {str(error)!r}"
    return f"{outcome} and printed: {printed.getvalue()!r}" if printed.getvalue() else outcome


def recordings(work: Path, scratch: Path) -> Callable[[random.Random], bool]:
    """Return a function that verifies a changed recording, as a file or a stream."""
    recognizer = Recognizer(work / "model", work / "voices.db", use=USE)
    originals = [path.read_bytes() for path in sorted((work / "recordings").iterdir())]

    def attempt(rng: random.Random) -> bool:
        content = mutate(rng.choice(originals), originals, rng)
        if rng.random() < 0.2:
            return recognizer.verify("owner", io.BytesIO(content)).is_accepted
        (scratch / "mutant").write_bytes(content)
        return recognizer.verify("owner", scratch / "mutant").is_accepted

    return attempt


def folders(kind: str, work: Path, scratch: Path) -> Callable[[random.Random], bool]:
    """Return a function that loads and uses a model folder with a changed file."""
    folder = Path(shutil.copytree(work / "model", scratch / "model"))
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    originals = {name: (folder / name).read_bytes() for name in names}
    recording = sorted((work / "recordings").iterdir())[0]

    def attempt(rng: random.Random) -> bool:
        name = rng.choice([name for name in names if kind == "folders" or name.name != SUMS_NAME])
        content = originals[name]
        while content == originals[name]:
            content = mutate(originals[name], list(originals.values()), rng)
        try:
            (folder / name).write_bytes(content)
            if kind == "resummed":
                write_sums(folder)
            precision = "int8" if "int8" in name.name else "fp32"
            recognizer = Recognizer(folder, work / "voices.db", use=USE, precision=precision)
            return recognizer.compare(recording, recording).is_accepted
        finally:
            for changed in (name, Path(SUMS_NAME)):
                (folder / changed).write_bytes(originals[changed])

    return attempt


def mutate(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return ``content`` with one to four random changes; pieces may come from ``others``."""
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(MUTATIONS)(content, others, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Return a random offset, in the header half of the time."""
    return rng.randrange(max(1, min(len(content), HEADER_BYTES) if rng.random() < 0.5 else len(content)))


def _flip_bits(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 30)) if changed else 0):
        changed[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _write_extreme(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place, value = _place(content, rng), rng.choice(EXTREMES)
    number = struct.pack(rng.choice("<>") + "Q", value)
    size = rng.choice((1, 2, 4, 8))
    piece = number[:size] if number[0] or not number[-1] else number[-size:]
    return content[:place] + piece + content[place + size :]


def _write_noise(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place, size = _place(content, rng), rng.choice((1, 4, 100, 4000))
    return content[:place] + rng.randbytes(size) + content[place + size :]


def _cut_end(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _cut_out(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[place + rng.choice((1, 2, 7, 1000)) :]


def _repeat(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place = _place(content, rng)
    piece = content[place : place + rng.choice((1, 4, 64, 5000))]
    return content[:place] + rng.choice((1, 2, 20)) * piece + content[place:]


def _splice(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    return content[: _place(content, rng)] + other[_place(other, rng) :]


MUTATIONS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flip_bits, _flip_bits, _write_extreme, _write_extreme, _write_noise, _cut_end, _cut_out, _repeat, _splice,
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
