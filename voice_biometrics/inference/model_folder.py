"""The model folder: everything that verifying a voice needs, checked while it is read. Needs no PyTorch.

    embedder.onnx        waveform (batch, samples) float32 -> embedding (batch, dims) float32; both axes free
    embedder.int8.onnx   the same with the network quantised; its scores have another scale
    calibration.json     what the scores mean, for each of the two (below)
    MODEL_CARD.md        use, data, licence, results, limits
    SHA256SUMS           checksums of all other files (``checked_files``)
    weights.safetensors  the network's tensors as PyTorch names them, to train on from (``--pretrained``); without code
    speechbrain/         the same model for ``SpeakerRecognition.from_hparams``; nothing here reads it but to check it

``calibration.json`` (all rates are fractions; log-likelihood ratios, LLR, are natural logarithms):

    format            1; another number is another format
    name, version     of the model
    sample_rate       Hz
    embedding_dim     numbers in an embedding
    min_duration_s    shorter speech is repeated up to it before it is embedded
    held_out          whom the calibration was measured on: description, num_speakers, num_utterances,
                      duration_s {shortest, median, longest} of their utterances
    embedders         for "fp32" and "int8":
        file              embedder.onnx or embedder.int8.onnx
        fingerprint       64 hex digits: digest of weights and front end; templates of another one must be refused
        calibration       what ``voice_biometrics.metrics.calibration.Calibration.to_dict`` wrote: score -> LLR
        operating_points  name of the use -> threshold (LLR), max_far, support, rule, the error rates measured there
                          (far, frr: {estimate, lower, upper}, a 95 % interval over speakers) and the counts behind
        error_rates       llr, far, frr: what accepting from each LLR on would have let in and turned away, rising LLR
        eer               {estimate, lower, upper}

Both ONNX files carry ``name``, ``version``, ``sample_rate`` and ``fingerprint`` in their metadata; ``embedder``
compares them when it loads one.

Files that are read only when they are what ``SHA256SUMS`` of their folder says.

``SHA256SUMS`` has the form that ``sha256sum --check`` reads: a line a file, ``<64 hex digits>  <path in the folder>``,
sorted by path. A file that changed by accident or by halves is refused. It is no signature: whoever may write the
folder may write the sums as well.

JSON whose every value is checked before it is used: the error names the file and the place in it.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.metrics.calibration import Calibration

SUMS_NAME = "SHA256SUMS"
MAX_FILES = 64
MAX_FILE_BYTES = 256 * 2**20  # of one file
MAX_SUMS_BYTES = 64 * 2**10
SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._/-]{0,199})")
ADVICE = "take a fresh copy of the model folder, or export it again"


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` for every file of ``folder`` and below."""
    names = sorted(_names_of_files(folder))
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    with written_whole(folder / SUMS_NAME) as temporary:
        temporary.write_text("".join(lines), encoding="ascii")


def read_checked_files(folder: Path, keep: Mapping[str, int]) -> dict[str, bytes]:
    """Check every file that ``SHA256SUMS`` lists and return the contents of those named in ``keep``.

    What is returned is what was checked: the bytes are read once.

    Arguments
    ---------
    folder : the model folder.
    keep : name -> largest size in bytes; each must be listed.

    Raises
    ------
    InputError : a file is missing, unlisted (hidden ones apart), too large, no plain file, outside the folder (by its
        path or a symbolic link), or differs from its checksum; it is named.
    """
    sums = _read_sums(folder)
    missing = sorted(set(keep) - set(sums))
    if missing:
        raise InputError(f"{folder / SUMS_NAME}: expected a line for {missing[0]}, found none; {ADVICE}")
    unlisted = sorted(_names_of_files(folder) - set(sums))
    if unlisted:
        raise InputError(f"{folder / unlisted[0]}: not listed in {SUMS_NAME}; take it out of the folder, or {ADVICE}")
    contents = {}
    for name, expected in sums.items():
        content = _read_bounded(folder, name, keep.get(name, MAX_FILE_BYTES))
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise InputError(f"{folder / name}: expected sha256 {expected[:12]}..., found {found[:12]}...; {ADVICE}")
        if name in keep:
            contents[name] = content
    return contents


