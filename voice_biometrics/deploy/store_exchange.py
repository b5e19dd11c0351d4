"""Enrolled voices from one store to another, as JSON lines.

The first line is ``{"format": "enrolled voices", "version": 1}``, each further line a voice: ``name``, ``fingerprint``
of its model (64 hex digits), ``num_recordings``, ``speech_s`` (seconds), ``embedding`` (little-endian float32, base64).
Such a file is not encrypted, whatever the store was.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from voice_biometrics.deploy.checked_json import CheckedObject, parse_object
from voice_biometrics.deploy.model_folder import FINGERPRINT
from voice_biometrics.deploy.store import Store
from voice_biometrics.deploy.templates import MAX_DIMS, Template, unpack
from voice_biometrics.errors import InputError

FORMAT = {"format": "enrolled voices", "version": 1}
MAX_LINE_BYTES = 2**17  # the largest embedding, in base64, with a name


def export_voices(store: Store, file: BinaryIO) -> int:
    """Write all voices of a store to a file that is open for writing, and return their number."""
    file.write(_line(FORMAT))
    number = 0
    for name, template in store.items():
        number += 1
        embedding = base64.b64encode(template.embedding.tobytes()).decode()
        file.write(_line({"name": name} | vars(template) | {"embedding": embedding}))
    return number


def import_voices(store: Store, file: BinaryIO, name: str) -> tuple[int, int]:
    """Enrol the voices of an exported file, all or none; return how many were new, and how many were there already.

    ``name`` is what errors call the file. Raises InputError when a line is at fault, or a name is enrolled with another
    template.
    """
    return store.add_all(_voices(file, name))


def _line(content: dict) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _voices(file: BinaryIO, name: str) -> Iterator[tuple[str, Template]]:
    head = _parsed(file, f"{name}, line 1")
    if head is None or head.content != FORMAT:
        raise InputError(f"{name}, line 1: expected {json.dumps(FORMAT)}; give a file that `export` wrote")
    number = 2
    while (voice := _parsed(file, f"{name}, line {number}")) is not None:
        yield voice.text("name"), _template(voice)
        voice.close()
        number += 1


def _parsed(file: BinaryIO, place: str) -> CheckedObject | None:
    """Return the next line, None at the end."""
    line = file.readline(MAX_LINE_BYTES)
    if len(line) == MAX_LINE_BYTES:
        raise InputError(f"{place}: longer than {MAX_LINE_BYTES:,} bytes; give a file that `export` wrote")
    return parse_object(line, place) if line else None


def _template(voice: CheckedObject) -> Template:
    fingerprint = voice.text("fingerprint")
    if not FINGERPRINT.fullmatch(fingerprint):
        raise voice.fault("fingerprint", "64 hex digits")
    num_recordings, speech_s = voice.count("num_recordings", 1, 2**32 - 1), voice.number("speech_s", 0.0)
    try:
        embedding = np.frombuffer(base64.b64decode(str(voice.value("embedding")), validate=True), "<f4")
        if not 0 < embedding.size <= MAX_DIMS:
            raise ValueError
        return unpack(Template(fingerprint, num_recordings, speech_s, embedding).to_bytes())
    except (ValueError, binascii.Error) as error:
        raise voice.fault("embedding", "base64 of finite float32 numbers") from error
