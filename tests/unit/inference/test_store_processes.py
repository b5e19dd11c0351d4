"""The store beside other processes and when they are killed: nothing is lost, and the forgotten leave no trace."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.store_processes import NUM_FORGOTTEN, NUM_KILLS, bytes_of, name_to_forget, template
from voice_biometrics.inference.store import Store

ROOT = Path(__file__).parents[3]


def test_nothing_is_left_of_a_forgotten_voice_in_any_file(tmp_path):
    """Rows that SQLite moves between pages leave copies that secure_delete misses: of these voices, two."""
    store = Store(tmp_path / "voices.db", create=True)
    rng = np.random.default_rng(4)
    left, forgotten = [], []
    with store._change():
        for _ in range(2000):
            if left and rng.random() < 0.48:
                forgotten.append(left.pop(rng.integers(len(left))))
                store.database.execute("DELETE FROM voices WHERE lookup = ?", (forgotten[-1].encode(),))
            else:
                left.append(rng.bytes(8).hex() + "x" * int(rng.integers(60)))
                store._add(left[-1], template(0), join=False)
    forgotten.append(left.pop())
    assert store.forget(forgotten[-1]) and set(store.names()) == set(left)
    content = bytes_of(tmp_path / "voices.db")
    assert len(forgotten) > 900
    assert [name for name in left if name[:16].encode() not in content] == []
    assert [name for name in forgotten if name[:16].encode() in content] == []
    assert store.database.execute("SELECT to_wipe FROM store").fetchone() == (0,)


def test_what_another_process_still_reads_is_wiped_at_the_next_opening(tmp_path, monkeypatch):
    monkeypatch.setattr("voice_biometrics.inference.store.WAIT_S", 0.05)
    path = tmp_path / "voices.db"
    store = Store(path, create=True)
    store.add("secret name", template(1))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM voices").fetchall()
    assert not store.forget("secret name") and store.names() == []
    store.close()
    assert b"secret name" in bytes_of(path)
    reader.close()
    Store(path).close()
    assert b"secret name" not in bytes_of(path)


def process(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.store_processes", *map(str, arguments)]


def killed_processes(job: str, path: Path) -> list[list[str]]:
    """Return the names that each of many processes confirmed until it was killed."""
    done = subprocess.run(process(job, path), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    by_process = [line.split(",")[:-1] for line in done.stdout.splitlines()]
    assert len(by_process) == NUM_KILLS and any(by_process)  # some may be killed before they confirm anything
    return by_process


def test_a_kill_at_any_moment_loses_nothing_that_was_confirmed(tmp_path):
    path = tmp_path / "voices.db"
    confirmed = {name for names in killed_processes("kill_while_enrolling", path) for name in names}
    enrolled = dict(Store(path).items())
    assert len(confirmed) > NUM_KILLS and confirmed <= set(enrolled)
    for name, found in enrolled.items():
        np.testing.assert_array_equal(found.embedding, template(int(name.split()[1])).embedding)


def test_a_kill_while_forgetting_leaves_no_trace_after_the_next_opening(tmp_path):
    path = tmp_path / "voices.db"
    confirmed = {name for names in killed_processes("kill_while_forgetting", path) for name in names}
    store = Store(path)
    left = set(store.names())
    store.close()
    content = bytes_of(path)
    forgotten = {name_to_forget(number) for number in range(NUM_FORGOTTEN)} - left
    assert len(confirmed) > NUM_KILLS and confirmed <= forgotten
    assert [name for name in left if name.encode() not in content] == []
    assert [name for name in forgotten if name.encode() in content] == []


def test_two_processes_make_and_fill_a_store_at_once(tmp_path):
    path = tmp_path / "voices.db"
    processes = [
        subprocess.Popen(process("enrol", path, prefix), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for prefix in ("left", "right")
    ]
    said = {other.stdout.readline().strip() for other in processes for _ in range(20)}
    for other in processes:
        other.kill()
        other.communicate()
    assert len(said) == 40 and said <= set(Store(path).names())
    assert {item.name.removeprefix("voices.db") for item in tmp_path.iterdir()} <= {"", "-wal", "-shm"}


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path):
    path = tmp_path / "voices.db"
    done = subprocess.run(process("enrol_on_a_full_disk", path), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "InputError" in done.stderr and "the disk refused, nothing was changed" in done.stderr.splitlines()[-1]
    assert done.stdout and set(Store(path).names()) == set(done.stdout.splitlines())
