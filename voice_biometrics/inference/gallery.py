"""All enrolled voices at once: one matrix, one product with the embedding of a recording."""

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.store import Store
from voice_biometrics.inference.voiceprints import another_model, scaled_for_scoring, unpack_table


class Gallery:
    """The voices of a store, in memory (4 bytes x dims a voice) until the store changes.

    Arguments
    ---------
    store : where they are enrolled. fingerprint, dims : of the embedder, 64 hex digits and numbers in an embedding.

    Raises
    ------
    InputError : as the methods of ``store``; or a voice was enrolled with another model.
    """

    def __init__(self, store: Store, fingerprint: str, dims: int) -> None:
        self.state = store.state()  # before reading: with a change meanwhile it is out of date
        self.names: list[str] = []
        self.rows = np.empty((store.count(), dims), np.float32)  # (voices, dims)
        for names, packed in store.blocks():
            _check_model(names, packed, fingerprint)
            self._append(names, scaled_for_scoring(unpack_table(packed)["embedding"]))
        self.rows = self.rows[: len(self.names)]

    def _append(self, names: list[str], rows: np.ndarray) -> None:
        """Add voices; the matrix grows only where others enrol meanwhile."""
        filled = len(self.names)
        missing = filled + len(rows) - len(self.rows)
        if missing > 0:
            self.rows = np.concatenate([self.rows, np.empty((missing, self.rows.shape[1]), np.float32)])
        self.rows[filled : filled + len(rows)] = rows
        self.names += names

    def best(self, embedding: np.ndarray, count: int) -> list[tuple[str, float]]:
        """Return name and score of the ``count`` best voices, the best first: ``embedding`` is (dims,), of length 1."""
        scores = self.rows @ embedding  # (voices,)
        count = min(count, len(scores))
        found = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
        return [(self.names[row], float(scores[row])) for row in found[np.argsort(-scores[found], kind="stable")]]


def _check_model(names: list[str], packed: list[bytes], fingerprint: str) -> None:
    expected = bytes.fromhex(fingerprint)
    for name, row in zip(names, packed, strict=True):
        if row[: len(expected)] != expected:
            raise InputError(f"{name} was {another_model(row[: len(expected)].hex(), fingerprint)}")
