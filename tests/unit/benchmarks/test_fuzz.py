"""A sample of the fuzzing in benchmarks/fuzz.py, and that the fuzzer sees what it looks for."""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import fuzz  # noqa: E402 - it lies beside the other benchmarks, not in a package
from fuzz_mutations import MUTATIONS, mutate  # noqa: E402

from voice_biometrics.common.errors import InputError  # noqa: E402


def test_no_mutant_of_a_sample_crashes_hangs_or_is_accepted():
    sample = ["--recordings", "200", "--folders", "60", "--resummed", "60"]
    done = subprocess.run([sys.executable, str(BENCHMARKS / "fuzz.py"), *sample], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["folders"] == {"refused": 60}
    assert set(counts["recordings"]) == {"refused", "rejected"} and sum(counts["recordings"].values()) == 200
    assert counts["resummed"]["refused"] > 20 and sum(counts["resummed"].values()) == 60


def raises(error):
    def attempt(rng):
        raise error

    return attempt


@pytest.mark.parametrize(
    "attempt, outcome",
    [
        (lambda rng: True, "accepted"),
        (lambda rng: False, "rejected"),
        (raises(InputError("a.wav: silent")), "refused"),
        (raises(InputError("a.wav: line\ntwo")), "refused in many lines: 'a.wav: line\\ntwo'"),
        (lambda rng: print("noise"), "rejected and printed: 'noise\\n'"),
        (raises(MemoryError("too\nlarge")), "exception: MemoryError 'too\\nlarge'"),
    ],
)
def test_outcomes_are_told_apart_in_one_line(attempt, outcome):
    assert fuzz.outcome_of(attempt, random.Random(0)) == outcome


DYING = """
import os, signal, sys, time
start, stop = map(int, sys.argv[-2:])
for number in range(start, stop):
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 4:
        time.sleep(60)
    print("rejected", flush=True)
"""


def test_a_crash_and_a_hang_cost_one_mutant_each_and_are_told(tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.setattr(fuzz, "__file__", str(tmp_path / "dying.py"))
    monkeypatch.setattr(fuzz, "TIMEOUT_S", 5.0)
    options = argparse.Namespace(recordings=6, seed=0)
    outcomes = dict(fuzz.run_apart("recordings", options, tmp_path))
    assert outcomes == {
        0: "rejected", 1: "rejected", 2: "crash: exit status -11", 3: "rejected", 4: "hang", 5: "rejected"
    }  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_every_mutation_changes_files_of_any_size(mutation):
    rng = random.Random(0)
    others = [bytes(100), rng.randbytes(3000)]
    for content in (b"", b"x", rng.randbytes(1000)):
        changed = [mutation(content, others, rng) for _ in range(20)]
        assert all(isinstance(item, bytes) for item in changed)
        assert len(content) < 1000 or len({*changed} - {content}) > 5


def test_a_mutant_follows_from_its_seed():
    content = random.Random(1).randbytes(1000)
    first, again, other = (mutate(content, [content], random.Random(seed)) for seed in ("a 1", "a 1", "a 2"))
    assert first == again != other
