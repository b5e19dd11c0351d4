"""Carry out the runs of a study: train and evaluate each in its own processes, one or several runs at a time.

``study.json`` of a run folder: ``fingerprint``; ``trained``, whether the training is complete; ``train_cpu_s``, null if
it was interrupted; ``hardware``; ``evaluated_from``, null before the evaluation.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from voice_biometrics.ablation.plan import STATE, PlannedRun, read_state
from voice_biometrics.ablation.score_run import describe_hardware
from voice_biometrics.common.files import write_json
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


class Place(NamedTuple):
    """Device and number of CPU threads of one simultaneous run; None: the choice of SpeechBrain and PyTorch."""

    device: str | None
    num_threads: int | None


def make_places(num_jobs: int, devices: Sequence[str]) -> list[Place]:
    """Return a place for each simultaneous run; they take turns at the devices and share the CPU cores."""
    share = max(1, (os.cpu_count() or 1) // num_jobs)
    num_threads = share if num_jobs > 1 and "OMP_NUM_THREADS" not in os.environ else None
    return [Place(devices[i % len(devices)] if devices else None, num_threads) for i in range(num_jobs)]


def carry_out(
    runs: Sequence[PlannedRun], places: Sequence[Place], study_folder: Path, after_each: Callable[[], None]
) -> list[Failure]:
    """Carry out runs with a progress bar, call ``after_each`` after each, and return the failures.

    A run that fails does not stop the others.
    """
    waiting, free, active = list(runs), list(places), []
    failures: dict[Path, Failure] = {}
    num_epochs, num_trained = sum(run.epochs_to_do for run in runs), 0
    interval_s = 0.1 if sys.stderr.isatty() else LOG_INTERVAL_S
    with tqdm(total=num_epochs, unit="epoch", smoothing=0.0, mininterval=interval_s, dynamic_ncols=True) as bar:
        try:
            while waiting or active:
                unfinished = {run.folder for run in waiting} | {job.run.folder for job in active}
                while free and (run := next((run for run in waiting if run.source not in unfinished), None)):
                    waiting.remove(run)
                    place = free.pop(0)
                    active.append(Job(run, place, _steps(run, place, study_folder, failures.get(run.source))))
                    bar.write(f"{run.name} ({len(runs) - len(waiting)} of {len(runs)}): {run.action} ({run.reason})")
                for job in [job for job in active if job.advance()]:
                    active.remove(job)
                    free.append(job.place)
                    num_trained += len(job.epochs())
                    if job.failure:
                        failures[job.run.folder] = job.failure
                    taken = tqdm.format_interval(time.monotonic() - job.started)
                    bar.write(f"{job.run.name}: {'failed' if job.failure else 'done'} after {taken}")
                    after_each()
                rows = {job.run.name: job.epochs() for job in active}
                eers = [f"{name}: EER {done[-1]['eer']:.2%}" for name, done in rows.items() if done]
                bar.set_postfix_str("; ".join(eers), refresh=False)
                bar.update(num_trained + sum(map(len, rows.values())) - bar.n)
                time.sleep(POLL_S if active else 0.0)
        finally:
            for job in active:
                job.stop()
    return list(failures.values())


Steps = Generator[tuple[Path, list[str]], tuple[int, float], Failure | None]


def _steps(run: PlannedRun, place: Place, study_folder: Path, source_failure: Failure | None) -> Steps:
    """Yield the scripts of one run with their arguments, receive the outcomes, and return the failure, if any."""
    if source_failure:
        return source_failure
    if run.action == "retrain" or run.action == "copy" and (run.folder / "save").exists():
        _set_aside(run, study_folder)
    if run.trains:
        state = {
            "fingerprint": run.fingerprint,
            "trained": False,
            "train_cpu_s": None,
            "hardware": describe_hardware(place.device or run.device, place.num_threads or torch.get_num_threads()),
            "evaluated_from": None,
        }
        write_json(state, run.folder / STATE)
        status, cpu_s = yield TRAINING, run.arguments
        if status:
            return Failure(run, "training", status)
        state |= {"trained": True, "train_cpu_s": None if run.action == "resume" else cpu_s}
        write_json(state, run.folder / STATE)
    elif run.action == "copy":
        _copy_network(run)
    status, _ = yield EVALUATION, [str(study_folder / TRIALS), *run.arguments]
    if status:
        return Failure(run, "evaluation", status)
    write_json(read_state(run.folder) | {"evaluated_from": run.evaluated_from}, run.folder / STATE)
    return None


def _set_aside(run: PlannedRun, study_folder: Path) -> None:
    """Move the folder of a run to ``<study folder>/replaced``."""
    number = 1
    while (aside := study_folder / "replaced" / f"{run.variant}-{run.seed}-{number}").exists():
        number += 1
    aside.parent.mkdir(parents=True, exist_ok=True)
    run.folder.rename(aside)


def _copy_network(run: PlannedRun) -> None:
    """Copy checkpoints, manifests and figures per epoch from the run that trained the network."""
    run.folder.mkdir(parents=True, exist_ok=True)
    for name in ("save", "manifests"):
        shutil.copytree(run.source / name, run.folder / name, dirs_exist_ok=True)
    shutil.copy2(run.source / "metrics.csv", run.folder / "metrics.csv")
    write_json(read_state(run.source) | {"fingerprint": run.fingerprint, "evaluated_from": None}, run.folder / STATE)


class Job:
    """A run that is being carried out, with the process of its present step.

    ``steps`` yields scripts with arguments, receives exit status and CPU time (seconds, with child processes) of each,
    and returns the failure, if any.
    """

    def __init__(self, run: PlannedRun, place: Place, steps: Steps) -> None:
        self.run, self.place, self.started = run, place, time.monotonic()
        self.failure: Failure | None = None
        self._steps, self._process = steps, None
        self._epochs_before = run.num_epochs - run.epochs_to_do

    def advance(self) -> bool:
        """Start the next step if the process of the last one has ended; return whether all steps are done."""
        outcome = None
        if self._process:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)  # the CPU time of this process alone
            if not pid:
                return False
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self._process.stdin.close()
            outcome = self._process.returncode, usage.ru_utime + usage.ru_stime
            self._process = None
        try:
            self._process = self._start(*self._steps.send(outcome))
        except StopIteration as end:
            self.failure = end.value
            return True
        return False

    def _start(self, script: Path, arguments: list[str]) -> subprocess.Popen:
        """Start a Python script; its output is appended to the log."""
        arguments = [str(script), *arguments, *(["--device", self.place.device] if self.place.device else [])]
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TQDM_MININTERVAL": str(LOG_INTERVAL_S),
        }
        if self.place.num_threads:
            environment["OMP_NUM_THREADS"] = str(self.place.num_threads)
        self.run.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", CHILD, *arguments]
        with open(self.run.folder / LOG, "ab") as log:
            log.write(f"\n$ python {' '.join(arguments)}\n".encode())
            log.flush()
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def stop(self) -> None:
        """End the process."""
        if self._process:
            self._process.terminate()
            self._process.wait()

    def epochs(self) -> list[dict]:
        """Return the rows of ``metrics.csv`` for the epochs trained by this job."""
        return read_epochs(self.run.folder)[self._epochs_before :] if self.run.trains else []
