"""Kill training, evaluation, export, a study and enrolment at random moments, and count what is lost.

    python benchmarks/kills.py [--kills 50] [--jobs train_1 evaluate ...] [--seed 0]

On artificial speakers and a network of toy size. Each job runs to its end once, unkilled. Then it is started again in
another folder, a process of it is killed (SIGKILL) at a random moment, all files that it has left are read, and the
same command is repeated at once, until its kills are used up and it ends. Of several processes, any may be killed.
Counted, with the expected number:

- lost (0): repeated commands that fail, so that a user would have to intervene;
- different (0): ends that differ from that of the unkilled job (losses, error rates, scores, checksums, names);
- half files (0): files under their final name that cannot be read, other than logs.

Jobs: training by 1 and 2 processes, without and with a loading process each (``_workers``), with a checkpoint after
each step; ``eval_eer.py``; ``export.py``; a study of two runs; two processes that enrol voices. Prints a table and the
counts as JSON; the exit status is 1 if a count is not as expected.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import numpy as np
import onnx
import pandas as pd
import torch
import torch._dynamo  # which the optimiser loads, in seconds
from filelock import FileLock
from PIL import Image

import eval_eer
import export
import run_ablations
import train
from tests.conftest import write_speakers
from tests.run_folders import write_run_folder
from tests.store_processes import template
from voice_biometrics.inference.store import Store

TINY = "tests/hparams/tiny.yaml"
EACH_STEP = ["--ckpt_interval_minutes", "0", "--ckpt_interval_steps", "1", "--number_of_epochs", "3"]
UNFINISHED = (".", "unfinished-", "broken-")  # beginnings of names that nothing takes for whole
NUM_VOICES = 40
KILLS_A_FOLDER = 5
FIGURES = ["train_loss", "lr", "eer"]


@dataclass
class Job:
    """Something to kill."""

    work: Callable[[Path], object]  # does it in a folder
    end_of: Callable[[Path], object]  # what it must end with
    share: float  # of the kills
    prepare: Callable[[Path], object] = lambda folder: None  # done once for a folder, not killed
    counts: dict[str, int] = field(default_factory=lambda: {"kills": 0, "lost": 0, "different": 0, "half files": 0})


def make_jobs(corpus: Path, trained: Path) -> dict[str, Job]:
    """Return the jobs; ``trained`` is a finished run with held-out speakers enough to calibrate on."""

    def training(processes: int, workers: int) -> Job:
        more = ["--processes", str(processes), "--num_workers", str(workers), *EACH_STEP]
        return Job(lambda folder: train.main(arguments(corpus, folder, *more)), read_curve, 0.14)

    def copy_run(folder: Path) -> None:
        os.system(f"cp -r {trained}/. {folder}")

    study = [TINY, "--base", TINY, "--seeds", "1", "2", *arguments(corpus, Path())[1:5], "--device", "cpu"]
    return {
        "train_1": training(1, 0),
        "train_1_workers": training(1, 1),
        "train_2": training(2, 0),
        "train_2_workers": training(2, 1),
        "evaluate": Job(lambda folder: eval_eer.main([str(folder)]), read_evaluation, 0.12, copy_run),
        "export": Job(lambda folder: export.main([str(folder)]), read_export, 0.12, copy_run),
        "study": Job(lambda folder: run_ablations.main([*study, "--output_folder", str(folder)]), read_study, 0.08),
        "enrol": Job(enrol_by_two, read_voices, 0.12),
    }


def arguments(corpus: Path, folder: Path, *more: str) -> list[str]:
    """Return the arguments of train.py."""
    own = ["--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(folder)]
    return [TINY, *own, "--device", "cpu", "--noprogressbar", *more]


def read_curve(folder: Path) -> object:
    """Return losses, learning rates and EERs, to the last digit."""
    return pd.read_csv(folder / "metrics.csv", dtype=str)[FIGURES].to_numpy().tolist()


def read_evaluation(folder: Path) -> object:
    """Return scores and figures, without the name of the folder."""
    texts = [(folder / "eval" / "valid" / name).read_text() for name in ("scores.csv", "metrics.json")]
    return [text.replace(str(folder), "") for text in texts]


def read_export(folder: Path) -> object:
    """Return the names and checksums of a model folder's files, without the card, which has a date."""
    lines = (folder / "model" / "SHA256SUMS").read_text().splitlines()
    return sorted(line for line in lines if not line.endswith((".onnx", ".md")))


def read_study(folder: Path) -> object:
    """Return variants, seeds and error rates."""
    table = pd.read_csv(folder / "ablations.csv", dtype=str)
    return table[[name for name in table if "eer" in name.lower()]].to_numpy().tolist()


def read_voices(folder: Path) -> object:
    """Return the names in the store; raises an error if a confirmed voice is not in it."""
    names = sorted(dict(Store(folder / "voices.db").items()))
    confirmed = {name for log in folder.glob("*.confirmed") for name in log.read_text().split("\n")[:-1]}
    if not confirmed <= set(names):
        raise ValueError(f"confirmed but not in the store: {sorted(confirmed - set(names))[:3]}")
    return names


def enrol_by_two(folder: Path) -> None:
    """Enrol voices in two processes at once, those that are not enrolled yet, and note each that is confirmed.

    If one is killed, the other goes on, so that of the repeated command waits for it.
    """
    other = os.fork()
    prefix = "second" if not other else "first"
    with FileLock(folder / f"{prefix}.lock"), open(folder / f"{prefix}.confirmed", "a") as confirmed:
        store = Store(folder / "voices.db", create=True)
        known = set(dict(store.items()))
        for number in range(NUM_VOICES):
            if (name := f"{prefix}-{number}") not in known:
                store.add(name, template(number))
                confirmed.write(f"{name}\n")
                confirmed.flush()
    if not other:
        os._exit(0)
    if os.waitpid(other, 0)[1]:
        sys.exit(1)


