"""Read a model folder: everything that verification needs, checked before use. Needs no PyTorch, executes nothing.

    embedder.onnx        waveform (batch, samples) float32 -> embedding (batch, dims) float32; both axes are dynamic
    embedder.int8.onnx   the same with a quantised network; its scores are on another scale
    embedder.sherpa.onnx the fp32 network from Kaldi's log-mels, for sherpa-onnx and WeSpeaker (docs/deployment.md); not
                         in every model folder, and only its checksum is read here
    calibration.json     calibration and error rates of both (below)
    MODEL_CARD.md        use, data, licence, results, limits
    SHA256SUMS           checksums of all other files, as ``sha256sum --check`` reads them
    weights.safetensors  the network's PyTorch tensors, for ``train.py --pretrained``
    speechbrain/         the same model for ``SpeakerRecognition.from_hparams``; only its checksums are read here

The checksums detect accidental changes and partial copies. They are no signature: whoever can write the folder can
write the checksums as well.

``calibration.json`` is a ``ModelDescription``: rates are fractions, log-likelihood ratios (LLR) natural logarithms. It
is not the ``calibration.json`` of a run folder, which ``voice_biometrics.evaluation.thresholds`` writes.

Both ONNX files hold ``name``, ``version``, ``sample_rate`` and ``fingerprint`` in their metadata, which ``embedder``
compares with these.
"""

import hashlib
import os
import re
import stat
import threading
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import sha256_of, written_whole
from voice_biometrics.metrics.calibration import Calibration

FORMAT = 1
CALIBRATION_NAME = "calibration.json"
CARD_NAME = "MODEL_CARD.md"
SPEECHBRAIN_NAME = "speechbrain"
SUMS_NAME = "SHA256SUMS"
WEIGHTS_NAME = "weights.safetensors"
ONNX_NAMES = {"fp32": "embedder.onnx", "int8": "embedder.int8.onnx"}
ENGINE_NAME = "embedder.sherpa.onnx"
MAX_FILES = 64
MAX_FILE_BYTES = 256 * 2**20  # of one file
LARGEST = {CALIBRATION_NAME: 4 * 2**20, CARD_NAME: 4 * 2**20, **dict.fromkeys(ONNX_NAMES.values(), MAX_FILE_BYTES)}
MAX_CURVE_POINTS = 10_000
MAX_COUNT = 10**12
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._/-]{0,199})")
ADVICE = "take a fresh copy of the model folder, or export it again"

