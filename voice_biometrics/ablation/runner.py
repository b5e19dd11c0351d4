"""Carry out the runs of a study: train and evaluate each in processes of its own, one or several at a time.

One command in a process of its own: output into a log file, time taken, last words when it fails.

What is seen of a study while it goes on: a line a run, and the time that is left.
"""

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from voice_biometrics.ablation.plan import PlannedRun, RunState, Task, set_aside
from voice_biometrics.ablation.score_run import describe_hardware
from voice_biometrics.experiment.run_folder import read_epochs

ROOT = Path(__file__).parents[2]
POLL_S = 0.5
NUM_LAST_LINES = 8
LOGGED_EVERY_S = "30"  # progress bars write to the log
LAST_BYTES = 20_000  # of a log are read for its last lines


@dataclass(frozen=True)
class Outcome:
    """How a process ended: exit status (negative: by that signal) and its CPU time in seconds, children included."""

    status: int
    cpu_s: float


def run_script(
    script: Path,
    arguments: list[str],
    log: Path,
    environment: dict[str, str],
    watch: Callable[[], None],
    started: Callable[[subprocess.Popen], None],
) -> Outcome:
    """Run a Python script to its end, its output added to ``log``; ``watch`` is called twice a second meanwhile.

    The process ends when this one does. ``started`` is given the process, so that another thread can end it.
    """
    command = [sys.executable, "-m", "voice_biometrics.ablation.tether", str(script), *arguments]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths), "TQDM_MININTERVAL": LOGGED_EVERY_S}
    environment = os.environ | own | environment
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        output.write(f"\n$ {' '.join(command)}\n".encode())
        output.flush()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment
        ) as process:
            started(process)
            return _wait(process, watch)


def _wait(process: subprocess.Popen, watch: Callable[[], None]) -> Outcome:
    """Wait by ``os.wait4``, which tells the CPU time of this one process."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Outcome(process.returncode, usage.ru_utime + usage.ru_stime)
        watch()
        time.sleep(POLL_S)


def last_lines(log: Path) -> list[str]:
    """Return the last lines of a log that say something; of a progress bar, what it showed last."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in lines if line.strip()][-NUM_LAST_LINES:]


class StudyClock:
    """Progress lines, and how long the study still takes: by the epochs that are left at the pace so far."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.num_tasks = len(tasks)
        self.epochs_left = {task.run.name: task.epochs_to_do for task in tasks}
        self.num_epochs = sum(self.epochs_left.values())
        self.num_begun = 0
        self.started = time.monotonic()
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def line_of(self, task: Task, position: int) -> Iterator["RunLine"]:
        """Show the line of one task while it is carried out."""
        with self.lock:
            self.num_begun += 1
            label = f"{task.run.name} ({self.num_begun} of {self.num_tasks})"
        with RunLine(task, label, position, self) as line:
            yield line
            self.epochs_left[task.run.name] = 0

    def left(self) -> str:
        """Say how long all runs will take, once an epoch is done."""
        left = sum(self.epochs_left.values())
        done = self.num_epochs - left
        if not done:
            return ""
        seconds = left * (time.monotonic() - self.started) / done
        return f"study: about {tqdm.format_interval(seconds)} left"


class RunLine:
    """The line of one run: epochs, the EER so far, time left of the run and of the study.

    On a terminal a bar; elsewhere a line at the beginning and one at the end.
    """

    def __init__(self, task: Task, label: str, position: int, clock: StudyClock) -> None:
        self.task, self.label, self.clock = task, label, clock
        self.num_shown = task.epochs_done
        self.bar = tqdm(
            total=task.run.num_epochs if task.trains else None,
            initial=self.num_shown,
            desc=label,
            unit="epoch",
            position=position,
            dynamic_ncols=True,
            disable=None,  # where there is no terminal
        )
        self.started = time.monotonic()

    def __enter__(self) -> "RunLine":
        if self.bar.disable:
            print(f"{self.label}: {self.task.decision.action} ({self.task.decision.reason})", flush=True)
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()
        if self.bar.disable:
            taken = tqdm.format_interval(time.monotonic() - self.started)
            print(f"{self.label}: took {taken} {self.clock.left()}".rstrip(), flush=True)

    def update(self) -> None:
        """Show the epochs that are done by now."""
        rows = read_epochs(self.task.run.folder)
        if len(rows) > self.num_shown:
            self.clock.epochs_left[self.task.run.name] = self.task.run.num_epochs - len(rows)
            self.bar.set_postfix_str(f"EER {100 * rows[-1]['eer']:.2f} %, {self.clock.left()}", refresh=False)
            self.bar.update(len(rows) - self.num_shown)
            self.num_shown = len(rows)

    def say(self, text: str) -> None:
        self.bar.set_postfix_str(text)


LOG = "study.log"
COPIED_FOLDERS = ("save", "manifests")


@dataclass(frozen=True)
class Failure:
    """A run that failed: in which step, with which exit status, and its log."""

    run: PlannedRun
    step: str
    status: int
    log: Path

    @property
    def lines(self) -> list[str]:
        return last_lines(self.log)


@dataclass(frozen=True)
class Place:
    """Where one run at a time is carried out: a device (None: SpeechBrain's choice) and a number of CPU threads."""

    number: int
    device: str | None
    num_threads: int | None  # None: PyTorch's choice

    def arguments(self) -> list[str]:
        return ["--device", self.device] if self.device else []

    def environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(self.num_threads)} if self.num_threads else {}


