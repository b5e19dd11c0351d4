"""What can be heard in a recording that makes an answer about it less sure.

The limits lie between what 300 utterances of speechocean762 and 251 of LibriSpeech measured as they are, and the same
clipped (peaks four times too high), or through 8 kHz and back with 16 bits.
"""

import numpy as np

FRAME_S = 0.02
SPEECH_RANGE_DB = 30.0  # quieter than this below the loud frames counts as pause
MAX_CLIPPED_SHARE = 0.0003  # as they are: 0; clipped: 0.0005 and more
MAX_BAND_DROP_DB = 59.0  # as they are: 55.5 and less; through 8 kHz: 63.3 and more
MIN_LEVEL_DB = -50.0  # of the loud frames, 0 = full scale; as they are: -37 and more
SPEECH_BAND_HZ, UPPER_BAND_HZ = (200, 3400), (4500, 7500)


def speech_duration_s(samples: np.ndarray, sample_rate: int) -> float:
    """Return the seconds of ``samples`` (samples,) that are not pause; steady noise counts as speech."""
    levels_db = _levels_db(samples, sample_rate)
    speaking = levels_db > _loud_db(levels_db) - SPEECH_RANGE_DB
    return float(speaking.mean() * samples.size / sample_rate)


def remarks_on_sound(samples: np.ndarray, sample_rate: int) -> list[str]:
    """Return what is wrong with the sound of ``samples`` (samples,) at ``sample_rate`` Hz, in words."""
    remarks = []
    level_db = _loud_db(_levels_db(samples, sample_rate))
    if level_db < MIN_LEVEL_DB:
        remarks.append(f"very quiet: the loud parts reach {level_db:.0f} dB of full scale; speak closer")
    if sample_rate / 2 >= UPPER_BAND_HZ[1] and band_drop_db(samples, sample_rate) > MAX_BAND_DROP_DB:
        remarks.append(
            "narrow band: nothing is heard above 4 kHz, as on a telephone; the model learnt wide-band speech"
        )
    return remarks


def clipped_share(channels: np.ndarray) -> float:
    """Return the share of samples that stay at the peak for three or more in a row, of the worst channel.

    ``channels`` is (samples, channels), as decoded: resampling would round the corners.
    """
    at_peak = np.abs(channels) >= 0.999 * np.abs(channels).max(axis=0)
    return float((at_peak[:-2] & at_peak[1:-1] & at_peak[2:]).mean(axis=0).max()) if len(channels) > 2 else 0.0


def band_drop_db(samples: np.ndarray, sample_rate: int) -> float:
    """Return by how many decibels the energy above 4.5 kHz lies below that of the telephone's band."""
    energy = np.abs(np.fft.rfft(samples * np.hanning(samples.size))) ** 2  # an abrupt end would sound like a click
    hertz = np.fft.rfftfreq(samples.size, 1 / sample_rate)
    low, high = (
        energy[(hertz >= band[0]) & (hertz < band[1])].sum() + 1e-12 for band in (SPEECH_BAND_HZ, UPPER_BAND_HZ)
    )
    return float(10 * np.log10(low / high))


def _levels_db(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the level of each frame, (frames,), 0 = full scale; the last incomplete frame is left out if it can be."""
    length = min(samples.size, max(1, round(FRAME_S * sample_rate)))
    frames = samples[: samples.size // length * length].reshape(-1, length)
    return 10 * np.log10((frames.astype(np.float64) ** 2).mean(axis=1) + 1e-12)


def _loud_db(levels_db: np.ndarray) -> float:
    """Return the level that a twentieth of the frames exceeds (``np.quantile`` would import all of ``numpy.ma``)."""
    return float(np.sort(levels_db)[int(0.95 * (levels_db.size - 1))])
