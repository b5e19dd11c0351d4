"""The store beside other processes and when they are killed: nothing is lost, and forgotten voices leave no trace."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.store_processes import NUM_FORGOTTEN, NUM_KILLS, bytes_of, name_to_forget, template
from voice_biometrics.inference.store import Store
from voice_biometrics.inference.voiceprints import template_of_one

ROOT = Path(__file__).parents[3]
PIECE = 12  # bytes of an embedding that no other holds by chance


def traces(content: bytes, names: list[str], seeds: list[int]) -> list[str | int]:
    """Return the names and templates of which the files still hold a piece."""
    found = [name for name in names if name[:16].encode() in content]
    for seed in seeds:
        row = template(seed).embedding.tobytes()
        if any(row[start : start + PIECE] in content for start in range(0, len(row) - PIECE, PIECE)):
            found.append(seed)
    return found


def test_nothing_is_left_of_forgotten_voices_in_any_file_before_and_after_the_store_is_compacted(tmp_path):
    """If rows were deleted, SQLite would move others and leave copies that secure_delete misses: here, of one voice."""
    path = tmp_path / "voices.db"
    store = Store(path, create=True)
    rng = np.random.default_rng(4)
    left, forgotten = {}, {}  # name -> seed

    def forget_one():
        name = list(left)[rng.integers(len(left))]
        forgotten[name] = left.pop(name)
        store.forget(name)

    for seed in range(1500):
        if left and rng.random() < 0.48:
            forget_one()
        else:
            name = rng.bytes(8).hex() + "x" * int(rng.integers(60))
            left[name] = seed
            store.add(name, template(seed))
    content = bytes_of(path)
    assert len(forgotten) > 600 and set(dict(store.items())) == set(left)
    assert len(traces(content, list(left), list(left.values()))) == 2 * len(left)
    assert traces(content, list(forgotten), list(forgotten.values())) == []
    assert store.compact() and len(bytes_of(path)) < 0.8 * len(content)
    forget_one()
    assert traces(bytes_of(path), list(forgotten), list(forgotten.values())) == []
    assert {name: voice.to_bytes() for name, voice in store.items()} == {
        name: template(seed).to_bytes() for name, seed in left.items()
    }


def test_forgetting_writes_a_few_pages_whatever_the_size_of_the_store(tmp_path):
    for dims in (16, 192, 5000):
        path = tmp_path / f"{dims}.db"
        store = Store(path, create=True)
        embeddings = np.random.default_rng(0).standard_normal((200, dims), np.float32)
        of_dims = [template_of_one("ab" * 32, 2.5, embedding) for embedding in embeddings]
        store.add_all((f"voice {number}", voice) for number, voice in enumerate(of_dims))
        store._empty_log()
        before = path.read_bytes()
        assert store.forget("voice 100")
        after = path.read_bytes()
        pages = [slice(start, start + 4096) for start in range(0, len(before), 4096)]
        changed = sum(before[page] != after[page] for page in pages)
        assert len(after) == len(before) and changed <= 4 + 4 * dims // 4096, dims
        assert embeddings[100].tobytes()[:PIECE] in before and embeddings[100].tobytes()[:PIECE] not in after


def test_what_another_process_still_reads_is_wiped_at_the_next_opening(tmp_path, monkeypatch):
    monkeypatch.setattr("voice_biometrics.inference.store.WAIT_S", 0.05)
    path = tmp_path / "voices.db"
    store = Store(path, create=True)
    store.add("secret name", template(1))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM voices").fetchall()
    assert not store.forget("secret name") and not list(store.items())
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
    left = set(dict(store.items()))
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
    assert len(said) == 40 and said <= set(dict(Store(path).items()))
    assert {item.name.removeprefix("voices.db") for item in tmp_path.iterdir()} <= {"", "-wal", "-shm"}


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path):
    path = tmp_path / "voices.db"
    done = subprocess.run(process("enrol_on_a_full_disk", path), cwd=ROOT, capture_output=True, text=True, timeout=120)
    last = done.stderr.splitlines()[-1]
    assert "InputError" in last and "voices.db" in last and "nothing was changed" in last
    assert done.stdout and set(dict(Store(path).items())) == set(done.stdout.splitlines())
