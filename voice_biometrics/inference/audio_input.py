"""Read recordings from untrusted files and streams: bounded, checked, with remarks on their quality.

Samples are equal to those of ``voice_biometrics.common.audio.read_audio``, which training uses. libsndfile decodes; if
it crashes on a crafted file the process dies by a signal, which no caller may read as "accepted".

The limits of the remarks lie between the values of 300 utterances of speechocean762 and 251 of LibriSpeech as they are,
and of the same utterances clipped (peaks four times too high) or resampled to 8 kHz and back with 16 bits.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from voice_biometrics.common.audio import (
    DIFFERENT_SOUNDS,
    STRONG_LOW,
    ForwardSoundFile,
    hold_different_sounds,
    is_low_strong,
    low_and_other_energy,
    mix_down,
    open_audio,
    resample,
    stated_frames,
)
from voice_biometrics.common.audio_headers import FOREIGN_HEAD_BYTES, MOST_FRAMES, foreign_content
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.speech_activity import speech_duration_s

FRAME_S = 0.02
MAX_CLIPPED_SHARE = 0.0003  # as they are: 0; clipped: 0.0005 or more
MAX_BAND_DROP_DB = 59.0  # as they are: 55.5 or less; resampled: 63.3 or more
MIN_LEVEL_DB = -50.0  # of the loud frames, 0 = full scale; as they are: -37 or more
MEAN_S = 0.025  # of the moving average that is removed
SPEECH_BAND_HZ, UPPER_BAND_HZ = (200, 3400), (4500, 7500)
MAX_DURATION_S = 300.0
MAX_CHANNELS = 16
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
MAX_DECODED_SAMPLES = 2**26  # of all channels; 256 MiB
MAX_STREAM_BYTES = 2**28
SILENCE = 2.0**-15  # the smallest step of 16-bit audio


@dataclass(frozen=True, eq=False)
class Recording:
    """Speech that can be embedded.

    name : of the file or stream. samples : (samples,) float32 at ``sample_rate`` Hz, one channel.
    file_rate : Hz. num_channels : of the file. duration_s, speech_s : of the recording, and of the speech in it.
    remarks : reasons why an answer about it is less reliable, a sentence each.
    """

    name: str
    samples: np.ndarray
    sample_rate: int
    file_rate: int
    num_channels: int
    duration_s: float
    speech_s: float
    remarks: tuple[str, ...]


def read_recording(source: str | Path | BinaryIO, sample_rate: int, channel: int = 0) -> Recording:
    """Read a recording in any format that libsndfile reads, from a file or from a stream of its bytes.

    Arguments
    ---------
    source : path of a regular file, or a binary stream that is read to its end, such as ``sys.stdin.buffer``.
    sample_rate : Hz, of the returned samples. channel : the one to use, from 1; 0: their mean.

    Raises
    ------
    InputError : not a regular file, no audio, no speech (empty, silent), samples that are not finite, or beyond the
        limits of this module.
    """
    name = str(getattr(source, "name", "the stream")) if hasattr(source, "read") else str(source)
    name = name if name.isprintable() else ascii(name)  # messages must not move the cursor
    with _opened(source, name) as file:
        channels, file_rate, claimed_s = _decode(file, name)
    recording = recording_from_samples(channels, file_rate, sample_rate, name, channel)
    if claimed_s > recording.duration_s + 0.1:
        remark = f"truncated: its header states {claimed_s:.1f} s, {recording.duration_s:.1f} s could be read"
        recording = replace(recording, remarks=(remark, *recording.remarks))
    return recording


def recording_from_samples(
    channels: np.ndarray, file_rate: int, sample_rate: int, name: str = "the recording", channel: int = 0
) -> Recording:
    """Check samples, average their channels, or take one, and resample them to ``sample_rate`` Hz.

    Arguments
    ---------
    channels : (samples,) or (samples, channels) float in [-1, 1], or signed integers, at ``file_rate`` Hz.
    channel : as ``read_recording``.

    Raises
    ------
    InputError : as ``read_recording``.
    """
    channels = np.asarray(channels)
    if channels.dtype.kind == "i":  # as the module wave and many recorders give them
        channels = channels / -float(np.iinfo(channels.dtype).min)
    channels = channels.astype(np.float32)
    channels = channels[:, None] if channels.ndim == 1 else channels
    _check_bounds(*channels.shape, file_rate, name)
    if channel < 0 or channel > channels.shape[1] > 1:
        raise InputError(f"{name}: expected channel {channel}, found channels 1 to {channels.shape[1]}; choose another")
    with np.errstate(over="ignore"):  # huge samples become infinite, and are refused
        mono = mix_down(channels, channel)  # (samples,)
    if not np.isfinite(mono).all():
        raise InputError(f"{name}: expected finite samples, found NaN or infinite ones; record it again")
    if np.ptp(mono) <= 2 * SILENCE:
        raise InputError(f"{name}: expected speech, found silence; check the microphone and record it again")
    samples = resample(mono, file_rate, sample_rate)
    remarks = remarks_on_sound(samples, sample_rate)
    heard = without_low(samples, sample_rate) if STRONG_LOW in remarks else samples
    if not channel and hold_different_sounds(channels, file_rate):
        remarks.append(DIFFERENT_SOUNDS)
    if (clipped := clipped_share(channels)) > MAX_CLIPPED_SHARE:
        remarks.append(f"clipped: {100 * clipped:.2g} % of the samples are at the peak; lower the recording level")
    if file_rate < sample_rate:
        remarks.append(f"recorded at {file_rate:,} Hz: the model was trained on {sample_rate:,} Hz")
    return Recording(
        name=name,
        samples=samples,
        sample_rate=sample_rate,
        file_rate=file_rate,
        num_channels=channels.shape[1],
        duration_s=len(channels) / file_rate,
        speech_s=speech_duration_s(heard, sample_rate, 10 ** (_loud_db(_levels_db(heard, sample_rate)) / 20)),
        remarks=tuple(remarks),
    )


@contextlib.contextmanager
def _opened(source: str | Path | BinaryIO, name: str) -> Iterator[int | io.BytesIO]:
    """Yield what soundfile opens without guessing from a name: a descriptor of a regular file, or the bytes."""
    try:
        if hasattr(source, "read"):
            opened = io.BytesIO(source.read(MAX_STREAM_BYTES + 1))
        else:
            no_wait = getattr(os, "O_NONBLOCK", 0)  # for the writer of a pipe
            opened = os.open(source, os.O_RDONLY | no_wait)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise InputError(f"{name}: could not be read ({getattr(error, 'strerror', error)}); check the path") from error
    if isinstance(opened, io.BytesIO):
        if opened.getbuffer().nbytes > MAX_STREAM_BYTES:
            raise InputError(f"{name}: expected at most {MAX_STREAM_BYTES // 2**20} MiB; cut the recording")
        yield opened
        return
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise InputError(
                f"{name}: expected an audio file, found a folder, pipe or device; give a file, or - to pipe"
            )
        yield opened
    finally:
        os.close(opened)


def _decode(file: int | io.BytesIO, name: str) -> tuple[np.ndarray, int, float]:
    """Return samples float32 (samples, channels), their rate, and the duration in the header, seconds (0: none)."""
    try:
        with open_audio(file, ForwardSoundFile) as sound:
            rate, frames, stated = sound.samplerate, sound.frames, stated_frames(sound)
            is_known = frames <= MOST_FRAMES
            _check_bounds(frames if is_known else 1, sound.channels, rate, name)
            most = _most_frames(sound.channels, rate)
            channels = sound.read(min(frames, most + 1), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        is_stream = isinstance(file, io.BytesIO)
        head = file.getvalue()[:FOREIGN_HEAD_BYTES] if is_stream else os.pread(file, FOREIGN_HEAD_BYTES, 0)
        reason = foreign_content(head) or getattr(error, "error_string", str(error)).strip(" .\n")
        raise InputError(f"{name}: expected audio that libsndfile reads, found: {reason}; give another file") from error
    return channels, rate, stated / rate if is_known else 0.0


def _check_bounds(num_frames: int, num_channels: int, rate: int, name: str) -> None:
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise InputError(f"{name}: expected 1 to {MAX_CHANNELS} channels, found {num_channels}; mix them down")
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise InputError(f"{name}: expected {MIN_RATE_HZ:,} to {MAX_RATE_HZ:,} Hz, found {rate:,}; convert it")
    if num_frames < 1:
        raise InputError(f"{name}: expected speech, found no samples; record it again")
    if num_frames > _most_frames(num_channels, rate):
        raise InputError(
            f"{name}: expected at most {_most_frames(num_channels, rate) / rate:,.0f} s of {num_channels} channels at "
            f"{rate:,} Hz, found {num_frames / rate:,.0f} s, or a header that states it; cut the recording"
        )


def _most_frames(num_channels: int, rate: int) -> int:
    return min(round(MAX_DURATION_S * rate), MAX_DECODED_SAMPLES // num_channels)


def remarks_on_sound(samples: np.ndarray, sample_rate: int) -> list[str]:
    """Return faults in the sound of ``samples`` (samples,) at ``sample_rate`` Hz, a sentence each."""
    remarks = []
    level_db = _loud_db(_levels_db(samples, sample_rate))
    if level_db < MIN_LEVEL_DB:
        remarks.append(f"very quiet: the loud parts reach {level_db:.0f} dB of full scale; speak closer")
    if sample_rate / 2 >= UPPER_BAND_HZ[1] and band_drop_db(samples, sample_rate) > MAX_BAND_DROP_DB:
        remarks.append("narrow band: nothing above 4 kHz, as on a telephone; the model was trained on wide-band speech")
    if is_low_strong(low_and_other_energy(samples, sample_rate)):
        remarks.append(STRONG_LOW)
    return remarks


def without_low(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return ``samples`` (samples,) minus their moving average: without an offset and most rumble.

    These make the detector miss speech. The embedding is computed from the samples as they are.
    """
    sums = np.concatenate([[0.0], np.cumsum(samples, dtype=np.float64)])
    half, places = round(MEAN_S / 2 * sample_rate), np.arange(samples.size)
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, samples.size)
    return (samples - (sums[last] - sums[first]) / (last - first)).astype(np.float32)