Name = Annotated[str, Meta(pattern=rf"\A{NAME.pattern}\Z")]
Fingerprint = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=1000)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Llr = Annotated[float, Meta(ge=-1e9, le=1e9)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e6)]
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
AtLeastOne = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Parsed = TypeVar("Parsed")
_PARSING = threading.Lock()  # msgspec inspects a type at its first use, and crashes if two threads do so at once


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A JSON object with exactly these entries; its text can be printed anywhere."""

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            if isinstance(text := getattr(self, key), str) and not text.isprintable():
                raise ValueError(f"{key}: expected printable characters, found {ascii(text)[:60]}")


class Rate(Strict):
    """An error rate, a fraction, with its 95 % interval over speakers."""

    estimate: Fraction
    lower: Fraction
    upper: Fraction


class MeasuredPoint(Strict):
    """A threshold for a use, and the errors of the held-out speakers at it.

    threshold : LLR, accepted at or above it. max_far : the limit on the FAR that it was chosen for.
    support : whether the number of trials supports that limit. rule : in words, how it was chosen.
    """

    threshold: Llr
    max_far: Fraction
    support: Literal["supported", "coarse"]
    rule: Text
    far: Rate
    frr: Rate
    num_false_accepts: Count
    num_false_rejects: Count
    num_target: AtLeastOne
    num_nontarget: AtLeastOne


class ErrorCurve(Strict):
    """FAR (falling) and FRR (rising) of the held-out speakers by threshold, (points,) each, thresholds (LLR) rising."""

    llr: Annotated[list[Llr], Meta(min_length=1, max_length=MAX_CURVE_POINTS)]
    far: list[Fraction]
    frr: list[Fraction]

    def __post_init__(self) -> None:
        if not len(self.llr) == len(self.far) == len(self.frr):
            raise ValueError("expected lists of one length in llr, far and frr")
        for key, sign in (("llr", 1), ("far", -1), ("frr", 1)):
            if (sign * np.diff(getattr(self, key)) < 0).any():
                raise ValueError(f"{key}: expected {'rising' if sign > 0 else 'falling'} values")

    def at_far(self, max_far: float) -> tuple[float, float, float] | None:
        """Return (threshold, far, frr) of the lowest threshold with a FAR of at most ``max_far``; None if none has."""
        kept = np.flatnonzero(np.array(self.far) <= max_far)
        return (self.llr[kept[0]], self.far[kept[0]], self.frr[kept[0]]) if kept.size else None

    def at_llr(self, llr: float) -> tuple[float, float]:
        """Return (far, frr) at the highest listed threshold not above ``llr``: upper bound of the FAR at ``llr``."""
        place = max(int(np.searchsorted(self.llr, llr, side="right")) - 1, 0)
        return self.far[place], self.frr[place]


class EmbedderEntry(Strict):
    """Calibration and error rates of one ONNX file.

    fingerprint : digest of weights and front end; templates of another one are refused. calibration : score -> LLR.
    operating_points : by use. error_rates : at many thresholds. eer : equal error rate.
    """

    file: Text
    fingerprint: Fingerprint
    calibration: Calibration
    operating_points: dict[Annotated[str, Meta(pattern=r"\A[a-z0-9_]{1,32}\Z")], MeasuredPoint]
    error_rates: ErrorCurve
    eer: Rate

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.calibration.slope > 0.0:
            raise ValueError(f"calibration.slope: expected a number above 0, found {self.calibration.slope}")
        for key in ("num_target", "num_nontarget"):
            if not 0 < getattr(self.calibration, key) <= MAX_COUNT:
                raise ValueError(f"calibration.{key}: expected a number from 1 to {MAX_COUNT:,}")


class DurationRange(Strict):
    """Durations of utterances, seconds."""

    shortest: Seconds
    median: Seconds
    longest: Seconds


class HeldOutSpeakers(Strict):
    """The speakers and utterances that the calibration was measured on."""

    description: Text
    num_speakers: AtLeastOne
    num_utterances: AtLeastOne
    duration_s: DurationRange


class ModelDescription(Strict):
    """The content of a model folder's ``calibration.json``. Speech shorter than min_duration_s is repeated up to it."""

    format: Literal[1]
    name: Name
    version: Name
    sample_rate: Annotated[int, Meta(ge=1000, le=384_000)]  # Hz
    embedding_dim: Annotated[int, Meta(ge=1, le=16_384)]
    min_duration_s: Annotated[float, Meta(ge=0.0, le=60.0)]
    held_out: HeldOutSpeakers
    embedders: dict[Literal["fp32", "int8"], EmbedderEntry]  # by precision

    def __post_init__(self) -> None:
        super().__post_init__()
        found = {precision: entry.file for precision, entry in self.embedders.items()}
        if found != ONNX_NAMES:
            raise ValueError(f"embedders: expected each file to be that of {ONNX_NAMES}, found {found}")
        if len({entry.fingerprint for entry in self.embedders.values()}) < len(found):
            raise ValueError("embedders: expected two different fingerprints, found one twice")


class ModelFolder(ModelDescription):
    """A checked model folder. onnx : file name -> content that was checked."""

    path: Path
    onnx: dict[str, bytes]

    def embedder(self, precision: str) -> EmbedderEntry:
        """Return the entry of a precision, "fp32" or "int8"; InputError for another one."""
        if precision not in self.embedders:
            raise InputError(f"{self.path}: has no {precision} embedder, only {', '.join(self.embedders)}")
        return self.embedders[precision]