def _names_of_files(folder: Path) -> set[str]:
    """Return the paths in the folder of all that is to be listed: every file but the list, and what is hidden."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)} - {SUMS_NAME}


def _read_sums(folder: Path) -> dict[str, str]:
    """Return path -> checksum."""
    path = folder / SUMS_NAME
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a model folder, found none; make one with export.py")
    text = _read_bounded(folder, SUMS_NAME, MAX_SUMS_BYTES).decode("ascii", errors="replace")
    sums: dict[str, str] = {}
    *lines, rest = text.split("\n")
    if rest:
        raise InputError(f"{path}: expected a newline at its end, found none: cut short; {ADVICE}")
    for number, line in enumerate(lines, start=1):
        match = SUMS_LINE.fullmatch(line)
        if match is None or ".." in PurePosixPath(match[2]).parts:
            raise InputError(f"{path}, line {number}: expected '<sha256>  <path in the folder>'; {ADVICE}")
        if match[2] in sums:
            raise InputError(f"{path}, line {number}: {match[2]} is listed twice; {ADVICE}")
        sums[match[2]] = match[1]
    if not 0 < len(sums) <= MAX_FILES:
        raise InputError(f"{path}: expected 1 to {MAX_FILES} files, found {len(sums)}; {ADVICE}")
    return sums


def _read_bounded(folder: Path, name: str, max_bytes: int) -> bytes:
    """Return the bytes of one plain file that lies in ``folder``; never more than ``max_bytes``."""
    path = folder / name
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            raise InputError(f"{path}: a symbolic link leads out of the model folder, to {real}; {ADVICE}")
        with open(real, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: expected a plain file; {ADVICE}")
            content = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(f"{path}: could not be read ({getattr(error, 'strerror', error)}); {ADVICE}") from error
    size = max(status.st_size, len(content))
    if size > max_bytes:
        raise InputError(f"{path}: expected at most {max_bytes:,} bytes, found {size:,}; {ADVICE}")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file, but no pipe that would wait for a writer, and no link that was put there meanwhile."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


MAX_TEXT = 1000  # characters
MAX_NUMBER = 1e300  # so that no whole number overflows as a float
KEY_NAME = re.compile(r"[a-z0-9_]{1,32}")


def parse_object(text: bytes, file: str) -> "CheckedObject":
    """Return the JSON object in ``text``; InputError for anything else, a name given twice, or NaN."""
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: malformed JSON: {error}") from error
    return CheckedObject(content, file, "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class CheckedObject:
    """A JSON object that hands out its values checked, and knows which were not asked for."""

    def __init__(self, content: Any, file: str, place: str) -> None:
        """``place`` is the way from the top of the file, as in ``embedders.fp32``."""
        self.file, self.place = file, place
        if not isinstance(content, dict):
            raise InputError(f"{file}: {place or 'the content'}: expected an object, found {type(content).__name__}")
        self.content = content
        self.asked: set[str] = set()

    def fault(self, key: str, expected: str) -> InputError:
        """Return the error for the value of ``key``."""
        place = f"{self.place}.{key}".strip(".")
        found = repr(self.content[key])[:60] if key in self.content else "nothing"
        return InputError(f"{self.file}: {place}: expected {expected}, found {found}")

    def value(self, key: str) -> Any:
        """Return a value as it is, None when it is missing."""
        self.asked.add(key)
        return self.content.get(key)

    def text(self, key: str) -> str:
        """Return text that can be printed anywhere, up to 1,000 characters."""
        value = self.value(key)
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_TEXT:
            raise self.fault(key, f"1 to {MAX_TEXT} printable characters")
        return value

    def number(self, key: str, lowest: float = -1e9, highest: float = 1e9) -> float:
        """Return a finite number from ``lowest`` to ``highest``."""
        value = self.value(key)
        if not is_number(value) or not lowest <= value <= highest:
            raise self.fault(key, f"a number from {lowest:g} to {highest:g}")
        return float(value)

    def count(self, key: str, lowest: int = 0, highest: int = 10**12) -> int:
        """Return a whole number from ``lowest`` to ``highest``."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self.fault(key, f"a whole number from {lowest:,} to {highest:,}")
        return value

    def numbers(self, key: str, highest_count: int) -> tuple[float, ...]:
        """Return a list of up to ``highest_count`` finite numbers."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) > highest_count or not all(map(is_number, value)):
            raise self.fault(key, f"a list of up to {highest_count:,} finite numbers")
        return tuple(float(item) for item in value)

    def object(self, key: str) -> "CheckedObject":
        """Return an object inside this one."""
        return CheckedObject(self.value(key), self.file, f"{self.place}.{key}".strip("."))

    def objects(self, key: str) -> dict[str, "CheckedObject"]:
        """Return the objects inside an object, by name."""
        parent = self.object(key)
        for name in parent.content:
            if not KEY_NAME.fullmatch(name):
                raise parent.fault(ascii(name)[:60], "a name of small letters, digits and _")
        return {name: parent.object(name) for name in parent.content}

    def close(self) -> None:
        """Raise InputError for a value that nobody asked for."""
        unknown = sorted(set(self.content) - self.asked)
        if unknown:
            raise InputError(f"{self.file}: {self.place or 'the content'}: {ascii(unknown[0])[:60]} is no known entry")


def is_number(value: Any) -> bool:
    """Tell a finite JSON number; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


