"""User errors, reported in one line without a traceback."""

import errno
import functools
import signal
import sys
from collections.abc import Callable

# PyTorch puts the traceback of a loading process before the message of an error that it raises again.
RAISED_ELSEWHERE = "\nvoice_biometrics.common.errors.InputError: "


class InputError(ValueError):
    """Bad input: the message names the item, the expected and found values, and the fix."""


def tell_input_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate ``main``: InputError and a full disk print a message and exit with 2, Ctrl-C exits with 130."""

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            _end(str(error).rpartition(RAISED_ELSEWHERE)[2])
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _end(f"{error.filename or 'a file'}: cannot write, the disk is full; free some space and start again")
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return wrapper


def _end(message: str) -> None:
    print(f"\nerror: {message}", file=sys.stderr)
    sys.exit(2)