def read_model_folder(path: str | Path) -> ModelFolder:
    """Read a model folder: every file is compared with ``SHA256SUMS``, every value of its JSON is checked.

    The bytes used are the bytes checked: each file is read once.

    Raises
    ------
    InputError : a file is missing, not listed (hidden files are ignored), too large, not a regular file, outside the
        folder (by its path or a symbolic link), or differs from its checksum; or a value of ``calibration.json`` is
        missing, unknown or out of range. File and place are named.
    """
    folder = Path(path)
    contents = _checked_contents(folder)
    description = parse_json(contents[CALIBRATION_NAME], ModelDescription, str(folder / CALIBRATION_NAME), ADVICE)
    onnx = {name: contents[name] for name in ONNX_NAMES.values()}
    return ModelFolder(path=folder, onnx=onnx, **msgspec.structs.asdict(description))


def parse_json(text: bytes, kind: type[Parsed], place: str, advice: str) -> Parsed:
    """Return the JSON in ``text`` as a ``kind``; InputError ("<place>: <fault>; <advice>") if it is not one."""
    try:
        with _PARSING:
            return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = str(error) if str(error).isprintable() else ascii(str(error))
        raise InputError(f"{place}: {message[:300]}; {advice}") from error


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` for every file of ``folder`` and below, sorted by path."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(_names_of_files(folder))]
    with written_whole(folder / SUMS_NAME) as temporary:
        temporary.write_text("".join(lines), encoding="ascii")


def _checked_contents(folder: Path) -> dict[str, bytes]:
    """Compare every file with ``SHA256SUMS``; return the contents of those in LARGEST, each of which must be listed."""
    sums = _read_sums(folder)
    if missing := sorted(set(LARGEST) - set(sums)):
        raise InputError(f"{folder / SUMS_NAME}: expected a line for {missing[0]}, found none; {ADVICE}")
    if unlisted := sorted(_names_of_files(folder) - set(sums)):
        raise InputError(f"{folder / unlisted[0]}: not listed in {SUMS_NAME}; remove the file, or {ADVICE}")
    contents = {}
    for name, expected in sums.items():
        content = _read_bounded(folder, name, LARGEST.get(name, MAX_FILE_BYTES))
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise InputError(f"{folder / name}: expected sha256 {expected[:12]}..., found {found[:12]}...; {ADVICE}")
        if name in LARGEST:
            contents[name] = content
    return contents


def _names_of_files(folder: Path) -> set[str]:
    """Return the paths inside the folder that are listed: of all files but the list itself and hidden ones."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)} - {SUMS_NAME}


def _read_sums(folder: Path) -> dict[str, str]:
    """Return path -> checksum."""
    path = folder / SUMS_NAME
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a model folder, found none; make one with export.py")
    text = _read_bounded(folder, SUMS_NAME, 64 * 2**10).decode("ascii", errors="replace")
    if not text.endswith("\n"):
        raise InputError(f"{path}: expected a newline at its end, found none: truncated; {ADVICE}")
    sums: dict[str, str] = {}
    for number, line in enumerate(text[:-1].split("\n"), start=1):
        match = SUMS_LINE.fullmatch(line)
        if match is None or ".." in PurePosixPath(match[2]).parts or match[2] in sums:
            raise InputError(f"{path}, line {number}: expected '<sha256>  <path in the folder>', once each; {ADVICE}")
        sums[match[2]] = match[1]
    if len(sums) > MAX_FILES:
        raise InputError(f"{path}: expected at most {MAX_FILES} files, found {len(sums)}; {ADVICE}")
    return sums


def _read_bounded(folder: Path, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a regular file inside ``folder``, never more than ``max_bytes``."""
    path = folder / name
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            raise InputError(f"{path}: a symbolic link points out of the model folder, to {real}; {ADVICE}")
        with open(real, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: expected a regular file; {ADVICE}")
            content = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise InputError(f"{path}: could not be read ({getattr(error, 'strerror', error)}); {ADVICE}") from error
    if (size := max(status.st_size, len(content))) > max_bytes:
        raise InputError(f"{path}: expected at most {max_bytes:,} bytes, found {size:,}; {ADVICE}")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking on a pipe, and without following a link that has just been put in its place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
