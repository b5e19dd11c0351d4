"""Training by several processes of one machine, which share each batch (SpeechBrain's DDP over gloo).

A thread each: two processes train twice as fast as one with two threads, which wait for each other in every layer. A
step takes the same utterances with any number of processes, so a run can go on with another number.
"""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from speechbrain.utils.distributed import get_rank, infer_device, is_distributed_initialized
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from voice_biometrics.common.errors import InputError, system_refusals_are_input_errors

AUTO = "auto"
MIN_CROPS_EACH = 16  # of a batch: a process normalises by the statistics of its own crops
MIN_CROPS = 2000  # of a training, in all: fewer are not worth the start of processes
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def num_cores() -> int:
    """Return the number of cores that this process may use: of the machine or container, or OMP_NUM_THREADS if less."""
    return min(cpu_count(only_physical_cores=True), torch.get_num_threads())


def choose_num_processes(settings: dict[str, Any], num_crops: int, device: str | None) -> int:
    """Return the number of processes to start: ``processes``, or with ``auto`` as many as are of use.

    Arguments
    ---------
    settings : hparams with plain values.
    num_crops : in an epoch.
    device : to train on; None: a GPU if there is one.

    Returns
    -------
    1 on a GPU and under ``torchrun``. With ``auto`` also for a short training; else a process for each core, as long as
    they divide the batch into equal parts of at least ``MIN_CROPS_EACH`` crops.

    Raises
    ------
    InputError : ``processes`` is no count, does not divide the batch, or is above 1 for a GPU.
    """
    asked, batch_size = settings["processes"], settings["batch_size"]
    number = 0 if asked == AUTO else int(asked) if str(asked).isdecimal() else -1
    if asked != AUTO and number < 1:
        raise InputError(f"processes: expected auto or a number from 1, found {asked}")
    if is_distributed_initialized():
        return 1
    if not (device or infer_device()).startswith("cpu"):
        if number > 1:
            raise InputError(f"processes {number}: for a CPU; on several GPUs: torchrun --nproc_per_node {number} ...")
        return 1
    if number:
        check_batch(batch_size, number)
        return number
    if num_crops * settings["number_of_epochs"] < MIN_CROPS:
        return 1
    most = min(num_cores(), batch_size // MIN_CROPS_EACH)
    return max((count for count in range(1, most + 1) if batch_size % count == 0), default=1)


def check_batch(batch_size: int, num_processes: int) -> None:
    """Raise InputError unless the processes can share a batch equally."""
    if batch_size % num_processes:
        raise InputError(
            f"batch_size {batch_size}: expected a multiple of the {num_processes} processes, which share each batch"
        )


def process_number() -> tuple[int, int]:
    """Return the number of this process, from 0, and the number of all that train together."""
    return (get_rank(), torch.distributed.get_world_size()) if is_distributed_initialized() else (0, 1)


def describe_processes(num_workers: int) -> str:
    """Return how the machine is used, in a few words."""
    number, num_threads = process_number()[1], torch.get_num_threads()
    return (
        f"Training in {number} process{'es' * (number > 1)} with {num_threads} thread{'s' * (num_threads > 1)} each; "
        + (f"{num_workers} more of each read the audio" if num_workers else "each reads its own audio")
    )


def gathered(item: Any) -> list[Any]:
    """Return the items of all processes, in their order."""
    items = [item] * process_number()[1]
    if len(items) > 1:
        torch.distributed.all_gather_object(items, item)
    return items


def run_in_processes(num_processes: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call ``work(*arguments)`` in each of several processes, joined as by ``torchrun``, and wait for them.

    A single one is this process.

    On Linux they are forked, so that they start at once. All end if one fails, if this one ends in any way, and at a
    Ctrl-C or SIGTERM.

    Raises
    ------
    InputError : the first that a process raised, or one was killed.
    RuntimeError : with the traceback of any other error.
    """
    if num_processes == 1:
        work(*arguments)
        return
    num_threads, stopped_by = max(1, num_cores() // num_processes), None
    with tempfile.TemporaryDirectory(prefix="training-") as folder, _quiet_and_own_signals():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_processes,
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            start_method="fork" if sys.platform == "linux" else "spawn",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(number.name for number in SIGNALS),
        )
        try:
            elastic_launch(config, _call)(num_threads, work, *arguments)
        except ChildFailedError as error:
            raise _first_error(Path(folder), error) from None
        except SignalException as error:
            stopped_by = error.sigval
    if stopped_by:
        signal.raise_signal(stopped_by)  # with its usual effect


def _call(num_threads: int, work: Callable[..., None], *arguments: Any) -> None:
    """Do the work of a process."""
    logging.disable(logging.NOTSET)  # forked from the silenced launcher
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which the end of the launcher sends: ends at once, without a word
    torch.set_num_threads(num_threads)
    with system_refusals_are_input_errors():
        work(*arguments)


@contextmanager
def _quiet_and_own_signals() -> Iterator[None]:
    """Context manager: silence the launcher's log, and restore the signal handlers that it replaces."""
    level, handlers = logging.root.manager.disable, {number: signal.getsignal(number) for number in SIGNALS}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _first_error(folder: Path, failed: ChildFailedError) -> Exception:
    """Return the error that made all processes end: the others complain of a lost connection."""
    found = [json.loads(path.read_text())["message"] for path in folder.rglob("error.json") if path.stat().st_size]
    for error in found:
        kind, _, text = error["message"].partition(": ")
        if kind == InputError.__name__:
            return InputError(text)
    for error in found:
        if "gloo" not in error["message"]:
            return RuntimeError(f"in a training process:\n{error['extraInfo']['py_callstack']}")
    _, failure = failed.get_first_failure()
    by = f" by {failure.signal_name()}" if failure.exitcode < 0 else ""
    return InputError(
        f"a training process was ended{by}; if memory ran out, give fewer --processes; the same command goes on from "
        "the last checkpoint"
    )
