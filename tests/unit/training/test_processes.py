"""How many processes train, and how they end."""

import os
import signal

import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.training import processes
from voice_biometrics.training.processes import choose_num_processes, run_in_processes


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch) -> None:
    monkeypatch.setattr(processes, "num_cores", lambda: 8)


def chosen(asked: int | str = "auto", batch_size: int = 128, crops: int = 10000, device: str = "cpu") -> int:
    return choose_num_processes({"processes": asked, "batch_size": batch_size, "number_of_epochs": 2}, crops, device)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, 8),
        ({"batch_size": 96}, 6),  # 16 crops each
        ({"batch_size": 100}, 5),  # 6 do not divide it
        ({"batch_size": 16}, 1),
        ({"crops": 999}, 1),  # 1,998 in all
        ({"asked": 2, "crops": 5, "batch_size": 4}, 2),
        ({"asked": "1"}, 1),
        ({"device": "cuda:0"}, 1),
    ],
)
def test_each_core_gets_a_process_if_there_is_enough_to_do(given, expected):
    assert chosen(**given) == expected


@pytest.mark.parametrize("asked", [0, -1, "many", 3])
def test_a_number_that_is_none_or_does_not_divide_the_batch_is_refused(asked):
    with pytest.raises(InputError, match=str(asked)):
        chosen(asked)


def test_processes_for_a_gpu_are_left_to_torchrun():
    with pytest.raises(InputError, match="torchrun"):
        chosen(2, device="cuda")


def fail_in_the_second(error: BaseException) -> None:
    """Raise an error in one process while the other waits for it."""
    if os.environ["RANK"] == "1":
        raise error
    signal.pause()


def test_the_error_of_a_process_ends_all_and_is_raised():
    with pytest.raises(InputError, match="^/data/gloomy: no speech$"):
        run_in_processes(2, fail_in_the_second, InputError("/data/gloomy: no speech"))
    with pytest.raises(RuntimeError, match="fail_in_the_second(.|\n)*KeyError: 'ours'"):
        run_in_processes(2, fail_in_the_second, KeyError("ours"))


def kill_one(number: int) -> None:
    if os.environ["RANK"] == "0":
        os.kill(os.getpid(), number)
    signal.pause()


def test_a_killed_process_ends_all_and_is_told():
    with pytest.raises(InputError, match="ended by SIGKILL"):
        run_in_processes(2, kill_one, signal.SIGKILL)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
