"""What is kept of an enrolled voice, and how it is written into a row of the store."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voice_biometrics.common.errors import InputError

MAX_NAME = 100  # characters
MAX_DIMS = 16_384
HEADER_BYTES = 40


@dataclass(frozen=True, eq=False)
class Template:
    """An enrolled voice.

    fingerprint : of the embedder that made it, 64 hex digits; scores across embedders mean nothing.
    num_recordings, speech_s : what it was made of.
    embedding : (dims,) float32, the mean of the recordings' embeddings, each of length 1.
    """

    fingerprint: str
    num_recordings: int
    speech_s: float
    embedding: np.ndarray

    def joined(self, other: "Template") -> "Template":
        """Return the template of both sets of recordings; InputError when they come from two models."""
        if (self.fingerprint, self.embedding.shape) != (other.fingerprint, other.embedding.shape):
            raise InputError(another_model(self.fingerprint, other.fingerprint))
        number = self.num_recordings + other.num_recordings
        total = self.num_recordings * self.embedding + other.num_recordings * other.embedding
        return Template(
            self.fingerprint, number, self.speech_s + other.speech_s, (total / number).astype(self.embedding.dtype)
        )

    def to_bytes(self) -> bytes:
        """Return the row that ``unpack`` reads."""
        row = np.zeros(1, _row_type(self.embedding.size))
        row["fingerprint"] = np.frombuffer(bytes.fromhex(self.fingerprint), np.uint8)
        row["num_recordings"], row["speech_s"], row["embedding"] = self.num_recordings, self.speech_s, self.embedding
        return row.tobytes()


def unpack(row: bytes) -> Template:
    """Return the template of a row that ``Template.to_bytes`` wrote; InputError where it cannot be such a row."""
    (fields,) = unpack_table([row])
    fingerprint = bytes(fields["fingerprint"]).hex()
    return Template(fingerprint, int(fields["num_recordings"]), float(fields["speech_s"]), fields["embedding"])


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
    """Return an embedding (dims,) scaled to length 1; InputError when it has none."""
    length = np.linalg.norm(embedding)
    if not length > 0:
        raise InputError("the embedding is zero, so nothing can be said; record again")
    return (embedding / length).astype(np.float32)


def scaled_for_scoring(means: np.ndarray) -> np.ndarray:
    """Return means of unit embeddings, (voices, dims), scaled so that the product with a unit embedding is the score.

    The score is the cosine with the mean times the root of the mean's length, which is the cosine for one recording.
    The plain cosine with a mean is higher for strangers too: at the threshold that gave a FAR of 1 % for single
    recordings (25 speakers held out of speechocean762) it gave 1.6 % with three and 2.1 % with ten, and in place of
    0.1 %, 0.20 and 0.31 %. Thus scaled it gave 0.86 and 0.81, 0.06 and 0.03 %, and the FRR still fell from 22 % to 11
    and 5 %.
    """
    return means / np.sqrt(np.linalg.norm(means, axis=1, keepdims=True))


def another_model(enrolled_with: str, current: str) -> str:
    """Say that a voice was enrolled with another embedder."""
    return (
        f"enrolled with the model {enrolled_with[:12]}, but this one is {current[:12]}, and their scores do not mix: "
        "use that model folder (and --precision), or forget the voice and enrol it again"
    )


def checked_name(name: str) -> str:
    """Return the name of a voice, or raise InputError for one that could not be shown, typed or told apart."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise InputError(
            f"{ascii(name)[:60]} is no name: expected 1 to {MAX_NAME} printable characters without spaces at the ends"
        )
    return name
