"""Effects of microphones, rooms, noise and telephone lines on speech: float32 (samples,) to float32 of equal length.

Callers give the strength of an effect, and a generator for random sounds. PyTorch is not needed.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import soxr
from scipy.fft import irfft, next_fast_len, rfftfreq
from scipy.signal import butter, fftconvolve, oaconvolve, sosfilt


def generator_for(text: str) -> np.random.Generator:
    """Return a random generator seeded with ``text``, equal in every process (unlike ``hash``)."""
    return np.random.default_rng(np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4"))


EQUALISER_HZ = (125, 250, 500, 1000, 2000, 4000, 8000)
EQUALISER_S = 0.05
SHORT_RESPONSE = 1000  # taps; up to it, blocks take half the time on crops of some seconds
NOISE_FLAT_BELOW_HZ = 50  # a power of the frequency would grow without end towards 0 Hz
TELEPHONE_HZ = (300, 3400)
TELEPHONE_RATE = 8000  # Hz
MU = 255  # of ITU-T G.711's logarithmic law


def scale_to_peak(samples: np.ndarray, peak: float) -> np.ndarray:
    """Return ``samples`` with ``peak`` as their largest magnitude; silence stays silence."""
    largest = np.abs(samples).max()
    return (samples * (peak / largest)).astype(np.float32) if largest > 0 else samples


def equaliser_response(
    sample_rate: int,
    band_db: Sequence[float],
    band_hz: Sequence[float] = EQUALISER_HZ,
    duration_s: float = EQUALISER_S,
) -> np.ndarray:
    """Return the impulse response, float32 (taps,), of gains ``band_db``, in dB, at ``band_hz``, smooth in between.

    It is symmetric (linear phase), with the direct sound in the middle. Its resolution is ``1 / duration_s`` Hz.
    """
    half = round(duration_s * sample_rate / 2)
    freq_hz = rfftfreq(2 * half, 1 / sample_rate)
    gain_db = np.interp(np.log(np.maximum(freq_hz, 1)), np.log(band_hz), band_db)
    response = np.roll(irfft(10 ** (gain_db / 20)), half)[1:]
    return (response * np.hanning(2 * half + 1)[1:-1]).astype(np.float32)


def equalise(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return ``samples`` through an ``equaliser_response`` (taps,)."""
    return convolve(samples, response, response.size // 2)


def room_response(sample_rate: int, rng: np.random.Generator, decay_s: float, room_db: float) -> np.ndarray:
    """Return a room's impulse response, float32 (taps,): the direct sound 1, then decaying noise.

    ``decay_s`` is the time in which the noise falls by 60 dB, seconds; ``room_db`` is the ratio of the energies of
    direct sound and noise, dB.
    """
    num_taps = max(2, round(decay_s * sample_rate))
    tail = rng.standard_normal(num_taps, dtype=np.float32)
    tail *= np.float32(10) ** (-3 * np.arange(num_taps, dtype=np.float32) / (decay_s * sample_rate))
    tail[0] = 0
    tail *= 10 ** (-room_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    return tail


def convolve(samples: np.ndarray, response: np.ndarray, direct: int = 0) -> np.ndarray:
    """Return ``samples`` convolved with ``response`` (taps,), whose tap ``direct`` is the direct sound.

    The result is cut to the length of ``samples``.
    """
    by_fft = oaconvolve if response.size < SHORT_RESPONSE else fftconvolve  # in blocks, or at once
    return by_fft(samples, response)[direct : direct + samples.size]


def coloured_noise(num_samples: int, sample_rate: int, rng: np.random.Generator, slope: float) -> np.ndarray:
    """Return float32 (samples,) noise of mean power about 1, which falls with the frequency to the power ``slope``.

    0 is white, 1 pink, 2 brown.
    """
    num_padded = next_fast_len(max(num_samples, 2), real=True)
    freq_hz = np.maximum(rfftfreq(num_padded, 1 / sample_rate), NOISE_FLAT_BELOW_HZ).astype(np.float32)
    amplitude = freq_hz ** np.float32(-slope / 2)
    spectrum = rng.standard_normal(2 * amplitude.size, dtype=np.float32).view(np.complex64) * amplitude
    noise = irfft(spectrum, num_padded)[:num_samples]
    return noise * np.float32(num_padded / (2 * np.linalg.norm(amplitude)))


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return ``samples`` plus ``noise`` (samples,) at a ratio of mean powers of ``snr_db``; silence stays silence."""
    noise_power = np.mean(noise**2)
    if not noise_power > 0:
        return samples
    return samples + noise * np.float32(np.sqrt(np.mean(samples**2) / noise_power) * 10 ** (-snr_db / 20))


def telephone_line(
    samples: np.ndarray, sample_rate: int, band_hz: tuple[int, int] = TELEPHONE_HZ, num_bits: int = 8
) -> np.ndarray:
    """Return ``samples`` through a telephone line: 8 kHz, band-pass ``band_hz`` and mu-law of ``num_bits``.

    Source: ITU-T G.711, its law as a formula; +0 and -0 are one, so that silence stays silence.
    """
    narrow = soxr.resample(samples, sample_rate, TELEPHONE_RATE)
    heard = np.clip(sosfilt(_band_pass(band_hz), narrow), -1, 1)
    largest = 2 ** (num_bits - 1) - 1
    code = np.round(largest * np.sign(heard) * np.log1p(MU * np.abs(heard)) / np.log1p(MU))
    decoded = np.sign(code) * np.expm1(np.abs(code) / largest * np.log1p(MU)) / MU
    wide = soxr.resample(decoded.astype(np.float32), TELEPHONE_RATE, sample_rate)[: samples.size]
    return np.pad(wide, (0, samples.size - wide.size))


@lru_cache  # designing the filter takes longer than applying it
def _band_pass(band_hz: tuple[int, int]) -> np.ndarray:
    """Return the sections (4, 6) of a band-pass at the telephone's rate."""
    return butter(4, band_hz, "bandpass", output="sos", fs=TELEPHONE_RATE).astype(np.float32)
