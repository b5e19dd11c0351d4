"""User errors, reported in one line without a traceback; the options of programs."""

import argparse
import contextlib
import errno
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

# PyTorch puts the traceback of a loading process before the message of an error that it raises again.
RAISED_ELSEWHERE = "\nvoice_biometrics.common.errors.InputError: "


FULL = "cannot write, the disk is full; free some space and start again"
REFUSED = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: "cannot write, the file system is read-only; give another folder",
    errno.EACCES: "permission denied; check the permissions, or give another folder",
}


class InputError(ValueError):
    """Bad input: the message names the item, the expected and found values, and the fix."""


class GivenOnce(argparse.Action):
    """Store a value; an option that is given twice is an error, where argparse takes the last one."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        """Store ``values``."""
        given = vars(namespace).setdefault("given_options", set())
        if option_string and self.dest in given:
            parser.error(f"{option_string}: given twice; leave one out")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class OptionParser(argparse.ArgumentParser):
    """Options of a program: ``--help`` prints ``text``, its docstring, and a fault is an InputError."""

    def __init__(self, text: str) -> None:
        super().__init__(allow_abbrev=False)
        self.register("action", None, GivenOnce)
        self.text = text

    def format_help(self) -> str:
        return f"{self.text.strip()}\n"

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


@contextlib.contextmanager
def system_refusals_are_input_errors() -> Iterator[None]:
    """Context manager: turn an OSError of ``REFUSED``, such as that of a full disk, into an InputError."""
    try:
        yield
    except OSError as error:
        place = error.filename2 or error.filename  # of a copy, the destination
        if error.errno not in REFUSED or (error.errno == errno.EACCES and not place):
            raise
        raise InputError(f"{place or 'a file'}: {REFUSED[error.errno]}") from error


def tell_input_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate ``main``: InputError and a full disk print a message and exit with 2, Ctrl-C exits with 130.

    A log that cannot be written is not reported: what else is written then fails too. A second Ctrl-C ends the process
    at once, by the signal.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        logging.raiseExceptions = False
        try:
            with system_refusals_are_input_errors(), _second_interrupt_ends_at_once(), _no_signal_is_lost():
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


@contextlib.contextmanager
def _no_signal_is_lost() -> Iterator[None]:
    """Context manager: send a signal again whose exception fell in a finaliser, where Python ignores exceptions."""
    before = sys.unraisablehook

    def send_again(ignored: Any) -> None:
        error = ignored.exc_value
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else getattr(error, "sigval", None)
        if number is None:  # "sigval" is of the exception of torchrun's launcher
            before(ignored)
        else:
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()  # in 0.1 s the finaliser has ended

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before
