"""Templates of enrolled voices: how they are scored, packed into a row of the store, and exported as JSON lines.

The first line of an export is ``{"format": "enrolled voices", "version": 2}``; each further line is a voice: ``name``,
``fingerprint`` of its model (64 hex digits), ``num_recordings``, ``speech_s`` (seconds), ``embedding`` and ``marks``
(little-endian float32 and float16, base64). Version 1 has no marks. An export is not encrypted, even if the store is.
"""

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec
import numpy as np
from msgspec import Meta

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.model_folder import Fingerprint, Strict, parse_json

MAX_NAME = 100  # characters
ROWS_AT_ONCE = 10_000
MAX_DIMS = 16_384
MAX_LINE_BYTES = 2**17  # the largest embedding, in base64, with a name
HEADER_BYTES = 40
MARK_DIMS, MAX_MARKS = 16, 256
# Distance of two marks. One recording at half the level with 16 bits: 0.0075 or less (99 % of 400 of speechocean762);
# two recordings: 0.038 or more (80,000 pairs).
SAME_RECORDING = 0.01


@dataclass(frozen=True, eq=False)
class Template:
    """An enrolled voice.

    fingerprint : of the embedder that made it, 64 hex digits; scores across embedders are meaningless.
    num_recordings, speech_s : number and total speech of its recordings.
    embedding : (dims,) float32, mean of the recordings' embeddings, each of length 1.
    marks : (recordings, MARK_DIMS) float16, the first numbers of these, by which a recording is recognised; of the last
        MAX_MARKS recordings, and of none of those that earlier versions enrolled together.
    """

    fingerprint: str
    num_recordings: int
    speech_s: float
    embedding: np.ndarray
    marks: np.ndarray

    def joined(self, other: "Template") -> "Template":
        """Return the template of both sets of recordings; InputError when they come from two models."""
        if (self.fingerprint, self.embedding.shape) != (other.fingerprint, other.embedding.shape):
            raise InputError(another_model(self.fingerprint, other.fingerprint))
        number = self.num_recordings + other.num_recordings
        total = self.num_recordings * self.embedding + other.num_recordings * other.embedding
        embedding = (total / number).astype(self.embedding.dtype)
        marks = np.concatenate([self.marks, other.marks])[-MAX_MARKS:]
        return Template(self.fingerprint, number, self.speech_s + other.speech_s, embedding, marks)

    def holds(self, embedding: np.ndarray) -> bool:
        """Return True if one of the recordings has this embedding (dims,), of length 1."""
        distances = np.linalg.norm(self.marks - embedding[:MARK_DIMS], axis=1)
        return bool((distances < SAME_RECORDING).any())

    def to_bytes(self) -> bytes:
        """Return the row that ``unpack`` reads."""
        row = np.zeros(1, _row_type(self.embedding.size))
        row["fingerprint"] = np.frombuffer(bytes.fromhex(self.fingerprint), np.uint8)
        row["num_recordings"], row["speech_s"], row["embedding"] = self.num_recordings, self.speech_s, self.embedding
        return row.tobytes()


def template_of_one(fingerprint: str, speech_s: float, embedding: np.ndarray) -> Template:
    """Return the template of one recording, whose embedding has length 1."""
    return Template(fingerprint, 1, speech_s, embedding, embedding[None, :MARK_DIMS].astype("<f2"))


def unpack(row: bytes, marks: bytes) -> Template:
    """Return the template of a row that ``Template.to_bytes`` wrote, and its marks; InputError if it is none."""
    (fields,) = unpack_table([row])
    fingerprint, embedding = bytes(fields["fingerprint"]).hex(), fields["embedding"]
    number, speech_s = int(fields["num_recordings"]), float(fields["speech_s"])
    if not marks and number == 1:  # of an earlier version
        return template_of_one(fingerprint, speech_s, embedding)
    num_dims = min(MARK_DIMS, embedding.size)
    if len(marks) % (2 * num_dims):
        raise InputError("the marks of a template have an odd length: the store is damaged; restore a backup")
    return Template(fingerprint, number, speech_s, embedding, np.frombuffer(marks, "<f2").reshape(-1, num_dims))


def unpack_table(rows: Sequence[bytes]) -> np.ndarray:
    """Return rows of one length as a structured array with the fields of ``Template``; InputError as ``unpack``."""
    sizes = set(map(len, rows))
    dims, rest = divmod(max(sizes) - HEADER_BYTES, 4)
    if len(sizes) != 1 or rest or not 0 < dims <= MAX_DIMS:
        raise InputError("a template has an odd length: the store is damaged; restore a backup")
    table = np.frombuffer(b"".join(rows), _row_type(dims))
    peaks = np.abs(table["embedding"]).max(axis=1)
    if not (np.isfinite(peaks) & (peaks > 0) & (table["num_recordings"] > 0) & (table["speech_s"] >= 0)).all():
        raise InputError("a template holds impossible numbers: the store is damaged; restore a backup")
    return table


