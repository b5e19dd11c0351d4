"""Files changed at random, as accident or malice would: for ``fuzz.py``."""

import random
import struct
from collections.abc import Callable, Sequence

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 200  # where most formats say what follows


def mutate(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return ``content`` with one to four changes; ``others`` are files that a piece may come from."""
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(MUTATIONS)(content, others, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Return a place, in the header every other time."""
    return rng.randrange(max(1, min(len(content), HEADER_BYTES) if rng.random() < 0.5 else len(content)))


def _flip_bits(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 30)) if changed else 0):
        changed[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _write_extreme(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place, value = _place(content, rng), rng.choice(EXTREMES)
    number = struct.pack(rng.choice("<>") + "Q", value)
    size = rng.choice((1, 2, 4, 8))
    piece = number[:size] if number[0] or not number[-1] else number[-size:]
    return content[:place] + piece + content[place + size :]


def _write_noise(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place, size = _place(content, rng), rng.choice((1, 4, 100, 4000))
    return content[:place] + rng.randbytes(size) + content[place + size :]


def _cut_end(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _cut_out(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[place + rng.choice((1, 2, 7, 1000)) :]


def _repeat(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    place = _place(content, rng)
    piece = content[place : place + rng.choice((1, 4, 64, 5000))]
    return content[:place] + rng.choice((1, 2, 20)) * piece + content[place:]


def _splice(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    return content[: _place(content, rng)] + other[_place(other, rng) :]


MUTATIONS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flip_bits, _flip_bits, _write_extreme, _write_extreme, _write_noise, _cut_end, _cut_out, _repeat, _splice,
)  # fmt: skip
