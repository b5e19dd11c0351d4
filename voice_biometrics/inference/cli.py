"""The commands of ``verify.py``: options in; text, JSON and exit status out."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.inference.answers import Identification, Verdict, counted
from voice_biometrics.inference.recognizer import Recognizer, RecordingSource
from voice_biometrics.inference.store import Store
from voice_biometrics.inference.voiceprints import read_voices, write_vectors, write_voices

ACCEPTED, REJECTED = 0, 1  # exit statuses; a command that decides nothing ends with 0
STANDARD = "-"  # standard input or output instead of a file
LATER = "; the log still holds a copy, since another process reads the store or the disk is full: the next command on "
LATER += "this store removes it"


class Output(NamedTuple):
    """Text for people, JSON for programs (None: already printed), and the exit status."""

    words: str
    content: dict[str, Any] | None
    status: int = ACCEPTED


def compare(options: argparse.Namespace) -> Output:
    """Decide if two recordings are of the same speaker."""
    return _decision(recognizer_of(options).compare(*_recordings(options.a, options.b)))


def enrol(options: argparse.Namespace) -> Output:
    """Enrol a voice."""
    enrolment = recognizer_of(options).enrol(options.name, _recordings(*options.files), options.add)
    return Output(enrolment.in_words(), enrolment.to_dict())


def verify(options: argparse.Namespace) -> Output:
    """Decide if an enrolled voice speaks in a recording."""
    return _decision(recognizer_of(options).verify(options.name, *_recordings(options.file)))


def identify(options: argparse.Namespace) -> Output:
    """Find the enrolled voice that speaks in a recording."""
    return _decision(recognizer_of(options).identify(*_recordings(options.file)))


def list_voices(options: argparse.Namespace) -> Output:
    """List the enrolled voices."""
    voices, lines = [], []
    for name, voice in sorted(_store(options).items(), key=lambda item: item[0]):
        content = {"name": name, "num_recordings": voice.num_recordings, "speech_s": voice.speech_s}
        voices.append(content | {"model": voice.fingerprint})
        lines.append(
            f"{name}: {counted(voice.num_recordings, 'recording')}, {voice.speech_s:.1f} s, "
            f"model {voice.fingerprint[:12]}"
        )
    return Output("\n".join(lines) or "no voice is enrolled", {"voices": voices})


def forget(options: argparse.Namespace) -> Output:
    """Forget a voice."""
    is_wiped = _store(options).forget(options.name)
    return Output(f"forgot {options.name}{'' if is_wiped else LATER}", {"forgot": options.name, "is_wiped": is_wiped})


def compact(options: argparse.Namespace) -> Output:
    """Return the space of forgotten voices to the disk."""
    store = _store(options)
    before, is_done = store.path.stat().st_size, store.compact()
    words = f"compacted {store.path}: {before:,} to {store.path.stat().st_size:,} bytes"
    return Output(words + ("" if is_done else LATER), {"is_compacted": is_done})


def export_voices(options: argparse.Namespace) -> Output:
    """Write all voices as JSON lines, or as Parquet for a vector index."""
    voices = _store(options).items()
    if Path(options.file).exists() and os.path.samefile(options.file, options.store):
        raise InputError(f"{options.file}: is the store itself; give another file for the export")
    if options.file == STANDARD:
        print(f"wrote {counted(write_voices(voices, sys.stdout.buffer), 'voice')}", file=sys.stderr)
        return Output("", None)
    with (
        written_whole(Path(options.file)) as temporary,
        open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file,
    ):
        is_parquet = options.file.endswith(".parquet")
        number = write_vectors(voices, temporary) if is_parquet else write_voices(voices, file)
    return Output(f"wrote {counted(number, 'voice')} to {options.file}, not encrypted", {"exported": number})


def import_voices(options: argparse.Namespace) -> Output:
    """Enrol the voices of an exported file."""
    store = _store(options, create=True)
    if options.file == STANDARD:
        num_new, num_equal = store.add_all(read_voices(sys.stdin.buffer, "standard input"))
    else:
        try:
            with open(options.file, "rb") as file:
                num_new, num_equal = store.add_all(read_voices(file, options.file))
        except OSError as error:
            raise InputError(f"{options.file}: could not be read ({error.strerror}); check the path") from error
    words = f"enrolled {counted(num_new, 'voice')}; {num_equal:,} already enrolled, unchanged"
    return Output(words, {"imported": num_new, "unchanged": num_equal})


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Output], tuple[str, ...]]] = {
    "compare": (compare, ("a", "b")),
    "enrol": (enrol, ("name", "files")),
    "verify": (verify, ("name", "file")),
    "identify": (identify, ("file",)),
    "list": (list_voices, ()),
    "forget": (forget, ("name",)),
    "compact": (compact, ()),
    "export": (export_voices, ("file",)),
    "import": (import_voices, ("file",)),
}


def recognizer_of(options: argparse.Namespace) -> Recognizer:
    """Return the recognizer that the options describe."""
    keys = {"key_file": options.key_file, "use": options.use, "max_far": options.far, "precision": options.precision}
    keys["channel"] = options.channel
    return Recognizer(options.model, options.store, **keys)


def _store(options: argparse.Namespace, create: bool = False) -> Store:
    return Store(options.store, options.key_file, create)


def _recordings(*files: str) -> list[RecordingSource]:
    """Return the files, standard input for ``-``."""
    if files.count(STANDARD) > 1 or (STANDARD in files and sys.stdin is None):
        raise InputError(f"{STANDARD}: expected one recording on standard input; give files for the others")
    return [sys.stdin.buffer if file == STANDARD else file for file in files]


def _decision(answer: Verdict | Identification) -> Output:
    return Output(answer.in_words(), answer.to_dict(), ACCEPTED if answer.is_accepted else REJECTED)
