"""Processes that fill a store or forget, and are killed meanwhile: ``python -m tests.store_processes JOB STORE``."""

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from voice_biometrics.inference.store import Store
from voice_biometrics.inference.voiceprints import Template

DIMS = 16
MODEL = "ab" * 32
NUM_FORGOTTEN = 300
NUM_KILLS = 20


def template(seed: int, num_recordings: int = 1, fingerprint: str = MODEL) -> Template:
    """Return a random template of 2.5 s of speech."""
    embedding = np.random.default_rng(seed).standard_normal(DIMS).astype(np.float32)
    return Template(fingerprint, num_recordings, 2.5, embedding, np.tile(embedding.astype("<f2"), (num_recordings, 1)))


def name_to_forget(number: int) -> str:
    """Return a name that is found in no file by chance."""
    return f"voice-{number:04d}-of-many"


def bytes_of(path: Path) -> bytes:
    """Everything that the store has on the disk: the file, its log and the log's index."""
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))


def enrol(path: Path, prefix: str) -> Iterator[str]:
    """Enrol voices for ever, and give each name once it is enrolled."""
    store = Store(path, create=True)
    for number in range(len(list(store.items())), 10**6):
        store.add(f"{prefix} {number}", template(number))
        yield f"{prefix} {number}"


def forget(path: Path) -> Iterator[str]:
    """Forget all voices, and give each name once it is forgotten."""
    store = Store(path)
    for name in list(dict(store.items())):
        store.forget(name)
        yield name


def say_of_killed(work: Callable[[], Iterator[str]]) -> None:
    """Let processes work until each is killed, and print what they confirmed, a line a process."""
    random.seed(0)
    for _ in range(NUM_KILLS):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            try:
                for name in work():
                    os.write(writer, f"{name}\n".encode())
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as said:
            lines = [said.readline() for _ in range(random.randrange(5))]
            time.sleep(random.uniform(0.0, 0.01 if lines else 0.1))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print("".join(lines + said.readlines()).replace("\n", ","), flush=True)


def main(job: str, path: Path, prefix: str = "voice") -> None:
    """Do a job."""
    if job == "enrol_on_a_full_disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
    if job.startswith("enrol"):
        for name in enrol(path, prefix):
            print(name, flush=True)
    elif job == "kill_while_enrolling":
        say_of_killed(lambda: enrol(path, prefix))
    else:
        names = [name_to_forget(number) for number in np.random.default_rng(0).permutation(NUM_FORGOTTEN)]
        Store(path, create=True).add_all((name, template(0)) for name in names)
        say_of_killed(lambda: forget(path))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
