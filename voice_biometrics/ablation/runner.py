"""Carry out the runs of a study: train and evaluate each in its own processes, one or several runs at a time.

``study.json`` of a run folder: ``fingerprint``; ``trained``, whether the training is complete; ``train_cpu_s``, null if
it was interrupted; ``hardware``; ``evaluated_from``, null before the evaluation.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import NamedTuple

import torch
from tqdm import tqdm

from voice_biometrics.ablation.plan import STATE, PlannedRun
from voice_biometrics.ablation.score_run import describe_hardware
from voice_biometrics.common.files import read_json, write_json
from voice_biometrics.experiment.run_folder import read_epochs

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "train.py"
EVALUATION = ROOT / "voice_biometrics" / "ablation" / "score_run.py"
LOG = "study.log"
TRIALS = "trials"  # folder in that of the study
POLL_S = 0.5
NUM_LAST_LINES = 8
LOG_INTERVAL_S = 30  # between two updates of a progress bar in a log

# Runs a script that ends with its parent: standard input is a pipe, which the system closes when the parent ends in any
# way. A training that outlived a killed study would hold its run folder.
CHILD = """
import os, runpy, sys, threading
def end_with_parent():
    while os.read(0, 1024):
        pass
    os._exit(143)
threading.Thread(target=end_with_parent, daemon=True).start()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Failure(NamedTuple):
    """A run that failed, in which step, and the exit status (negative: a signal)."""

    run: PlannedRun
    step: str
    status: int

    def last_lines(self) -> list[str]:
        """Return the last non-empty lines of the log; of a progress bar its last state."""
        lines = (self.run.folder / LOG).read_bytes().decode(errors="replace").split("\n")
        shown = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines]
        return [line for line in shown if line.strip()][-NUM_LAST_LINES:]


def carry_out(
    runs: Sequence[PlannedRun],
    num_jobs: int,
    devices: Sequence[str],
    study_folder: Path,
    after_each: Callable[[], None],
) -> list[Failure]:
    """Carry out runs with a progress bar, call ``after_each`` after each, and return the failures.

    ``num_jobs`` run at a time and take turns at ``devices`` (none: SpeechBrain's choice). A run that fails does not
    stop the others. A run that copies a network comes after the one that trains it.
    """
    workers = Workers(num_jobs, devices, study_folder)
    epochs_to_do = {run.folder: run.epochs_to_do for run in runs}
    interval_s = 0.1 if sys.stderr.isatty() else LOG_INTERVAL_S
    look = {"unit": "epoch", "smoothing": 0.0, "mininterval": interval_s, "dynamic_ncols": True}
    jobs: dict[Path, Future] = {}
    with ThreadPoolExecutor(num_jobs) as pool, tqdm(total=sum(epochs_to_do.values()), **look) as bar:
        try:
            for run in runs:
                jobs[run.folder] = pool.submit(workers.carry_out, run, jobs.get(run.source))
            waiting = set(jobs.values())
            while waiting:
                done, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
                for job in done:
                    job.result()  # raises the exception of its thread
                    after_each()
                trained = [run for run in workers.started if run.trains]
                missing = sum(run.num_epochs - len(read_epochs(run.folder)) for run in trained)
                bar.update(sum(epochs_to_do[run.folder] for run in trained) - missing - bar.n)
        finally:
            workers.stop()
            pool.shutdown(cancel_futures=True)
    return [failure for job in jobs.values() if (failure := job.result())]


