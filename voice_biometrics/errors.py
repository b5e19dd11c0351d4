"""Errors that the user can mend: said in one line, without a traceback."""

import functools
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Bad input: the message names the item, what was expected, what was found and what to do."""


def tell_input_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Let a script's ``main`` end an InputError with its message and exit status 2."""

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            print(f"\nerror: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapper
