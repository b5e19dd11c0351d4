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
        calibration       what ``voice_biometrics.calibration.Calibration.to_dict`` wrote: score -> LLR
        operating_points  name of the use -> threshold (LLR), max_far, support, rule, the error rates measured there
                          (far, frr: {estimate, lower, upper}, a 95 % interval over speakers) and the counts behind
        error_rates       llr, far, frr: what accepting from each LLR on would have let in and turned away, rising LLR
        eer               {estimate, lower, upper}

Both ONNX files carry ``name``, ``version``, ``sample_rate`` and ``fingerprint`` in their metadata; ``embedder``
compares them when it loads one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voice_biometrics.calibration import Calibration
from voice_biometrics.deploy.checked_files import MAX_FILE_BYTES, read_checked_files
from voice_biometrics.deploy.checked_json import CheckedObject, parse_object
from voice_biometrics.errors import InputError

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
