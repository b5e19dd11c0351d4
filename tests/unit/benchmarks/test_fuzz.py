"""A sample of the fuzzing in benchmarks/fuzz.py, and the outcomes that it reports as failures."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import fuzz  # noqa: E402 - a script beside the other benchmarks, not in a package

from voice_biometrics.common.errors import InputError  # noqa: E402


@pytest.mark.slow
def test_no_mutant_of_a_sample_crashes_hangs_or_is_accepted():
    sample = ["--recordings", "200", "--folders", "60", "--resummed", "60"]
    done = subprocess.run([sys.executable, str(BENCHMARKS / "fuzz.py"), *sample], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["folders"] == {"refused": 60}
    assert set(counts["recordings"]) == {"refused", "rejected"} and sum(counts["recordings"].values()) == 200
    assert counts["resummed"]["refused"] > 20 and sum(counts["resummed"].values()) == 60


@pytest.mark.slow
def test_no_request_of_a_sample_is_accepted_or_harms_the_server():
    command = [
        sys.executable,
        str(BENCHMARKS / "fuzz_requests.py"),
        "--requests",
        "400",
        "--slow",
        "4",
        "--floods",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == [] and 0 < found["peak_mb"] < 1500
    assert set(found["counts"]) == {"recordings", "json", "http", "lengths", "names", "sites", "slow", "flood"}
    assert set(found["counts"]["sites"]) == {"refused"} and sum(found["counts"]["flood"].values()) == 200


def test_only_an_answer_and_a_message_of_one_line_are_good_outcomes():
    def raising(error):
        return lambda rng: (_ for _ in ()).throw(error)

    good = {fuzz.outcome_of(attempt, random.Random(0)) for attempt in (lambda rng: True, lambda rng: False)}
    good.add(fuzz.outcome_of(raising(InputError("a.wav: silent")), random.Random(0)))
    assert good == {"accepted", "rejected", "refused"} == set.union(*fuzz.GOOD.values())
    for bad in (raising(InputError("line\ntwo")), raising(MemoryError("large")), lambda rng: print("noise")):
        assert fuzz.outcome_of(bad, random.Random(0)) not in good