def start(work: Callable[[], object], log: Path) -> int:
    """Start ``work`` in a forked process, its output appended to ``log``, and return its number."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        with open(log, "ab", 0) as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status & 255)


def processes_of(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return [pid]
    return [pid, *(other for child in children for other in processes_of(int(child)))]


def end_of(pid: int, kill_after_s: float = float("inf")) -> tuple[bool, int]:
    """Wait for the end of ``pid``, one process of it being killed after a time; return if so, and the status."""
    deadline = time.monotonic() + kill_after_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return False, os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    try:
        os.kill(random.choice(processes_of(pid)), signal.SIGKILL)
    except ProcessLookupError:  # it ended meanwhile
        return end_of(pid, 0.01)
    return True, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def half_files(folder: Path) -> list[str]:
    """Return the files of a folder that cannot be read, without logs and those that are named as unfinished."""
    readers = {
        ".json": lambda path: json.loads(path.read_text()),
        ".csv": lambda path: pd.read_csv(path).pipe(whole_rows, path),
        ".png": lambda path: Image.open(path).verify(),
        ".onnx": lambda path: onnx.load(path),
        ".ckpt": read_checkpoint_file,
        ".yaml": lambda path: path.read_text().strip() or fail("empty"),
        ".npz": lambda path: dict(np.load(path)),
    }
    found = []
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder).parts
        if path.suffix in readers and not any(part.startswith(UNFINISHED) for part in within):
            try:
                readers[path.suffix](path)
            except FileNotFoundError:
                pass  # of processes that had not ended yet
            except Exception as error:
                found.append(f"{path}: {error}")
    return found


def whole_rows(table: pd.DataFrame, path: Path) -> None:
    """Raise an error for an unfinished last line."""
    if not path.read_text().endswith("\n"):
        fail("unfinished")


def read_checkpoint_file(path: Path) -> None:
    """Read a file of a checkpoint."""
    if path.read_bytes()[:2] == b"PK":
        torch.load(path, weights_only=True)
    elif not path.read_text().strip():
        fail("empty")


def fail(message: str) -> None:
    """Raise an error."""
    raise ValueError(message)


def torment(name: str, job: Job, num_kills: int, place: Path) -> None:
    """Run a job unkilled, then kill it ``num_kills`` times, and count."""
    whole, expected, seconds = place / "whole", None, 0.0
    attempts = (f"killed_{number}" for number in range(1, 5 * num_kills))  # some end before they are killed
    for attempt in ("whole", *attempts):
        if attempt != "whole" and job.counts["kills"] == num_kills:
            break
        folder, log = place / attempt, place / f"{attempt}.log"
        folder.mkdir(parents=True)
        job.prepare(folder)
        kills_here = 0 if attempt == "whole" else min(KILLS_A_FOLDER, num_kills - job.counts["kills"])
        to_do, work, started, killed = kills_here, partial(job.work, folder), time.monotonic(), True
        while killed:
            killed, status = end_of(start(work, log), random.uniform(0, seconds) if kills_here else float("inf"))
            if killed:
                kills_here -= 1
                job.counts["kills"] += 1
                job.counts["half files"] += report(half_files(folder))
        if status:
            job.counts["lost"] += report([f"{name}: status {status}, see {log}: {log.read_text()[-600:]}"])
        if kills_here == to_do and not status:  # a machine less busy than before takes less time
            seconds = time.monotonic() - started
        if attempt == "whole":
            expected = job.end_of(whole)
        elif not status and job.end_of(folder) != expected:
            job.counts["different"] += report([f"{name}: {folder} differs from {whole}"])
    print(f"{name}: {seconds:.1f} s unkilled, {job.counts}", file=sys.stderr, flush=True)


def report(faults: list[str]) -> int:
    """Print faults and return their number."""
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr, flush=True)
    return len(faults)


def main() -> int:
    """Run the campaign and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="in all, shared by the jobs")
    parser.add_argument("--jobs", nargs="+", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    os.chdir(Path(__file__).parents[1])
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)  # this process is forked, so it must not have threads
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    corpus, trained = place / "corpus", place / "trained"
    write_speakers(corpus / "train", num_speakers=8, num_utterances=6)
    write_speakers(corpus / "test", num_speakers=3, num_utterances=4, first_speaker=8)
    many = write_speakers(place / "many", num_speakers=12, num_utterances=3)
    end_of(start(partial(write_run_folder, trained, many), place / "trained.log"))
    jobs = make_jobs(corpus, trained)
    jobs = {name: jobs[name] for name in options.jobs or jobs}
    shares = sum(job.share for job in jobs.values())
    done = 0.0
    for name, job in jobs.items():
        before, done = round(done), done + options.kills * job.share / shares
        torment(name, job, round(done) - before, place / name)
    print("| job | kills | lost | different | half files |\n|---|---|---|---|---|")
    for name, job in jobs.items():
        print(f"| {name} | " + " | ".join(map(str, job.counts.values())) + " |")
    total = {key: sum(job.counts[key] for job in jobs.values()) for key in ("kills", "lost", "different", "half files")}
    print(json.dumps({"counts": total, "folder": str(place)}))
    return int(total != {"kills": options.kills, "lost": 0, "different": 0, "half files": 0})


if __name__ == "__main__":
    sys.exit(main())