def make_places(num_jobs: int, devices: Sequence[str]) -> list[Place]:
    """Return as many places as runs go on at a time; several share the cores, and the devices in turn."""
    share = max(1, (os.cpu_count() or 1) // num_jobs)
    num_threads = share if num_jobs > 1 and "OMP_NUM_THREADS" not in os.environ else None
    return [Place(i, devices[i % len(devices)] if devices else None, num_threads) for i in range(num_jobs)]


class Runner:
    """Carries out tasks; a task that fails does not stop the others.

    Arguments
    ---------
    train_script, evaluation_script : what is run for each task, with the arguments of train.py.
    trials : folder of the trials that all runs are evaluated on.
    study_folder : where runs that are trained anew are moved aside.
    """

    def __init__(self, train_script: Path, evaluation_script: Path, trials: Path, study_folder: Path) -> None:
        self.train_script = train_script
        self.evaluation_script = evaluation_script
        self.trials = trials
        self.study_folder = study_folder
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def carry_out(
        self, tasks: Sequence[Task], places: Sequence[Place], after_each: Callable[[], None]
    ) -> list[Failure]:
        """Carry out all tasks, a line of progress each, and return the failures; call ``after_each`` in between."""
        clock = StudyClock(tasks)
        free: queue.Queue[Place] = queue.Queue()
        for place in places:
            free.put(place)
        failures = []
        with ThreadPoolExecutor(len(places)) as pool, self._ended_on_error(pool):
            futures: dict[Path, Future] = {}
            for task in tasks:
                source = futures.get(task.decision.source)
                futures[task.run.folder] = pool.submit(self._in_a_place, task, free, clock, source)
            for future in as_completed(futures.values()):
                failure = future.result()
                failures += [failure] if failure else []
                after_each()
        return failures

    @contextlib.contextmanager
    def _ended_on_error(self, pool: ThreadPoolExecutor) -> Iterator[None]:
        """End all processes and begin no more when this one is interrupted, or the pool would wait for them."""
        try:
            yield
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            with self._lock:
                self._stopped = True
                for process in self._processes:
                    process.terminate()
            raise

    def _in_a_place(
        self, task: Task, free: "queue.Queue[Place]", clock: StudyClock, source: Future | None
    ) -> Failure | None:
        """Carry out one task, once ``source``, the task whose network it takes, is done; that one was begun before."""
        if source is not None and (failure := source.result()):
            return failure
        place = free.get()
        try:
            with clock.line_of(task, place.number) as line:
                failure = self._train(task, place, line) if task.trains else None
                if task.decision.action == "copy":
                    copy_network(task, self.study_folder)
                return failure or self._evaluate(task, place, line)
        finally:
            free.put(place)

    def _train(self, task: Task, place: Place, line: RunLine) -> Failure | None:
        """Train from the beginning or on, and write down what it took."""
        run = task.run
        if task.decision.action == "train anew":
            set_aside(run, self.study_folder)
        state = RunState.read(run.folder)
        state.fingerprint, state.num_starts, state.trained = run.fingerprint, state.num_starts + 1, False
        state.hardware, state.git_commit = _hardware(run, place), git_commit()
        state.write(run.folder)
        status, cpu_s = self._run(self.train_script, run.arguments, run, place, line.update)
        if status:
            return Failure(run, "training", status, run.folder / LOG)
        state.trained = True
        state.train_cpu_s = cpu_s if state.num_starts == 1 else None
        state.write(run.folder)
        return None

    def _evaluate(self, task: Task, place: Place, line: RunLine) -> Failure | None:
        """Score the held-out speakers, and write down from what."""
        run = task.run
        line.say("evaluating")
        status, _ = self._run(self.evaluation_script, [str(self.trials), *run.arguments], run, place, lambda: None)
        if status:
            return Failure(run, "evaluation", status, run.folder / LOG)
        state = RunState.read(run.folder)
        state.evaluated_from = task.evaluated_from
        state.write(run.folder)
        return None

    def _run(
        self, script: Path, arguments: list[str], run: PlannedRun, place: Place, watch: Callable[[], None]
    ) -> tuple[int, float]:
        """Run one script for a run; return exit status and CPU time in seconds."""

        def started(process: subprocess.Popen) -> None:
            with self._lock:
                self._processes.add(process)
                if self._stopped:
                    process.terminate()

        arguments = [*arguments, *place.arguments()]
        outcome = run_script(script, arguments, run.folder / LOG, place.environment(), watch, started)
        return outcome.status, outcome.cpu_s


def copy_network(task: Task, study_folder: Path) -> None:
    """Give ``task`` the checkpoints, manifests and figures per epoch of the run that trained its network."""
    run, source = task.run, task.decision.source
    if (run.folder / "save").exists():
        set_aside(run, study_folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED_FOLDERS:
        shutil.copytree(source / name, run.folder / name, dirs_exist_ok=True)
    shutil.copy2(source / "metrics.csv", run.folder / "metrics.csv")
    state = RunState.read(source)
    replace(state, fingerprint=run.fingerprint, evaluated_from=None).write(run.folder)


def _hardware(run: PlannedRun, place: Place) -> str:
    """Say on what a run is trained."""
    return describe_hardware(place.device or run.device, place.num_threads or torch.get_num_threads())


def git_commit() -> str:
    """Return the commit of the code, for the record only; empty without git."""
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    return ""
