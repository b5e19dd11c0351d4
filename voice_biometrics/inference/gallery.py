"""All enrolled voices in memory: one matrix, one product with the embedding of a recording."""

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.store import Store
from voice_biometrics.inference.voiceprints import another_model, scaled_for_scoring, unpack_table

GROWTH = 1.25  # of the matrix when it is full; memory that is not filled is not used


class Gallery:
    """The voices of a store, 4 bytes x dims each. Call ``refresh`` before use: it reads only what has changed.

    Arguments
    ---------
    store : where they are enrolled. fingerprint, dims : of the embedder, 64 hex digits and numbers in an embedding.

    Attributes
    ----------
    names : of the rows. rows : (voices, dims) float32. gone : rows whose voice was forgotten or enrolled again.
    """

    def __init__(self, store: Store, fingerprint: str, dims: int) -> None:
        self.store, self.fingerprint, self.dims = store, fingerprint, dims
        self.state = self.generation = None
        self.refresh()

    def __len__(self) -> int:
        return len(self.names) - len(self.gone)

    def refresh(self) -> None:
        """Read what this or another process has changed; InputError as ``Store``, or for a voice of another model."""
        state, generation = self.store.state(), self.store.generation()  # first: a change meanwhile is read next time
        if state == self.state:
            return
        if generation != self.generation:
            self.names: list[str] = []
            self.ids, self.matrix = np.empty(0, np.int64), np.empty((0, self.dims), np.float32)
            self._reserve(self.store.count())
            self.generation = generation
        self.gone = np.flatnonzero(np.isin(self.ids[: len(self.names)], self.store.wiped_ids()))
        for ids, names, packed in self.store.blocks(after=int(self.ids[len(self.names) - 1]) if self.names else 0):
            self._append(ids, names, packed)
        self.state = state

    def best(self, embedding: np.ndarray, count: int) -> list[tuple[str, float]]:
        """Return name and score of the ``count`` best voices, the best first: ``embedding`` is (dims,), of length 1."""
        scores = self.rows @ embedding  # (voices,)
        scores[self.gone] = -np.inf
        count = min(count, len(self))
        found = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
        return [(self.names[row], float(scores[row])) for row in found[np.argsort(-scores[found], kind="stable")]]

    @property
    def rows(self) -> np.ndarray:
        """The filled part of the matrix."""
        return self.matrix[: len(self.names)]

    def _append(self, ids: list[int], names: list[str], packed: list[bytes]) -> None:
        expected = bytes.fromhex(self.fingerprint)
        for name, row in zip(names, packed, strict=True):
            if row[: len(expected)] != expected:
                raise InputError(f"{name} was {another_model(row[: len(expected)].hex(), self.fingerprint)}")
        filled, stop = len(self.names), len(self.names) + len(names)
        if stop > len(self.ids):
            self._reserve(stop)
        self.ids[filled:stop] = ids
        self.matrix[filled:stop] = scaled_for_scoring(unpack_table(packed)["embedding"])
        self.names += names

    def _reserve(self, number: int) -> None:
        """Make room for ``number`` voices and some more."""
        size, filled = round(GROWTH * number) + 64, len(self.names)
        ids, matrix = np.empty(size, np.int64), np.empty((size, self.dims), np.float32)
        ids[:filled], matrix[:filled] = self.ids[:filled], self.matrix[:filled]
        self.ids, self.matrix = ids, matrix
