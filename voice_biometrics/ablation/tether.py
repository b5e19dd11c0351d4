"""Run a script that ends when whoever started it is gone: ``python -m voice_biometrics.ablation.tether SCRIPT ...``.

Standard input must be a pipe whose other end the starter keeps open: the system closes it however the starter ends, so
that a study that was killed leaves no training behind, which would hold its run folder.
"""

import os
import runpy
import sys
import threading


def main(arguments: list[str]) -> None:
    """Run the script ``arguments[0]`` as the main program, with the rest as its arguments."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


def _end_with_starter() -> None:
    while os.read(0, 1024):
        pass
    os._exit(143)


if __name__ == "__main__":
    main(sys.argv[1:])
