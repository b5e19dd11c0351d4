"""A full disk, a read-only folder, foreign checkpoints and signals, on a few artificial speakers; kills: benchmarks."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import write_speakers

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    return write_speakers(folder / "speakers", num_speakers=6, num_utterances=4)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """Mount a disk in memory; the test is skipped where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs root, to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def resize(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def command(corpus: Path, folder: Path, *more: str) -> list[str]:
    own = ["--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(folder)]
    return [sys.executable, "train.py", "tests/hparams/tiny.yaml", *own, "--device", "cpu", "--noprogressbar", *more]


def run(*arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=environment)


def losses(folder: Path) -> list:
    return pd.read_csv(folder / "metrics.csv")[["train_loss", "lr", "eer"]].to_numpy().tolist()


def check_told(done: subprocess.CompletedProcess, item: str) -> None:
    assert done.returncode == 2, done.stderr
    assert item in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_disk_that_is_full_at_any_step_is_told_and_the_run_goes_on_when_there_is_room(corpus, tmp_path, processes):
    whole, place = tmp_path / "whole", tmp_path / "disk"
    given = ["--processes", processes]
    assert run(*command(corpus, whole, *given)).returncode == 0
    size = sum(path.stat().st_size for path in whole.rglob("*"))
    with small_disk(place, "size=16k"):
        told = 0
        for part in (0.02, 0.2, 0.5, 0.8):
            resize(place, f"size={int(part * size)}")
            done = run(*command(corpus, place / "run", *given))
            if done.returncode:
                check_told(done, "space")
                told += 1
        resize(place, f"size={4 * size}")
        assert run(*command(corpus, place / "run", *given)).returncode == 0
        assert told >= 2 and losses(place / "run") == losses(whole)


def fill(folder: Path) -> Path:
    """Fill a disk to the last byte, and return the file."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", 0) as file:
        while file.write(bytes(4096)):
            pass
    return folder / "filler"


def test_a_full_disk_is_told_by_whatever_writes_and_the_same_command_works_when_there_is_room(corpus, tmp_path):
    place, manifests = tmp_path / "disk", tmp_path / "disk" / "run" / "manifests"
    writing = [
        ["eval_eer.py", place / "run"],
        ["embed.py", place / "run", "--manifest", manifests / "valid.csv", "--output", place / "embeddings"],
        ["-m", "data_prep", "shards", manifests, place / "shards", "--data_folder", corpus],
        ["export.py", place / "run"],
    ]
    study = ["run_ablations.py", "tests/hparams/tiny.yaml", "--base", "tests/hparams/tiny.yaml", "--seeds", "1"]
    with small_disk(place, "size=30m"):
        assert run(*command(corpus, place / "run")).returncode == 0
        filler = fill(place)
        for arguments in writing:
            check_told(run(sys.executable, *arguments), "space")
        check_told(run(sys.executable, *study, *command(corpus, place / "study")[3:-1]), "space")
        filler.unlink()
        for arguments in writing[:-1]:  # these speakers are too few to export
            assert run(sys.executable, *arguments).returncode == 0, arguments


def test_a_read_only_folder_is_told_before_any_work(corpus, tmp_path):
    place = tmp_path / "disk"
    with small_disk(place, "size=10m"):
        assert run(*command(corpus, place / "run")).returncode == 0
        resize(place, "ro")
        check_told(run(*command(corpus, place / "run")), "--output_folder")
        check_told(run(*command(corpus, place / "other")), "--output_folder")
        check_told(run(sys.executable, "export.py", place / "run"), str(place))
        check_told(run(sys.executable, "eval_eer.py", place / "run"), str(place))


def test_a_damaged_or_foreign_checkpoint_never_stops_the_run_without_a_word(corpus, tmp_path):
    whole, other, hurt = (tmp_path / name for name in ("whole", "other", "hurt"))
    assert run(*command(corpus, whole)).returncode == 0
    assert run(*command(corpus, other, "--embedding_dim", "8")).returncode == 0
    for damage in ("truncated", "emptied", "garbage", "foreign"):
        shutil.copytree(whole, hurt)
        newest = max((hurt / "save").glob("CKPT*"), key=lambda path: "epoch: 2" in (path / "CKPT.yaml").read_text())
        for file in newest.glob("*.ckpt"):
            content = file.read_bytes()
            if damage == "foreign":
                shutil.copy(next((other / "save").glob(f"CKPT*/{file.name}")), file)
            else:
                file.write_bytes({"truncated": content[: len(content) // 2], "emptied": b""}.get(damage, b"PK garbage"))
        done = run(*command(corpus, hurt))
        if damage == "foreign":
            check_told(done, "does not fit")
        else:
            assert done.returncode == 0, done.stderr
            assert losses(hurt) == losses(whole)
        shutil.rmtree(hurt)


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_signals_end_all_processes_without_a_traceback(corpus, tmp_path, processes, workers):
    more = ["--processes", processes, "--num_workers", workers, "--number_of_epochs", "10000"]
    for sent in ([signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]):
        folder = tmp_path / "-".join(map(str, sent))
        with subprocess.Popen(
            command(corpus, folder, *more),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        ) as running:
            deadline = time.monotonic() + 600
            while not (folder / "metrics.csv").exists():
                assert running.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            for number in sent:
                os.killpg(running.pid, number) if number == signal.SIGINT else running.send_signal(number)
                time.sleep(0.05)
            _, told = running.communicate(timeout=60)
        assert running.returncode in ({-signal.SIGTERM} if sent == [signal.SIGTERM] else {130, -signal.SIGINT})
        assert "Traceback" not in told
        deadline = time.monotonic() + 20
        while subprocess.run(["pgrep", "-g", str(running.pid)], capture_output=True).stdout:
            assert time.monotonic() < deadline, "a process is left over"
            time.sleep(0.1)
