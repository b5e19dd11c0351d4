"""What each command of ``verify.py`` does: options in; words, JSON and exit status out."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.inference import store as store_module
from voice_biometrics.inference.answers import Identification, Verdict, counted
from voice_biometrics.inference.recognizer import Recognizer, Source
from voice_biometrics.inference.store import Store

ACCEPTED, REJECTED = 0, 1  # exit statuses; what is done counts as accepted
STANDARD = "-"  # standard input or output in the place of a file


class Answer(NamedTuple):
    """What a command says: in words, to programs (None: it has said all), and by the exit status."""

    words: str
    content: dict[str, Any] | None
    status: int = ACCEPTED


def compare(options: argparse.Namespace) -> Answer:
    """Tell whether two recordings are of one speaker."""
    return _judged(_recognizer(options).compare(*_recordings(options.a, options.b)))


def enrol(options: argparse.Namespace) -> Answer:
    """Enrol a voice."""
    enrolment = _recognizer(options).enrol(options.name, _recordings(*options.files), options.add)
    return Answer(enrolment.in_words(), enrolment.to_dict())


def verify(options: argparse.Namespace) -> Answer:
    """Tell whether an enrolled voice speaks in a recording."""
    return _judged(_recognizer(options).verify(options.name, *_recordings(options.file)))


def identify(options: argparse.Namespace) -> Answer:
    """Tell which enrolled voice speaks in a recording."""
    return _judged(_recognizer(options).identify(*_recordings(options.file)))


def list_voices(options: argparse.Namespace) -> Answer:
    """Tell who is enrolled."""
    voices = [
        {"name": name, "num_recordings": voice.num_recordings, "speech_s": voice.speech_s, "model": voice.fingerprint}
        for name, voice in sorted(_store(options).items(), key=lambda item: item[0])
    ]
    lines = [
        f"{voice['name']}: {counted(voice['num_recordings'], 'recording')}, {voice['speech_s']:.1f} s, "
        f"model {voice['model'][:12]}"
        for voice in voices
    ]
    return Answer("\n".join(lines) or "nobody is enrolled", {"voices": voices})


def forget(options: argparse.Namespace) -> Answer:
    """Forget a voice."""
    is_wiped = _store(options).forget(options.name)
    words = f"forgot {options.name}"
    if not is_wiped:
        words += "; traces are still in the files (another process reads them, or the disk is full): `list` wipes later"
    return Answer(words, {"forgot": options.name, "is_wiped": is_wiped})


def export_voices(options: argparse.Namespace) -> Answer:
    """Write all voices as JSON lines."""
    store = _store(options)
    if options.file == STANDARD:
        number = store_module.export_voices(store, sys.stdout.buffer)
        print(f"wrote {counted(number, 'voice')}", file=sys.stderr)
        return Answer("", None)
    with (
        written_whole(Path(options.file)) as temporary,
        open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file,
    ):
        number = store_module.export_voices(store, file)
    return Answer(f"wrote {counted(number, 'voice')} to {options.file}, not encrypted", {"exported": number})


def import_voices(options: argparse.Namespace) -> Answer:
    """Enrol the voices of an exported file."""
    store = _store(options, create=True)
    if options.file == STANDARD:
        num_new, num_there = store_module.import_voices(store, sys.stdin.buffer, "standard input")
    else:
        try:
            with open(options.file, "rb") as file:
                num_new, num_there = store_module.import_voices(store, file, options.file)
        except OSError as error:
            raise InputError(f"{options.file}: could not be read ({error.strerror}); check the path") from error
    words = f"enrolled {counted(num_new, 'voice')}; {num_there:,} there before, just the same"
    return Answer(words, {"imported": num_new, "unchanged": num_there})


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Answer], tuple[str, ...]]] = {
    "compare": (compare, ("a", "b")),
    "enrol": (enrol, ("name", "files")),
    "verify": (verify, ("name", "file")),
    "identify": (identify, ("file",)),
    "list": (list_voices, ()),
    "forget": (forget, ("name",)),
    "export": (export_voices, ("file",)),
    "import": (import_voices, ("file",)),
}


def _recognizer(options: argparse.Namespace) -> Recognizer:
    return Recognizer(
        options.model,
        options.store,
        key_file=options.key_file,
        use=options.use,
        max_far=options.far,
        precision=options.precision,
    )


def _store(options: argparse.Namespace, create: bool = False) -> Store:
    return Store(options.store, options.key_file, create)


def _recordings(*files: str) -> list[Source]:
    """Return what to read, standard input for ``-``."""
    if files.count(STANDARD) > 1 or (STANDARD in files and sys.stdin is None):
        raise InputError(f"{STANDARD}: expected one recording on standard input; give files for the others")
    return [sys.stdin.buffer if file == STANDARD else file for file in files]


def _judged(answer: Verdict | Identification) -> Answer:
    return Answer(answer.in_words(), answer.to_dict(), ACCEPTED if answer.is_accepted else REJECTED)
