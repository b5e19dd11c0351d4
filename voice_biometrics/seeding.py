"""Random generators that follow from a text alone: the same in every process, whatever was drawn before."""

import hashlib

import numpy as np


def generator_for(text: str) -> np.random.Generator:
    """Return a generator whose seed is ``text``; ``hash`` would differ between processes."""
    return np.random.default_rng(np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4"))