class Workers:
    """Carries out runs in threads; training and evaluation are processes that ``stop`` ends."""

    def __init__(self, num_jobs: int, devices: Sequence[str], study_folder: Path) -> None:
        self.study_folder = study_folder
        self.started: list[PlannedRun] = []
        self._free: SimpleQueue[str | None] = SimpleQueue()
        for number in range(num_jobs):
            self._free.put(devices[number % len(devices)] if devices else None)
        num_sharing = 1 if "OMP_NUM_THREADS" in os.environ else num_jobs
        self._num_threads = max(1, torch.get_num_threads() // num_sharing)
        self._lock, self._stopped = Lock(), False
        self._children: list[subprocess.Popen] = []

    def carry_out(self, run: PlannedRun, source: Future | None) -> Failure | None:
        """Carry out a run after its ``source``, whose network it copies, if any; return the failure, if any."""
        if source and source.result():
            return source.result()
        device, started = self._free.get(), time.monotonic()
        tqdm.write(f"{run.name}: {run.action} ({run.reason})")
        try:
            failure = self._train_and_evaluate(run, device)
        finally:
            self._free.put(device)
        taken = tqdm.format_interval(time.monotonic() - started)
        tqdm.write(f"{run.name}: {'failed' if failure else 'done'} after {taken}")
        return failure

    def _train_and_evaluate(self, run: PlannedRun, device: str | None) -> Failure | None:
        if run.action == "retrain" or run.action == "copy" and (run.folder / "save").exists():
            _set_aside(run, self.study_folder)
        self.started.append(run)
        if run.trains:
            state = {
                "fingerprint": run.fingerprint,
                "trained": False,
                "train_cpu_s": None,
                "hardware": describe_hardware(device or run.device, self._num_threads),
                "evaluated_from": None,
            }
            write_json(state, run.folder / STATE)
            status, cpu_s = self._python(TRAINING, run.arguments, run.folder, device)
            if status:
                return Failure(run, "training", status)
            state |= {"trained": True, "train_cpu_s": None if run.action == "resume" else cpu_s}
            write_json(state, run.folder / STATE)
        elif run.action == "copy":
            copy_network(run)
        trials = str(self.study_folder / TRIALS)
        status, _ = self._python(EVALUATION, [trials, *run.arguments], run.folder, device)
        if status:
            return Failure(run, "evaluation", status)
        write_json(run.state | {"evaluated_from": run.evaluated_from}, run.folder / STATE)
        return None

    def _python(self, script: Path, arguments: list[str], folder: Path, device: str | None) -> tuple[int, float]:
        """Run a script, its output appended to the log; return exit status and CPU time (s, with child processes)."""
        arguments = [str(script), *arguments, *(["--device", device] if device else [])]
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TQDM_MININTERVAL": str(LOG_INTERVAL_S),
            "OMP_NUM_THREADS": str(self._num_threads),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / LOG, "ab") as log, self._lock:
            if self._stopped:
                return 143, 0.0
            log.write(f"\n$ python {' '.join(arguments)}\n".encode())
            log.flush()
            outputs = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.STDOUT}
            child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], env=environment, **outputs)
            self._children.append(child)
        _, status, usage = os.wait4(child.pid, 0)  # the CPU time of this process alone
        child.stdin.close()
        child.returncode = os.waitstatus_to_exitcode(status)
        return child.returncode, usage.ru_utime + usage.ru_stime

    def stop(self) -> None:
        """End the processes, and start no more."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.stdin.close()


def _set_aside(run: PlannedRun, study_folder: Path) -> None:
    """Move the folder of a run to ``<study folder>/replaced``."""
    number = 1
    while (aside := study_folder / "replaced" / f"{run.variant}-{run.seed}-{number}").exists():
        number += 1
    aside.parent.mkdir(parents=True, exist_ok=True)
    run.folder.rename(aside)


def copy_network(run: PlannedRun) -> None:
    """Copy checkpoints, hparams, manifests and figures per epoch from the run that trained the network."""
    run.folder.mkdir(parents=True, exist_ok=True)
    for name in ("save", "manifests"):
        shutil.copytree(run.source / name, run.folder / name, dirs_exist_ok=True)
    for name in ("hyperparams.yaml", "metrics.csv"):
        shutil.copy2(run.source / name, run.folder / name)
    write_json(
        read_json(run.source / STATE) | {"fingerprint": run.fingerprint, "evaluated_from": None}, run.folder / STATE
    )
