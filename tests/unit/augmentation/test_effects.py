"""Alterations, measured on what comes out against what was asked for."""

import numpy as np
import pytest

from voice_biometrics.augmentation.effects import (
    EQUALISER_HZ,
    add_noise,
    coloured_noise,
    convolve,
    equalise,
    equaliser_response,
    room_response,
    scale_to_peak,
    telephone_line,
)

RATE = 16000


def white(duration_s: float = 4.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(duration_s * RATE)).astype(np.float32)


def tone(freq_hz: float, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * freq_hz * np.arange(RATE) / RATE)).astype(np.float32)


def level_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(samples.astype(np.float64) ** 2))


def band_level_db(samples: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Return the level of a band for each Hz."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2
    freq_hz = np.fft.rfftfreq(samples.size, 1 / RATE)
    return 10 * np.log10(power[(freq_hz >= low_hz) & (freq_hz < high_hz)].mean())


def test_the_peak_is_the_one_that_was_asked_for():
    assert np.abs(scale_to_peak(white(), 0.02)).max() == pytest.approx(0.02, rel=1e-6)
    assert np.abs(scale_to_peak(-white(), 0.9)).max() == pytest.approx(0.9, rel=1e-6)


def test_each_band_of_the_equaliser_gets_its_gain():
    band_db = [9, -9, 6, 0, -6, 9, -9]
    for freq_hz, gain_db in list(zip(EQUALISER_HZ, band_db, strict=True))[:-1]:  # a tone at 8 kHz has no level
        middle = slice(RATE // 4, -RATE // 4)
        heard = equalise(tone(freq_hz), equaliser_response(RATE, band_db))[middle]
        assert level_db(heard) - level_db(tone(freq_hz)[middle]) == pytest.approx(gain_db, abs=1.5), freq_hz


def test_an_equaliser_of_equal_gains_changes_the_level_only():
    np.testing.assert_allclose(equalise(white(), equaliser_response(RATE, [6] * 7)), 10**0.3 * white(), atol=1e-4)


def test_a_room_dies_away_in_its_time_and_lies_below_the_direct_sound():
    for decay_s, room_db in ((0.1, 3), (0.4, 15)):
        response = room_response(RATE, np.random.default_rng(0), decay_s, room_db)
        assert response[0] == 1
        tail = response[1:].astype(np.float64)
        assert 10 * np.log10(np.sum(tail**2)) == pytest.approx(-room_db, abs=0.01)
        tenth = round(decay_s * RATE / 10)
        fall_db = level_db(tail[:tenth]) - level_db(tail[5 * tenth : 6 * tenth])
        assert fall_db == pytest.approx(30, abs=2.5)  # of 60 dB over the whole, half of the time later


def test_what_is_heard_through_a_response_is_the_convolution_from_the_direct_sound_on():
    samples, response = white(0.01), np.float32([0.5, 1, -0.25])
    np.testing.assert_allclose(convolve(samples, response), np.convolve(samples, response)[:160], atol=1e-6)
    np.testing.assert_allclose(convolve(samples, response, 1), np.convolve(samples, response)[1:161], atol=1e-6)


def test_noise_falls_with_the_frequency_as_its_colour_says_and_has_unit_power():
    for slope in (0, 1, 2):
        noise = coloured_noise(RATE * 8, RATE, np.random.default_rng(0), slope)
        fall_db = band_level_db(noise, 200, 210) - band_level_db(noise, 3200, 3300)  # four octaves
        assert fall_db == pytest.approx(12.04 * slope, abs=2)
        assert level_db(noise) == pytest.approx(0, abs=0.7)


def test_noise_is_added_at_its_ratio():
    speech, noise = tone(440), 7 * white(1.0, seed=1)
    for snr_db in (20, 0, -5):
        added = add_noise(speech, noise, snr_db) - speech
        assert level_db(speech) - level_db(added) == pytest.approx(snr_db, abs=0.01)


def test_a_telephone_passes_300_to_3400_hz_only_with_the_noise_of_8_bits():
    heard = telephone_line(white(), RATE)
    inside = band_level_db(heard, 500, 3000)
    assert inside == pytest.approx(band_level_db(white(), 500, 3000), abs=1)
    assert band_level_db(heard, 0, 150) < inside - 25
    assert band_level_db(heard, 4100, 8000) < inside - 40
    speech = tone(1000)
    residue = telephone_line(speech, RATE)
    spectrum = np.abs(np.fft.rfft(residue[2000:-2000] * np.hanning(residue.size - 4000)))
    line = spectrum.argmax()
    rest = np.sum(np.delete(spectrum, range(line - 3, line + 4)) ** 2) / np.sum(spectrum[line - 3 : line + 4] ** 2)
    assert -45 < 10 * np.log10(rest) < -30  # mu-law of 8 bits is known for some 38 dB


ALTERATIONS = {
    "peak": lambda samples: scale_to_peak(samples, 0.5),
    "equaliser": lambda samples: equalise(samples, equaliser_response(RATE, [9, -9, 9, -9, 9, -9, 9])),
    "room": lambda samples: convolve(samples, room_response(RATE, np.random.default_rng(0), 0.3, 6)),
    "noise": lambda samples: add_noise(samples, coloured_noise(samples.size, RATE, np.random.default_rng(0), 1), 5),
    "telephone": lambda samples: telephone_line(samples, RATE),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_length_and_type_are_kept_and_nothing_is_ever_nan(name):
    for samples in (white(0.1), white(1.00006), np.ones(1, np.float32), np.zeros(1600, np.float32)):
        before = samples.copy()
        heard = ALTERATIONS[name](samples)
        assert heard.dtype == np.float32 and heard.shape == samples.shape
        assert np.isfinite(heard).all()
        assert samples.any() or np.abs(heard).max() < 1e-12  # silence stays silence
        np.testing.assert_array_equal(samples, before)


def test_other_rates_serve_as_well():
    samples = white(0.5)
    for rate in (8000, 11025, 44100):
        for heard in (
            equalise(samples, equaliser_response(rate, [3] * 7)),
            telephone_line(samples, rate),
            convolve(samples, room_response(rate, np.random.default_rng(0), 0.1, 3)),
        ):
            assert heard.shape == samples.shape and np.isfinite(heard).all() and heard.any()
        assert equaliser_response(rate, [0] * 7).size == pytest.approx(0.05 * rate, abs=2)
