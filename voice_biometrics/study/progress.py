"""What is seen of a study while it goes on: a line a run, and the time that is left."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from voice_biometrics.run_folder import read_epochs
from voice_biometrics.study.plan import Task


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
