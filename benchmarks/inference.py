"""Time a model folder beside its peers and print one table: ``python benchmarks/inference.py --model MODEL_FOLDER``.

Reads real speech (``../shared/corpora/speechocean762/WAVE`` unless --audio names another folder). Every row is measured
in processes of its own: verify.py from start to end; 3 s of audio to an embedding with one thread, as often as fits
into --seconds; the first --files files of the folder with two threads, decoding included; the best of --voices enrolled
voices with two threads. Resemblyzer is timed where it can be imported (``pip install resemblyzer==0.1.4``).

The fastest is what the processor can do; the median tells how busy the machine was.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import processor
from inference_jobs import JOBS, NOT_INSTALLED, cold_commands, time_process, two_files

from voice_biometrics.inference.model_folder import read_model_folder

NAMES = {
    "onnx_fp32": "this model, embedder.onnx",
    "onnx_int8": "this model, embedder.int8.onnx",
    "speechbrain_eager": "this model, SpeechBrain (PyTorch eager)",
    "ecapa_1024": "ECAPA C=1024, SpeechBrain (PyTorch eager)",
    "resemblyzer": "Resemblyzer 0.1.4",
}
LIMITS = {
    ("compare", "onnx_fp32"): "under 0.8 s, under 250 MB",
    ("utterance", "onnx_fp32"): "under 4.5 ms, real-time factor under 0.0015",
    ("utterance", "onnx_int8"): "under 2.5 ms, real-time factor under 0.0008",
    ("folder", "onnx_fp32"): "at least 250 files/s",
}
COLUMNS = "| job | system | measured | must reach |\n|---|---|---|---|"
PEER_FILES = 250  # a peer's rate is known from fewer files
Row = tuple[str, str, str, str]


def main() -> None:
    """Run one job, or all of them and print the table."""
    options = parse_options()
    if options.job:
        name, job = options.job
        print(json.dumps(JOBS[job](name, options)))
        return
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{COLUMNS}", flush=True)
    for rows in (cold_rows, utterance_rows, folder_rows, int8_rows, identification_rows):
        for row in rows(options):
            print(f"| {' | '.join(row)} |", flush=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("pretrained"))
    parser.add_argument("--audio", type=Path, default=Path("../shared/corpora/speechocean762/WAVE"))
    parser.add_argument("--repeats", type=int, default=10, help="of a whole process, or a whole folder")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--files", type=int, default=2500)
    parser.add_argument("--voices", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def cold_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Two files of 4 s compared by a process that begins with nothing."""
    with two_files(options) as files:
        for name, command in cold_commands(options, files):
            print(f"running {name}, compare", file=sys.stderr)
            found = time_process(command, options.repeats)
            words = "" if found is None else f"{_seconds(found)}, {found['peak_mb']:.0f} MB"
            yield _row("compare two files of 4 s, whole process", name, "compare", words)


def utterance_rows(options: argparse.Namespace) -> Iterator[Row]:
    """3 s of audio to an embedding."""
    for name in NAMES:
        found = measure(name, "utterance", options)
        words = "" if found is None else f"{_milliseconds(found)}, real-time factor {found['fastest_s'] / 3:.5f}"
        yield _row("3 s to embedding, 1 thread", name, "utterance", words)


def folder_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Files to embeddings."""
    for name in NAMES:
        found = measure(name, "folder", options)
        words = "" if found is None else _files_per_second(found)
        yield _row("folder to embeddings, 2 threads", name, "folder", words)


def int8_rows(options: argparse.Namespace) -> Iterator[Row]:
    """What the model folder says of its int8 file; ``parity.py`` measures it anew."""
    embedders = read_model_folder(options.model).embedders
    exact, quantised = (100 * embedders[precision].eer.estimate for precision in ("fp32", "int8"))
    words = f"{quantised - exact:+.2f} points ({quantised:.2f} % against {exact:.2f} %)"
    yield ("EER of int8 against fp32, held-out speakers", "calibration.json", words, "at most 0.2 points above")


def identification_rows(options: argparse.Namespace) -> Iterator[Row]:
    """The best of many enrolled voices."""
    found = measure("gallery", "identification", options)
    yield (f"best of {options.voices:,} voices, 2 threads", "matrix product", _milliseconds(found), "under 100 ms")


def measure(name: str, job: str, options: argparse.Namespace) -> dict[str, float] | None:
    """Run one job in a process of its own; None where the system is not installed."""
    print(f"running {name}, {job}", file=sys.stderr)
    threads = 1 if job == "utterance" else 2
    files = options.files if name.startswith("onnx") else min(options.files, PEER_FILES)
    given = {"model": options.model, "audio": options.audio, "seconds": options.seconds, "files": files}
    given |= {"voices": options.voices, "threads": threads, "repeats": options.repeats}
    flags = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    call = [sys.executable, __file__, *flags, "--job", name, job]
    done = subprocess.run(call, capture_output=True, text=True, env=environment)
    if NOT_INSTALLED in done.stderr:
        return None
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _row(job: str, name: str, limit: str, words: str) -> Row:
    return (job, NAMES[name], words or "not installed", LIMITS.get((limit, name), ""))


def _seconds(found: dict[str, float]) -> str:
    return f"{found['fastest_s']:.2f} s (median {found['median_s']:.2f})"


def _milliseconds(found: dict[str, float]) -> str:
    return f"{1000 * found['fastest_s']:.2f} ms (median {1000 * found['median_s']:.2f})"


def _files_per_second(found: dict[str, float]) -> str:
    fastest, median = (found["files"] / found[f"{key}_s"] for key in ("fastest", "median"))
    return f"{fastest:,.0f} files/s (median {median:,.0f}; {found['files']:,} files)"


if __name__ == "__main__":
    main()
