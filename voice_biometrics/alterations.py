"""What microphones, rooms, noise and telephone lines do to speech: float32 (samples,) to float32 of the same length.

Needs no PyTorch. Nothing here draws its strength: callers state it, and pass a generator where sound itself is random.
"""

from collections.abc import Sequence

import numpy as np
import soxr
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import butter, sosfilt

EQUALISER_HZ = (125, 250, 500, 1000, 2000, 4000, 8000)
EQUALISER_S = 0.05  # length of its response
NOISE_FLAT_BELOW_HZ = 50  # a power of the frequency would grow without end towards 0 Hz
TELEPHONE_HZ = (300, 3400)
TELEPHONE_RATE = 8000  # Hz
MU = 255  # of ITU-T G.711's logarithmic law


def scale_to_peak(samples: np.ndarray, peak: float) -> np.ndarray:
    """Return ``samples`` with ``peak`` as their largest magnitude; silence stays silence."""
    largest = np.abs(samples).max()
    return (samples * (peak / largest)).astype(np.float32) if largest > 0 else samples


def equaliser_response(sample_rate: int, band_db: Sequence[float]) -> np.ndarray:
    """Return the impulse response, float32 (taps,), of gains ``band_db``, in dB, at EQUALISER_HZ, smooth in between.

    It is symmetric: the direct sound stands in the middle, and no frequency is delayed against another.
    """
    half = round(EQUALISER_S * sample_rate / 2)
    freq_hz = rfftfreq(2 * half, 1 / sample_rate)
    gain_db = np.interp(np.log(np.maximum(freq_hz, 1)), np.log(EQUALISER_HZ), band_db)
    response = np.roll(irfft(10 ** (gain_db / 20)), half)[1:]
    return (response * np.hanning(2 * half + 1)[1:-1]).astype(np.float32)


def equalise(samples: np.ndarray, sample_rate: int, band_db: Sequence[float]) -> np.ndarray:
    """Return ``samples`` with the gains ``band_db``, in dB, at EQUALISER_HZ; ``sample_rate`` is in Hz."""
    response = equaliser_response(sample_rate, band_db)
    return convolve(samples, response, response.size // 2)


def room_response(sample_rate: int, rng: np.random.Generator, decay_s: float, room_db: float) -> np.ndarray:
    """Return a room's impulse response, float32 (taps,): the direct sound 1, then noise that dies away.

    ``decay_s`` is the time in which the noise falls by 60 dB, seconds, and ``room_db`` how far its energy is below the
    direct sound, dB.
    """
    num_taps = max(2, round(decay_s * sample_rate))
    tail = rng.standard_normal(num_taps, dtype=np.float32)
    tail *= np.float32(10) ** (-3 * np.arange(num_taps, dtype=np.float32) / (decay_s * sample_rate))
    tail[0] = 0
    tail *= 10 ** (-room_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    return tail


def convolve(samples: np.ndarray, response: np.ndarray, direct: int = 0) -> np.ndarray:
    """Return ``samples`` heard through the impulse ``response`` (taps,), whose tap ``direct`` is the direct sound.

    What would sound before the beginning and after the end is cut.
    """
    num_padded = next_fast_len(samples.size + response.size - 1, real=True)
    heard = irfft(rfft(samples, num_padded) * rfft(response, num_padded), num_padded)
    return heard[direct : direct + samples.size]


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


def telephone_line(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return ``samples`` as a telephone line of 300 to 3400 Hz, 8 kHz and 8-bit mu-law passes them on.

    Source: ITU-T G.711, its law as a formula; +0 and -0 are one, so that silence stays silence.
    """
    narrow = soxr.resample(samples, sample_rate, TELEPHONE_RATE)
    band = butter(4, TELEPHONE_HZ, "bandpass", output="sos", fs=TELEPHONE_RATE)
    heard = np.clip(sosfilt(band, narrow), -1, 1)
    code = np.round(127 * np.sign(heard) * np.log1p(MU * np.abs(heard)) / np.log1p(MU))  # -127 to 127
    decoded = np.sign(code) * np.expm1(np.abs(code) / 127 * np.log1p(MU)) / MU
    wide = soxr.resample(decoded.astype(np.float32), TELEPHONE_RATE, sample_rate)[: samples.size]
    return np.pad(wide, (0, samples.size - wide.size))