def _row_type(dims: int) -> np.dtype:
    fields = [("fingerprint", "u1", (32,)), ("num_recordings", "<u4"), ("speech_s", "<f4"), ("embedding", "<f4", dims)]
    return np.dtype(fields)


def unit(embedding: np.ndarray) -> np.ndarray:
    """Return an embedding (dims,) scaled to length 1; InputError when it is zero."""
    length = np.linalg.norm(embedding)
    if not length > 0:
        raise InputError("the embedding is zero, so it cannot be scored; record again")
    return (embedding / length).astype(np.float32)


def scaled_for_scoring(means: np.ndarray) -> np.ndarray:
    """Return means of unit embeddings, (..., dims), scaled so that the product with a unit embedding is the score.

    The score is the cosine with the mean times the square root of the mean's length; for one recording it is the
    cosine. The plain cosine with a mean is higher for strangers too: at the threshold with a FAR of 1 % for single
    recordings (25 speakers held out of speechocean762), the FAR was 1.6 % with three and 2.1 % with ten recordings.
    Scaled, it was 0.86 and 0.81 %, and the FRR still fell from 22 % to 11 and 5 %.
    """
    return means / np.sqrt(np.linalg.norm(means, axis=-1, keepdims=True))


def another_model(enrolled_with: str, current: str) -> str:
    """Return the fault of a voice that was enrolled with another embedder."""
    return (
        f"enrolled with model {enrolled_with[:12]}, but this is model {current[:12]}, and their scores are not "
        "comparable: use that model folder (and --precision), or forget the voice and enrol it again"
    )


def checked_name(name: str) -> str:
    """Return the name of a voice in composed Unicode; InputError if it could not be displayed or typed."""
    return unicodedata.normalize("NFC", stored_name(name))


def stored_name(name: str) -> str:
    """Return the name of a voice as it is; InputError if it could not be displayed or typed."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise InputError(
            f"invalid name {ascii(name)[:60]}: expected 1 to {MAX_NAME} printable characters without spaces at the ends"
        )
    return name


class ExportHeader(Strict):
    """The first line of an export."""

    format: Literal["enrolled voices"]
    version: Literal[1, 2]


class ExportedVoice(Strict):
    """A further line of an export."""

    name: str
    fingerprint: Fingerprint
    num_recordings: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    speech_s: Annotated[float, Meta(ge=0.0, le=1e9)]
    embedding: bytes  # base64 in JSON
    marks: bytes = b""


def write_voices(voices: Iterable[tuple[str, Template]], file: BinaryIO) -> int:
    """Write an export to a binary file; return the number of voices."""
    file.write(msgspec.json.encode(ExportHeader(format="enrolled voices", version=2)) + b"\n")
    num_voices = 0
    for name, template in voices:
        arrays = {"embedding": template.embedding.astype("<f4").tobytes(), "marks": template.marks.tobytes()}
        file.write(msgspec.json.encode(ExportedVoice(name=name, **vars(template) | arrays)) + b"\n")
        num_voices += 1
    return num_voices


def write_vectors(voices: Iterable[tuple[str, Template]], path: Path) -> int:
    """Write voices for a vector index as Parquet, and return their number; InputError without pyarrow.

    Columns: ``name``, ``fingerprint`` and ``vector``, whose inner product with a unit embedding is the score.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from error
    voices, writer, num_voices = iter(voices), None, 0
    while block := list(itertools.islice(voices, ROWS_AT_ONCE)):
        vectors = scaled_for_scoring(np.stack([template.embedding for _, template in block])).astype(np.float32)
        columns = {
            "name": [name for name, _ in block],
            "fingerprint": [template.fingerprint for _, template in block],
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
        }
        table = pa.table(columns)
        writer = writer or ParquetWriter(path, table.schema)
        writer.write_table(table)
        num_voices += len(block)
    if writer is None:
        raise InputError(f"{path}: no voice is enrolled; enrol one first")
    writer.close()
    return num_voices


def read_voices(file: BinaryIO, name: str) -> Iterator[tuple[str, Template]]:
    """Yield the voices of an export that errors call ``name``; InputError with the line that is at fault."""
    advice = "give a file written by `export`"
    for number in itertools.count(1):
        line, place = file.readline(MAX_LINE_BYTES), f"{name}, line {number}"
        if len(line) == MAX_LINE_BYTES:
            raise InputError(f"{place}: longer than {MAX_LINE_BYTES:,} bytes; {advice}")
        if number == 1:
            parse_json(line, ExportHeader, place, advice)
        elif line:
            yield _imported(parse_json(line, ExportedVoice, place, advice), place)
        else:
            return


def _imported(voice: ExportedVoice, place: str) -> tuple[str, Template]:
    try:
        embedding = np.frombuffer(voice.embedding, "<f4")
        row = Template(voice.fingerprint, voice.num_recordings, voice.speech_s, embedding, voice.marks).to_bytes()
        return voice.name, unpack(row, voice.marks)
    except ValueError as error:
        raise InputError(f"{place}: embedding: expected base64 of 1 to {MAX_DIMS:,} finite float32 numbers") from error
