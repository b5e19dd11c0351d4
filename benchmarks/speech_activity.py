"""Errors of voice activity detection: real speech that is refused, and other sounds that are taken for speech.

    python benchmarks/speech_activity.py --every 10 [--condition noise:10,0 telephone channel short:1]

Speech: every N-th utterance of the three corpora in ../shared, as it is and under conditions of eval_eer.py. Other
sounds are synthesised: mains hum, noise, tones, chords and melodies, engines, sirens, bursts; three of each, 6 s.
Refused is what ``Recognizer`` refuses: less than 0.5 s of speech. Prints a Markdown table.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.markdown import table
from voice_biometrics.evaluation.conditions import CLEAN, conditions_named
from voice_biometrics.inference.audio_input import recording_from_samples
from voice_biometrics.inference.recognizer import MIN_SPEECH_S

SAMPLE_RATE = 16000
CORPORA = {
    "speechocean762": "speechocean762/WAVE/*/*",
    "LibriSpeech": "librispeech_excerpt/train-clean-100/*/*/*",
    "Common Voice": "common_voice_excerpt/*/clips/*",
}
TIME_S = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
SEEDS = range(3)
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (-3, 0, 4))  # semitones


def main() -> None:
    """Print how much speech is refused and how many other sounds are not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path(__file__).parents[2] / "shared" / "corpora")
    parser.add_argument("--every", type=int, default=1, help="take every N-th utterance")
    parser.add_argument("--condition", nargs="*", default=["channel", "telephone", "noise:10,0"])
    options = parser.parse_args()
    conditions = [CLEAN, *(condition for name in options.condition for condition in conditions_named(name))]
    rows = []
    for corpus, pattern in CORPORA.items():
        files = sorted(options.corpora.glob(pattern))[:: options.every]
        found: dict[str, list[float]] = {condition.name: [] for condition in conditions}
        for file in files:
            samples = read_audio(file, SAMPLE_RATE)
            for condition in conditions:
                found[condition.name].append(speech_s(condition(samples, SAMPLE_RATE, file.stem)))
        rows += [counts(f"{corpus}, {name}", seconds) for name, seconds in found.items() if seconds]
    rows += [counts(name, [speech_s(sound) for sound in sounds]) for name, sounds in other_sounds()]
    print(table(["sound", "recordings", "refused", "per cent", "least speech, s", "most speech, s"], rows))


def speech_s(samples: np.ndarray) -> float:
    """Return the speech found in ``samples`` (samples,), seconds; 0 for silence."""
    try:
        return recording_from_samples(samples, SAMPLE_RATE, SAMPLE_RATE).speech_s
    except InputError:  # silence
        return 0.0


def counts(name: str, seconds: list[float]) -> list[object]:
    """Return a row of the table."""
    refused = sum(value < MIN_SPEECH_S for value in seconds)
    extremes = (f"{min(seconds):.2f}", f"{max(seconds):.2f}")
    return [name, len(seconds), refused, f"{100 * refused / len(seconds):.2f}", *extremes]


def other_sounds() -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield kinds of sounds without speech, (samples,) each."""
    yield "silence", [np.zeros(TIME_S.size)]
    for mains_hz in (50, 60):
        yield f"mains hum, {mains_hz} Hz", [hum(mains_hz, seed) for seed in SEEDS]
    yield "hum that comes and goes", [hum(50, seed) * (1 + np.sin(6 * np.pi * TIME_S)) for seed in SEEDS]
    for slope, colour in enumerate(("white", "pink", "brown")):
        yield f"{colour} noise", [noise(slope, seed) for seed in SEEDS]
    yield "noise in bursts", [noise(0, seed) * (np.sin(8 * np.pi * TIME_S) > 0) for seed in SEEDS]
    yield "tones", [tone(np.full(TIME_S.size, hz)) for hz in (100, 200, 440, 1000, 3000)]
    yield "sirens", [tone(800 + 400 * np.sin(2 * np.pi * hz * TIME_S)) for hz in (0.3, 0.5, 1)]
    yield "engines", [tone(45 + 20 * np.sin(2 * np.pi * 0.3 * TIME_S), 30) + noise(1, seed) / 5 for seed in SEEDS]
    for per_second in (1, 2, 4):
        yield f"chords, {per_second} per second", [music(per_second, CHORDS, seed) for seed in SEEDS]
    yield "melodies", [music(6, ((0,),), seed) for seed in SEEDS]


def hum(mains_hz: float, seed: int) -> np.ndarray:
    """Return mains hum with 12 harmonics of random strength, and a little noise."""
    rng = np.random.default_rng(seed)
    tones = (rng.uniform(0.05, 1) * np.sin(2 * np.pi * mains_hz * k * TIME_S + rng.uniform(0, 6)) for k in range(1, 13))
    return 0.02 * sum(tones) + 0.001 * rng.standard_normal(TIME_S.size)


def noise(slope: float, seed: int) -> np.ndarray:
    """Return noise whose power falls with the ``slope``-th power of the frequency."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(TIME_S.size))
    sound = np.fft.irfft(spectrum * np.maximum(np.fft.rfftfreq(TIME_S.size, 1 / SAMPLE_RATE), 20) ** (-slope / 2))
    return 0.05 * sound / sound.std()


def tone(hertz: np.ndarray, num_harmonics: int = 1) -> np.ndarray:
    """Return a tone whose frequency is ``hertz`` (samples,)."""
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    return 0.1 * sum(np.sin(number * phase) / number for number in range(1, num_harmonics + 1))


def music(per_second: float, chords: tuple[tuple[int, ...], ...], seed: int) -> np.ndarray:
    """Return random transpositions of ``chords`` (semitones), plucked ``per_second`` times a second."""
    rng = np.random.default_rng(seed)
    number, since_s = np.divmod(TIME_S, 1 / per_second)
    roots = 220 * 2 ** (rng.integers(-12, 13, int(number.max()) + 1) / 12)
    kinds = rng.integers(len(chords), size=roots.size)
    sound = np.zeros(TIME_S.size)
    for part in range(len(chords[0])):
        semitones = np.array([chords[kind][part] for kind in kinds])
        hertz = (roots * 2 ** (semitones / 12))[number.astype(int)]
        sound += sum(np.sin(2 * np.pi * k * hertz * since_s) / k for k in range(1, 7))
    return 0.05 * sound * np.exp(-3 * since_s) * np.minimum(1, since_s / 0.01)


if __name__ == "__main__":
    main()
