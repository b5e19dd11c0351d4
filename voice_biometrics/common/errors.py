"""Errors that the user can mend: said in one line, without a traceback."""

import errno
import functools
import signal
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Bad input: the message names the item, what was expected, what was found and what to do."""


def tell_input_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Let a script's ``main`` end an InputError or a full disk with its message and exit status 2; Ctrl-C with 130."""

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            _end(str(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _end(f"{error.filename or 'a file'}: could not be written, the disk is full; make room and start again")
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return wrapper


def _end(message: str) -> None:
    print(f"\nerror: {message}", file=sys.stderr)
    sys.exit(2)
