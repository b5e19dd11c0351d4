"""What the user is told: bad input and a full disk in a line; our own mistakes with their traceback."""

import argparse
import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from voice_biometrics.common.errors import GivenOnce, InputError, tell_input_errors


@tell_input_errors
def fail_with(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        InputError("lr: too high"),
        *(OSError(number, "", "lr: too high") for number in (errno.ENOSPC, errno.EROFS, errno.EACCES)),
    ],
)
def test_bad_input_and_a_full_or_read_only_disk_end_with_status_2_and_the_item(error, capsys):
    with pytest.raises(SystemExit) as end:
        fail_with(error)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("\nerror: lr: too high") and "Traceback" not in told


@pytest.mark.parametrize("error", [ValueError("ours"), PermissionError(errno.EACCES, "denied")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)):
        fail_with(error)


def test_an_interrupt_ends_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as end:
        fail_with(KeyboardInterrupt())
    assert end.value.code == 130 and capsys.readouterr().err == "\nstopped\n"


IN_A_FINALISER = """
import signal, time, weakref
from voice_biometrics.common.errors import tell_input_errors

class Signalled(Exception):
    sigval = signal.SIGTERM

def fall():
    if NUMBER == signal.SIGINT:
        signal.raise_signal(NUMBER)
    raise Signalled

@tell_input_errors
def main():
    thing = type("Thing", (), {})()
    weakref.finalize(thing, fall)
    del thing
    time.sleep(60)

main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_falls_in_a_finaliser_is_neither_lost_nor_a_traceback(number):
    script = IN_A_FINALISER.replace("NUMBER", f"signal.{number.name}")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == -number and "Traceback" not in done.stderr


def test_an_option_that_is_given_twice_is_an_error_that_names_it(capsys):
    parser = argparse.ArgumentParser()
    parser.register("action", None, GivenOnce)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--scores", default="a.csv")
    found = parser.parse_args(["x", "--seeds", "1", "2"])
    assert (found.names, found.seeds, found.scores) == (["x"], [1, 2], "a.csv")
    with pytest.raises(SystemExit):
        parser.parse_args(["--scores", "a.csv", "--scores=b.csv"])
    assert "--scores: given twice" in capsys.readouterr().err
