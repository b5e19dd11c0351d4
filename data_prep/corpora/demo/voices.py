"""Who the demo voices are and what each of their utterances will be, all of it drawn from one seed.

A voice is an espeak-ng variant with its own vocal tract length, pitch, pitch range, speaking rate and two languages.
Draws are seeded by name (``1986/linda-1/07``), so one utterance does not depend on how many others there are.
"""

import random
from typing import NamedTuple

from data_prep.corpora.demo.sentences import SENTENCES

SEED = 1986
NUM_UTTERANCES = 20  # a voice, half of them in each of its languages
RATE_WPM = (140, 185)
PITCH = (36, 64)  # espeak units: 50 is the variant's own, 36 and 64 are a fifth lower and higher
PITCH_RANGE = (30, 70)  # espeak units: 50 is the variant's own
TRACT_LENGTH = (0.94, 1.08)  # of the variant's own
RATE_JITTER, PITCH_JITTER, PITCH_RANGE_JITTER = 0.08, 4, 10  # an utterance's largest departures; a share, then units

# variants that sound like a man or a woman, and unlike each other: no robots, whispers, croaks or copies; nor Reed,
# whose breath is drawn from the C library's rand() and so never twice the same
VARIANTS = {
    "train": {
        "f": "Alicia Andrea Annie anika belinda f1 f3 f4 f5 grandma linda steph2",
        "m": "Alex Denis Gene Hugo Lee Marco Michael Mike Nguyen adam benjamin boris ed gustave john m1 m2 m4 m5 m7 "
        "miguel norbert paul victor",
    },
    "test": {"f": "aunty f2 shelby steph", "m": "Andy Diogo Mario david m3 max pablo travis"},
}
VOICES_PER_VARIANT = {"f": 2, "m": 1}  # there are twice as many male variants


class Voice(NamedTuple):
    """One synthetic speaker."""

    spk_id: str
    gender: str  # f or m, the variant's
    variant: str  # file of espeak-ng's voices/!v
    tract_length: float  # of the variant's own: 1.05 lowers formants and pitch by 5 %
    languages: tuple[str, str]
    rate_wpm: int
    pitch: int
    pitch_range: int


class PlannedUtterance(NamedTuple):
    """One file to be made: a voice on a certain day."""

    utt_id: str
    voice: Voice
    language: str
    text: str
    rate_wpm: int
    pitch: int
    pitch_range: int
    channel_seed: int  # of the microphone, the noise and the gain


def make_voices(part: str) -> list[Voice]:
    """Return the voices of ``train`` or ``test``, sorted by ``spk_id``; the two share no variant."""
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
    """Return the utterances of ``voice``, sorted by ``utt_id``; no sentence comes twice."""
    rng = random.Random(f"{SEED}/{voice.spk_id}/sentences")
    sentences_of = {language: rng.sample(SENTENCES[language], len(SENTENCES[language])) for language in voice.languages}
    utterances = []
    for number in range(num_utterances):
        language = voice.languages[number % 2]
        utt_id = f"{voice.spk_id}/{number + 1:02d}"
        utterances.append(_plan_utterance(utt_id, voice, language, sentences_of[language][number // 2]))
    return utterances


def _plan_utterance(utt_id: str, voice: Voice, language: str, text: str) -> PlannedUtterance:
    """Draw how one sentence will be spoken and recorded."""
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