FORMAT = 1
CALIBRATION_NAME = "calibration.json"
CARD_NAME = "MODEL_CARD.md"
SPEECHBRAIN_NAME = "speechbrain"
WEIGHTS_NAME = "weights.safetensors"
ONNX_NAMES = {"fp32": "embedder.onnx", "int8": "embedder.int8.onnx"}
MAX_JSON_BYTES = 4 * 2**20
MAX_CURVE_POINTS = 10_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Rate:
    """An error rate, a fraction, with its 95 % interval over speakers."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class MeasuredPoint:
    """A threshold for a use, and what it did to the held-out speakers.

    threshold : accept from this LLR on. max_far : the limit on the FAR that it was chosen by.
    support : "supported" or "coarse", what the number of trials makes of that limit.
    rule : in words, how it was chosen.
    """

    threshold: float
    max_far: float
    support: str
    rule: str
    far: Rate
    frr: Rate
    num_false_accepts: int
    num_false_rejects: int
    num_target: int
    num_nontarget: int


@dataclass(frozen=True)
class ErrorCurve:
    """FAR and FRR of the held-out speakers by threshold, (points,) each, thresholds (LLR) rising."""

    llr: np.ndarray
    far: np.ndarray
    frr: np.ndarray

    def at_far(self, max_far: float) -> tuple[float, float, float] | None:
        """Return (threshold, far, frr) of the lowest threshold with a FAR of at most ``max_far``; None if none has."""
        kept = np.flatnonzero(self.far <= max_far)
        return None if not kept.size else tuple(float(axis[kept[0]]) for axis in (self.llr, self.far, self.frr))

    def at_llr(self, llr: float) -> tuple[float, float]:
        """Return (far, frr) at the highest listed threshold that is not above ``llr``: a FAR no lower than the true."""
        place = max(int(np.searchsorted(self.llr, llr, side="right")) - 1, 0)
        return float(self.far[place]), float(self.frr[place])


@dataclass(frozen=True)
class EmbedderEntry:
    """One ONNX file with what its scores mean."""

    precision: str  # "fp32" or "int8"
    file: str
    fingerprint: str
    calibration: Calibration
    operating_points: dict[str, MeasuredPoint]
    error_rates: ErrorCurve
    eer: Rate
    onnx: bytes = field(repr=False, compare=False)  # the checked content of the file


@dataclass(frozen=True)
class HeldOutSpeakers:
    """Whom the calibration was measured on; durations of their utterances in seconds."""

    description: str
    num_speakers: int
    num_utterances: int
    shortest_s: float
    median_s: float
    longest_s: float


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder."""

    path: Path
    name: str
    version: str
    sample_rate: int  # Hz
    embedding_dim: int
    min_duration_s: float
    held_out: HeldOutSpeakers
    embedders: dict[str, EmbedderEntry]

    def embedder(self, precision: str) -> EmbedderEntry:
        """Return the embedder of a precision, "fp32" or "int8"; InputError when the folder has none."""
        if precision not in self.embedders:
            raise InputError(f"{self.path}: has no {precision} embedder, only {', '.join(self.embedders)}")
        return self.embedders[precision]


def read_model_folder(path: str | Path) -> ModelFolder:
    """Read a model folder, every file of it checked against ``SHA256SUMS`` and every value of its JSON checked.

    Nothing that is read is executed or can be. The ONNX files are not parsed yet.

    Raises
    ------
    InputError : as ``checked_files.read_checked_files``; or a value of ``calibration.json`` is missing, unknown or out
        of its range; file and place are named.
    """
    folder = Path(path)
    sizes = {CALIBRATION_NAME: MAX_JSON_BYTES, CARD_NAME: MAX_JSON_BYTES} | {
        name: MAX_FILE_BYTES for name in ONNX_NAMES.values()
    }
    contents = read_checked_files(folder, sizes)
    top = parse_object(contents[CALIBRATION_NAME], str(folder / CALIBRATION_NAME))
    top.count("format", FORMAT, FORMAT)
    model = ModelFolder(
        path=folder,
        name=_matching(top, "name", NAME),
        version=_matching(top, "version", NAME),
        sample_rate=top.count("sample_rate", 1000, 384_000),
        embedding_dim=top.count("embedding_dim", 1, 16_384),
        min_duration_s=top.number("min_duration_s", 0.0, 60.0),
        held_out=_held_out(top.object("held_out")),
        embedders=_embedders(top, contents),
    )
    top.close()
    return model