def clipped_share(channels: np.ndarray) -> float:
    """Return the fraction of samples in runs of three or more at the peak, in the worst channel.

    ``channels`` is (samples, channels), as decoded: resampling would round the corners.
    """
    peak = np.abs(channels).max(axis=0)
    at_peak = (np.abs(channels) >= 0.999 * peak) & (peak > 0)  # a silent channel is not clipped
    return float((at_peak[:-2] & at_peak[1:-1] & at_peak[2:]).mean(axis=0).max()) if len(channels) > 2 else 0.0


def band_drop_db(samples: np.ndarray, sample_rate: int) -> float:
    """Return the energy of the telephone band over that above 4.5 kHz, decibels."""
    energy = np.abs(np.fft.rfft(samples * np.hanning(samples.size))) ** 2  # an abrupt end has the spectrum of a click
    hertz = np.fft.rfftfreq(samples.size, 1 / sample_rate)
    bands = (SPEECH_BAND_HZ, UPPER_BAND_HZ)
    low, high = (energy[(hertz >= band[0]) & (hertz < band[1])].sum() + 1e-12 for band in bands)
    return float(10 * np.log10(low / high))


def _levels_db(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the level of each complete frame, (frames,), 0 = full scale; of all samples if there is none."""
    length = min(samples.size, max(1, round(FRAME_S * sample_rate)))
    frames = samples[: samples.size // length * length].reshape(-1, length)
    return 10 * np.log10((frames.astype(np.float64) ** 2).mean(axis=1) + 1e-12)


def _loud_db(levels_db: np.ndarray) -> float:
    """Return the level that 5 % of the frames exceed (``np.quantile`` would import all of ``numpy.ma``)."""
    return float(np.sort(levels_db)[int(0.95 * (levels_db.size - 1))])
