"""Simulate a recording of clean synthetic speech: microphone response, room noise and level, drawn from a seed."""

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import resample_poly

SAMPLE_RATE = 16000  # Hz, of the output
PAUSE_S = (0.1, 0.3)  # before and after the sentence
EQUALISER_DB = 4.0  # standard deviation of the gain of each band
EQUALISER_HZ = (60, 120, 250, 500, 1000, 2000, 4000, 8000)
SNR_DB = (8.0, 30.0)
NOISE_SLOPE = (0.0, 2.0)  # exponent of the noise power over 1/f: 0 white, 1 pink, 2 brown
PEAK_DBFS = (-20.0, -3.0)


def change_tract_length(samples: np.ndarray, sample_rate: int, tract_length: float) -> np.ndarray:
    """Resample ``samples`` (samples,) from ``sample_rate`` Hz to 16 kHz (samples',) with a scaled vocal tract.

    A tract 5 % longer lowers formants and pitch by 5 % and slows speech down by 5 %: it is a change of playback speed.
    """
    down = round(sample_rate / 50 / tract_length)
    return resample_poly(samples.astype(np.float64), SAMPLE_RATE // 50, down)


def record_speech(speech: np.ndarray, seed: int) -> np.ndarray:
    """Return ``speech`` (samples,) as recorded by a random microphone in a noisy room: (samples',) int16 at 16 kHz."""
    rng = np.random.default_rng(seed)
    before, after = (round(seconds * SAMPLE_RATE) for seconds in rng.uniform(*PAUSE_S, size=2))
    speech = np.pad(speech, (before, after))
    num_padded = next_fast_len(speech.size, real=True)
    freq_hz = np.fft.rfftfreq(num_padded, 1 / SAMPLE_RATE)
    band_db = rng.normal(0, EQUALISER_DB, len(EQUALISER_HZ))
    gain_db = np.interp(np.log(np.maximum(freq_hz, 1)), np.log(EQUALISER_HZ), band_db)
    heard = np.fft.irfft(np.fft.rfft(speech, num_padded) * 10 ** (gain_db / 20), num_padded)[: speech.size]
    noise = _coloured_noise(rng, freq_hz, num_padded)[: speech.size]
    noise *= np.sqrt(np.mean(heard**2) / np.mean(noise**2)) * 10 ** (-rng.uniform(*SNR_DB) / 20)
    recording = heard + noise
    peak = 10 ** (rng.uniform(*PEAK_DBFS) / 20)
    return np.round(recording * (32767 * peak / np.abs(recording).max())).astype(np.int16)


def _coloured_noise(rng: np.random.Generator, freq_hz: np.ndarray, num_samples: int) -> np.ndarray:
    """Return noise (samples,) with a random spectral slope above 50 Hz, flat below."""
    slope = rng.uniform(*NOISE_SLOPE)
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    return np.fft.irfft(spectrum * np.maximum(freq_hz, 50) ** (-slope / 2), num_samples)
