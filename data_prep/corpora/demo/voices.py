"""Plan of the demo voices and their utterances, drawn from one seed.

A voice is an espeak-ng variant with its own vocal tract length, pitch, pitch range, speaking rate and two languages.
Draws are seeded by name (``1986/linda-1/07``), so an utterance does not depend on the number of others. The sentences
in ``sentences.json``, by espeak-ng's name of their language, were written for this recipe: 5 to 14 words, 1.5 to 5 s.
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

SENTENCES = json.loads(Path(__file__).with_name("sentences.json").read_text(encoding="utf-8"))
SEED = 1986
NUM_UTTERANCES = 20  # per voice, half in each of its languages
RATE_WPM = (140, 185)
PITCH = (36, 64)  # espeak units: 50 is the variant's default, 36 and 64 are a fifth lower and higher
PITCH_RANGE = (30, 70)  # espeak units: 50 is the variant's default
TRACT_LENGTH = (0.94, 1.08)  # relative to the variant's
RATE_JITTER, PITCH_JITTER, PITCH_RANGE_JITTER = 0.08, 4, 10  # largest deviation of an utterance; a fraction, then units

# Variants that sound like distinct women or men: no robots, whispers, croaks or copies. Reed is left out because its
# breath noise comes from the C library's rand() and is not reproducible.
VARIANTS = {
    "train": {
        "f": "Alicia Andrea Annie anika belinda f1 f3 f4 f5 grandma linda steph2",
        "m": "Alex Denis Gene Hugo Lee Marco Michael Mike Nguyen adam benjamin boris ed gustave john m1 m2 m4 m5 m7 "
        "miguel norbert paul victor",
    },
    "test": {"f": "aunty f2 shelby steph", "m": "Andy Diogo Mario david m3 max pablo travis"},
}
VOICES_PER_VARIANT = {"f": 2, "m": 1}  # male variants are twice as many


class Voice(NamedTuple):
    """One synthetic speaker."""

    spk_id: str
    gender: str  # f or m
    variant: str  # file of espeak-ng's voices/!v
    tract_length: float  # relative to the variant's: 1.05 lowers formants and pitch by 5 %
    languages: tuple[str, str]
    rate_wpm: int
    pitch: int
    pitch_range: int


class PlannedUtterance(NamedTuple):
    """Text, prosody and recording channel of one file."""

    utt_id: str
    voice: Voice
    language: str
    text: str
    rate_wpm: int
    pitch: int
    pitch_range: int
    channel_seed: int  # seeds microphone, noise and gain


def make_voices(part: str) -> list[Voice]:
    """Return the voices of ``train`` or ``test``, sorted by ``spk_id``; the parts share no variant."""
    voices = [
        _make_voice(variant, number, gender)
        for gender, variants in VARIANTS[part].items()
        for variant in variants.split()
        for number in range(1, VOICES_PER_VARIANT[gender] + 1)
    ]
    return sorted(voices)


def _make_voice(variant: str, number: int, gender: str) -> Voice:
    """Draw one voice. The second voice of a variant has a longer vocal tract than the first."""
    spk_id = f"{variant.lower()}-{number}"
    rng = random.Random(f"{SEED}/{spk_id}")
    shortest, longest = TRACT_LENGTH
    share = 1 / VOICES_PER_VARIANT[gender]
    place = (number - 1 + rng.random()) * share
    return Voice(
        spk_id,
        gender,
        variant,
        tract_length=round(shortest + place * (longest - shortest), 3),
        languages=tuple(rng.sample(sorted(SENTENCES), 2)),
        rate_wpm=rng.randint(*RATE_WPM),
        pitch=rng.randint(*PITCH),
        pitch_range=rng.randint(*PITCH_RANGE),
    )


def plan_utterances(voice: Voice, num_utterances: int = NUM_UTTERANCES) -> list[PlannedUtterance]:
    """Return the utterances of ``voice``, sorted by ``utt_id``, without a repeated sentence."""
    rng = random.Random(f"{SEED}/{voice.spk_id}/sentences")
    sentences_of = {language: rng.sample(SENTENCES[language], len(SENTENCES[language])) for language in voice.languages}
    utterances = []
    for number in range(num_utterances):
        language = voice.languages[number % 2]
        utt_id = f"{voice.spk_id}/{number + 1:02d}"
        utterances.append(_plan_utterance(utt_id, voice, language, sentences_of[language][number // 2]))
    return utterances


def _plan_utterance(utt_id: str, voice: Voice, language: str, text: str) -> PlannedUtterance:
    """Draw prosody and recording channel of one sentence."""
    rng = random.Random(f"{SEED}/{utt_id}")
    return PlannedUtterance(
        utt_id,
        voice,
        language,
        text,
        rate_wpm=round(voice.rate_wpm * (1 + rng.uniform(-RATE_JITTER, RATE_JITTER))),
        pitch=voice.pitch + rng.randint(-PITCH_JITTER, PITCH_JITTER),
        pitch_range=voice.pitch_range + rng.randint(-PITCH_RANGE_JITTER, PITCH_RANGE_JITTER),
        channel_seed=rng.getrandbits(64),
    )
