"""User errors, reported in one line without a traceback."""

import contextlib
import errno
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# PyTorch puts the traceback of a loading process before the message of an error that it raises again.
RAISED_ELSEWHERE = "\nvoice_biometrics.common.errors.InputError: "


class InputError(ValueError):
    """Bad input: the message names the item, the expected and found values, and the fix."""


@contextlib.contextmanager
def full_disk_is_an_input_error() -> Iterator[None]:
    """Context manager: turn the OSError of a full disk into an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename or "a file"
        raise InputError(f"{place}: cannot write, the disk is full; free some space and start again") from error


def tell_input_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate ``main``: InputError and a full disk print a message and exit with 2, Ctrl-C exits with 130.

    A second Ctrl-C ends the process at once, by the signal.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        try:
            with full_disk_is_an_input_error(), _second_interrupt_ends_at_once():
                main(*args, **kwargs)
        except InputError as error:
            print(f"\nerror: {str(error).rpartition(RAISED_ELSEWHERE)[2]}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return wrapper


@contextlib.contextmanager
def _second_interrupt_ends_at_once() -> Iterator[None]:
    """Context manager: the first SIGINT raises KeyboardInterrupt, the next one ends the process without a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)
