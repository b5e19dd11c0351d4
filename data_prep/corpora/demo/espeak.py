"""Text to speech with espeak-ng through ctypes.

The PyPI package ``espeakng-loader`` carries the library and its data, so no system package is needed. Quirks of
espeak-ng 1.52 handled here:

- An unknown language makes ``espeak_SetVoiceByName`` return an error and keep the previous voice, but an unknown
  *variant* is ignored and the call returns 0: the name of the current voice is compared too.
- A data path over about 150 bytes is truncated, and a path of the build machine is tried instead: the library gets a
  short link to its data.
- Flutter and roughness keep their state between sentences, even after ``espeak_Terminate``, so a repeated sentence
  gives other samples. Each ``Espeak`` therefore loads a private copy of the library: the same calls in the same order
  give the same samples. (Except for a few variants with breath and ``klatt 6``, such as Reed, which use the C
  library's ``rand()``.)

espeak-ng is GPL-3.0; it is called to generate audio and is not part of this recipe.
"""

import ctypes
import importlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from voice_biometrics.common.errors import InputError

MAX_PATH_BYTES = 120  # the library appends names in a buffer of 160
SYNCHRONOUS, DONT_EXIT = 2, 0x8000  # output through the callback, in this thread; return an error instead of exit(1)
RATE, VOLUME, PITCH, PITCH_RANGE = 1, 2, 3, 4  # espeak_PARAMETER
VOLUME_PERCENT = 40  # the default, 100, clips a third of the variants
CHARS_UTF8 = 1
NOISE_SEED = 1986  # seeds the library's generator (breath)

AudioCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class VoiceRecord(ctypes.Structure):
    """The first fields of ``espeak_VOICE``."""

    _fields_ = [("name", ctypes.c_char_p), ("languages", ctypes.c_char_p), ("identifier", ctypes.c_char_p)]


class Espeak:
    """A private instance of espeak-ng, used as a context manager.

    ``sample_rate`` is in Hz. Raises InputError when espeakng-loader is missing or its library does not start.
    """

    def __init__(self) -> None:
        library_path, data_path = _installed_paths()
        self._folder = tempfile.TemporaryDirectory(prefix="espeak-", ignore_cleanup_errors=True)
        try:
            self._library = _load_copy(library_path, Path(self._folder.name))
            data_link = Path(self._folder.name) / "espeak-ng-data"
            data_link.symlink_to(data_path.resolve(), target_is_directory=True)
            self.sample_rate = self._initialise(data_link)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> "Espeak":
        return self

    def __exit__(self, *exception: object) -> None:
        self._library.espeak_Terminate()
        self._folder.cleanup()

    def synthesise(
        self, text: str, *, language: str, variant: str, rate_wpm: int, pitch: int, pitch_range: int
    ) -> np.ndarray:
        """Speak ``text`` and return it, (samples,) int16 at ``sample_rate``.

        Arguments
        ---------
        language : a voice of espeak-ng: ``en-us``, ``de``, ...
        variant : a file name of its ``voices/!v``, case-sensitive: ``f1``, ``Hugo``, ...
        rate_wpm : words per minute, 80 to 450.
        pitch, pitch_range : 0 to 99; 50 is the variant's default.

        Raises InputError for an unknown voice or variant, or an error of the library.
        """
        self._set_voice(language, variant)
        settings = {RATE: rate_wpm, VOLUME: VOLUME_PERCENT, PITCH: pitch, PITCH_RANGE: pitch_range}
        for parameter, value in settings.items():
            _check(self._library.espeak_SetParameter(parameter, value, 0), f"parameter {parameter} = {value}")
        _check(self._library.espeak_ng_SetRandSeed(ctypes.c_long(NOISE_SEED)), "the seed of the breath noise")
        self._chunks.clear()
        text_utf8 = text.encode()
        status = self._library.espeak_Synth(text_utf8, len(text_utf8) + 1, 0, 0, 0, CHARS_UTF8, None, None)
        _check(status, f"the sentence {text!r}")
        if not self._chunks:
            raise InputError(f"espeak-ng made no sound of {text!r}")
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16)

    def _initialise(self, data_path: Path) -> int:
        """Start the library and return its sample rate in Hz."""
        data_path_utf8 = os.fsencode(data_path)
        if len(data_path_utf8) > MAX_PATH_BYTES:
            raise InputError(
                f"espeak-ng cannot read its data at {data_path}: a path of at most {MAX_PATH_BYTES} bytes expected, "
                f"{len(data_path_utf8)} found; set TMPDIR to a shorter folder"
            )
        sample_rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, data_path_utf8, DONT_EXIT)
        if sample_rate <= 0:
            raise InputError(f"espeak-ng did not start (status {sample_rate}): pip install -r requirements.txt")
        self._chunks: list[bytes] = []
        self._callback = AudioCallback(self._keep_chunk)  # the library holds no reference: ours must outlive it
        self._library.espeak_SetSynthCallback(self._callback)
        return sample_rate

    def _keep_chunk(self, samples, num_samples: int, events) -> int:
        """Receive a chunk of samples from the library; return 0 to continue."""
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0

    def _set_voice(self, language: str, variant: str) -> None:
        """Select a voice and check that it is the current one."""
        name = f"{language}+{variant}"
        _check(self._library.espeak_SetVoiceByName(name.encode()), f"the voice {name!r}")
        identifier = self._library.espeak_GetCurrentVoice().contents.identifier.decode()  # gmw/en-US+Hugo
        if not identifier.endswith(f"+{variant}"):
            raise InputError(f"espeak-ng has no voice variant {variant!r}: it fell back to {identifier!r} for {name!r}")


def _installed_paths() -> tuple[Path, Path]:
    """Return the paths of the library and its data."""
    try:
        loader = importlib.import_module("espeakng_loader")
        return Path(loader.get_library_path()), Path(loader.get_data_path())
    except (ImportError, RuntimeError) as error:  # RuntimeError: the package is there, its data is not
        raise InputError(
            f"demo voices need the package espeakng-loader ({error}): pip install -r requirements.txt"
        ) from error


def _load_copy(library_path: Path, folder: Path) -> ctypes.CDLL:
    """Load a copy of the library: the dynamic loader shares one instance per file."""
    try:
        copy = shutil.copy(library_path, folder / library_path.name)
        library = ctypes.CDLL(os.fspath(copy))
    except OSError as error:
        raise InputError(
            f"the library of espeakng-loader does not load: {error}; pip install --force-reinstall espeakng-loader, or "
            "set TMPDIR where programs in the folder of temporary files may not run"
        ) from error
    library.espeak_GetCurrentVoice.restype = ctypes.POINTER(VoiceRecord)
    return library


def _check(status: int, item: str) -> None:
    """Raise InputError naming ``item`` for a status other than 0."""
    if status != 0:
        raise InputError(f"espeak-ng refused {item} (status {status})")
