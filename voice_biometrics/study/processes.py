"""One command in a process of its own: output into a log file, time taken, last words when it fails."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
    command = [sys.executable, "-m", "voice_biometrics.study.tether", str(script), *arguments]
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