def _embedders(top: CheckedObject, contents: Mapping[str, bytes]) -> dict[str, EmbedderEntry]:
    found = top.objects("embedders")
    if set(found) != set(ONNX_NAMES):
        raise top.fault("embedders", f"the entries {' and '.join(ONNX_NAMES)}")
    embedders = {name: _embedder(name, entry, contents) for name, entry in found.items()}
    if len({entry.fingerprint for entry in embedders.values()}) != len(embedders):
        raise InputError(f"{top.file}: embedders: expected a fingerprint of its own for each, found one twice")
    return embedders


def _embedder(precision: str, entry: CheckedObject, contents: Mapping[str, bytes]) -> EmbedderEntry:
    if entry.text("file") != ONNX_NAMES[precision]:
        raise entry.fault("file", ONNX_NAMES[precision])
    embedder = EmbedderEntry(
        precision=precision,
        file=ONNX_NAMES[precision],
        fingerprint=_matching(entry, "fingerprint", FINGERPRINT),
        calibration=_calibration(entry),
        operating_points={name: _point(point) for name, point in entry.objects("operating_points").items()},
        error_rates=_curve(entry.object("error_rates")),
        eer=_rate(entry.object("eer")),
        onnx=contents[ONNX_NAMES[precision]],
    )
    entry.close()
    return embedder


def _calibration(entry: CheckedObject) -> Calibration:
    try:
        return Calibration.from_dict(entry.value("calibration"))
    except (InputError, OverflowError) as error:
        raise InputError(f"{entry.file}: {entry.place}.calibration: {error}") from error


def _point(point: CheckedObject) -> MeasuredPoint:
    measured = MeasuredPoint(
        threshold=point.number("threshold"),
        max_far=point.number("max_far", 0.0, 1.0),
        support=_matching(point, "support", re.compile("supported|coarse")),
        rule=point.text("rule"),
        far=_rate(point.object("far")),
        frr=_rate(point.object("frr")),
        num_false_accepts=point.count("num_false_accepts"),
        num_false_rejects=point.count("num_false_rejects"),
        num_target=point.count("num_target", 1),
        num_nontarget=point.count("num_nontarget", 1),
    )
    point.close()
    return measured


def _rate(rate: CheckedObject) -> Rate:
    checked = Rate(*(rate.number(key, 0.0, 1.0) for key in ("estimate", "lower", "upper")))
    rate.close()
    return checked


def _curve(curve: CheckedObject) -> ErrorCurve:
    """Return the curve once its axes fit each other and run the right way."""
    llr, far, frr = (np.array(curve.numbers(key, MAX_CURVE_POINTS)) for key in ("llr", "far", "frr"))
    curve.close()
    if not llr.size == far.size == frr.size > 0:
        raise curve.fault("llr", "as many values, and at least one, as in far and frr")
    for key, axis, way in (("llr", llr, 1), ("far", far, -1), ("frr", frr, 1)):
        if (way * np.diff(axis) < 0).any():
            raise InputError(f"{curve.file}: {curve.place}.{key}: expected {'rising' if way > 0 else 'falling'} values")
    for key, axis in (("far", far), ("frr", frr)):
        if axis.min() < 0 or axis.max() > 1:
            raise InputError(f"{curve.file}: {curve.place}.{key}: expected fractions from 0 to 1")
    return ErrorCurve(llr, far, frr)


def _held_out(held_out: CheckedObject) -> HeldOutSpeakers:
    duration = held_out.object("duration_s")
    speakers = HeldOutSpeakers(
        held_out.text("description"),
        held_out.count("num_speakers", 1),
        held_out.count("num_utterances", 1),
        *(duration.number(key, 0.0, 1e6) for key in ("shortest", "median", "longest")),
    )
    duration.close()
    held_out.close()
    return speakers


def _matching(entry: CheckedObject, key: str, pattern: re.Pattern) -> str:
    """Return text that the pattern matches whole."""
    text = entry.text(key)
    if not pattern.fullmatch(text):
        raise entry.fault(key, f"text like {pattern.pattern}")
    return text
