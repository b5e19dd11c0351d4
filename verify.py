"""Verify voices with a model folder; needs no PyTorch.

  serve                serve a local web page that does all this with a microphone
                       (--port 8765; --host ADDRESS for other machines)
  page FOLDER          write that page as static files that run in the browser
  compare A B          decide whether two recordings are of the same speaker
  enrol NAME FILE...   enrol a voice (--add: add recordings to an enrolled one)
  verify NAME FILE     decide whether a recording is of an enrolled voice
  identify FILE        find the enrolled voice of a recording, if any
  list                 list the enrolled voices
  forget NAME          delete a voice; no trace stays in the store
  compact              return the space of forgotten voices to the disk
  export FILE          write all voices as JSON lines, not encrypted; FILE.parquet: as
                       vectors for FAISS or PostgreSQL (docs/scaling.md)
  import FILE          enrol the voices of an exported file

  --model FOLDER       made by export.py (default: pretrained/ beside verify.py)
  --store FILE         the enrolled voices (default: voices.db)
  --key_file FILE      32 bytes that encrypt the store
  --use NAME           threshold for a smart_speaker (default) or a door
  --far RATE           threshold with at most this false-accept rate (0.01 is 1 %)
  --precision int8     the quantised model: faster, with separate enrolments
  --channel N, --json  use one channel, from 1 (default: the mean of all); print JSON

A recording is a file that libsndfile reads (WAV, FLAC, OGG, Opus, MP3, ...), or - for standard
input. Exit status: 0 accepted, or done; 1 rejected, or no voice found; 2 no decision,
and the message says why. Any other status is a crash: nothing was accepted.
"""

import argparse
import json
import os
import sys
import traceback
from pathlib import Path

NOT_JUDGED = 2
PRETRAINED = Path(__file__).resolve().parent / "pretrained"


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status; 0 and 1 only for an answer that was printed."""
    try:
        return answer(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python fails again at exit
    except Exception:  # Python's exit status for it, 1, would mean "rejected"
        traceback.print_exc()
    return NOT_JUDGED


def answer(arguments: list[str]) -> int:
    """Run the command line, print the answer, and return the exit status."""
    from voice_biometrics.common.errors import InputError
    from voice_biometrics.inference.cli import COMMANDS  # here, so that `main` catches a missing package

    commands = COMMANDS | {"serve": (serve, ()), "page": (page, ("folder",))}
    options = parse_options(arguments, {name: positional for name, (_, positional) in commands.items()})
    try:
        words, content, status = commands[options.command][0](options)
    except InputError as error:
        words, content, status = f"error: {error}", {"decision": "not judged", "error": str(error)}, NOT_JUDGED
    stream = sys.stderr if status == NOT_JUDGED and not options.json else sys.stdout
    stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are not text
    if content is not None:
        print(json.dumps(content) if options.json else words, file=stream, flush=True)
    return status


def serve(options: argparse.Namespace) -> tuple[str, None, int]:
    """Serve the page; imported only when it is used, so that other commands start fast."""
    from voice_biometrics.serve.command import serve

    return serve(options)


def page(options: argparse.Namespace) -> tuple[str, dict, int]:
    """Write the static page."""
    from voice_biometrics.serve.static_page import page

    return page(options)


def parse_options(arguments: list[str], commands: dict[str, tuple[str, ...]]) -> argparse.Namespace:
    """Parse the command line; ``commands`` are names with their positional arguments. Exits with 2 on a fault."""
    from voice_biometrics.common.errors import GivenOnce

    common = argparse.ArgumentParser(add_help=False)
    common.register("action", None, GivenOnce)
    common.add_argument("--model", default=PRETRAINED)
    common.add_argument("--store", default="voices.db")
    common.add_argument("--key_file")
    threshold = common.add_mutually_exclusive_group()
    threshold.add_argument("--use")
    threshold.add_argument("--far", type=float)
    common.add_argument("--channel", type=int, default=0)
    common.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    common.add_argument("--json", action="store_true")
    parser = argparse.ArgumentParser(
        usage="python verify.py COMMAND ... [OPTIONS]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS, prog="python verify.py"
    )
    for name, positional in commands.items():
        command = subparsers.add_parser(name, parents=[common], allow_abbrev=False)
        for argument in positional:
            command.add_argument(argument, nargs="+" if argument == "files" else None)
        if name == "enrol":
            command.add_argument("--add", action="store_true")
        if name == "serve":
            command.add_argument("--port", type=int, default=8765)
            command.add_argument("--host", default="127.0.0.1")
        if name == "page":
            command.add_argument("--onnxruntime_web")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
