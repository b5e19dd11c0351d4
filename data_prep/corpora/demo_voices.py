"""Demo voices: a small corpus that is synthesised on the spot, so that all can be tried without a download.

Speakers 64, none of them human: 48 to train on (24 of each gender) and 16 to test on (8 of each), which share no
espeak-ng variant. Utterances 1,280, that is 20 a voice; 1.07 hours, of which 0.80 to train on; 16 kHz, mono, 16-bit
WAV, 124 MB. Made in half a minute.

Files: ``train/<voice>/<nn>.wav``, ``test/<voice>/<nn>.wav`` and ``demo_voices.json``, the record of what they are.
IDs are ``<voice>/<nn>``, metadata columns ``gender`` (f or m) and ``language`` (as espeak-ng names it). Trials: all
pairs of the test utterances.

Each voice speaks two of five languages, ten sentences in each, with its own vocal tract, pitch and rate
(``data_prep.corpora.demo.voices``); each utterance differs a little in pitch and rate and has its own microphone,
level and noise
(``data_prep.corpora.demo.channel``). The same machine and package give the same bytes.

It is a DEMONSTRATION. Synthetic voices vary far less than people do: numbers on this corpus say whether the recipe runs
and learns, and nothing about real speech.

Licence: the sentences are ours, under the licence of this recipe (Apache-2.0). They are spoken by espeak-ng 1.52
(GPL-3.0; PyPI ``espeakng-loader``), which is only used to make the audio.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile
from tqdm import tqdm

from data_prep.corpora.demo.channel import SAMPLE_RATE, change_tract_length, record_speech
from data_prep.corpora.demo.espeak import Espeak
from data_prep.corpora.demo.voices import NUM_UTTERANCES, PlannedUtterance, Voice, make_voices, plan_utterances
from data_prep.corpus import Corpus, Utterance
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import write_json

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # grows when the same plan comes to sound otherwise
RECORD_NAME = "demo_voices.json"
OUR_FILES = re.compile(r"(train|test)/[a-z0-9]+-\d(\.part)?/\d\d\.wav|" + re.escape(RECORD_NAME))
PARTS = {part: make_voices(part) for part in ("train", "test")}

Plan = Mapping[str, Mapping[Voice, Sequence[PlannedUtterance]]]  # part -> voice -> its utterances


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the demo voices in ``data_folder``; what is not there yet is synthesised first.

    Raises InputError when a ``trial_list`` is asked for, when ``data_folder`` holds anything else, or when espeak-ng is
    missing or fails.
    """
    if trial_list:
        raise InputError(
            f"trial_list {trial_list!r}: expected '', since demo_voices make their own trials, all pairs of the test "
            "voices; leave trial_list out"
        )
    plan = {part: {voice: plan_utterances(voice, NUM_UTTERANCES) for voice in PARTS[part]} for part in PARTS}
    return find_or_synthesise(data_folder, plan)


def find_or_synthesise(data_folder: Path, plan: Plan) -> Corpus:
    """List the corpus of ``plan`` in ``data_folder``, after making the voices that are not there whole.

    The record says first what is to come and, written again last, that it is complete. Another record than that of
    ``plan`` means another corpus, which is replaced. Raises InputError as ``find_utterances`` does.
    """
    settings = _settings_of(plan)
    found = _read_record(data_folder)
    is_same_plan = {**found, "complete": True} == {**settings, "complete": True}
    if not (is_same_plan and found.get("complete") and not _missing_voices(data_folder, plan)):
        _check_folder_is_ours(data_folder, found)
        if not is_same_plan:
            _clear(data_folder)
        write_json({**settings, "complete": False}, data_folder / RECORD_NAME)
        _synthesise(data_folder, plan)
        write_json({**settings, "complete": True}, data_folder / RECORD_NAME)
        logger.info("Demo voices are in %s", data_folder)
    return Corpus(data_folder, train=_list_part(plan, "train"), test=_list_part(plan, "test"))


def _settings_of(plan: Plan) -> dict:
    """Return what decides the bytes of a corpus, as the record keeps it."""
    planned = repr([(part, sorted(voices.items())) for part, voices in sorted(plan.items())])
    return {
        "corpus": "demo_voices",
        "version": FORMAT_VERSION,
        "num_voices": {part: len(voices) for part, voices in plan.items()},
        "num_utterances": sum(len(utterances) for voices in plan.values() for utterances in voices.values()),
        "plan_sha256": hashlib.sha256(planned.encode()).hexdigest(),
    }


def _read_record(data_folder: Path) -> dict:
    """Return the record of a corpus that was made or begun in ``data_folder``; empty without one."""
    try:
        found = json.loads((data_folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("corpus") == "demo_voices" else {}


def _missing_voices(data_folder: Path, plan: Plan) -> list[tuple[str, Voice]]:
    """Return the part and voice of those that lack a file."""
    return [
        (part, voice)
        for part, voices in plan.items()
        for voice, utterances in voices.items()
        if not all((data_folder / part / f"{utterance.utt_id}.wav").is_file() for utterance in utterances)
    ]


def _check_folder_is_ours(data_folder: Path, found: dict) -> None:
    """Refuse to write where other files are, and where a corpus of this shape has no record of ours."""
    if data_folder.exists() and not data_folder.is_dir():
        raise InputError(f"{data_folder}: expected a new, empty or demo voices' folder, found a file; choose another")
    for path in sorted(data_folder.rglob("*") if found else data_folder.glob("*")):
        name = path.relative_to(data_folder).as_posix()
        is_hidden = path.name.startswith(".")  # .DS_Store, or what a killed write left
        if not (is_hidden or found and (path.is_dir() or OUR_FILES.fullmatch(name))):
            raise InputError(
                f"{data_folder}: demo voices are written to a new, empty or demo voices' folder only, found {name}; "
                "choose another --data_folder"
            )


def _clear(data_folder: Path) -> None:
    """Remove the voices of another plan; the caller knows that all files are ours."""
    for part in PARTS:
        if (data_folder / part).exists():
            shutil.rmtree(data_folder / part)


def _synthesise(data_folder: Path, plan: Plan) -> None:
    """Write the voices that are missing, each folder whole or not at all."""
    missing = _missing_voices(data_folder, plan)
    num_utterances = sum(len(plan[part][voice]) for part, voice in missing)
    with tqdm(total=num_utterances, desc="synthesising demo voices", unit="utt") as bar:
        for part, voice in missing:
            folder = data_folder / part / voice.spk_id
            unfinished = folder.with_name(f"{folder.name}.part")
            try:
                for leftover in (unfinished, folder):
                    if leftover.exists():
                        shutil.rmtree(leftover)
                unfinished.mkdir(parents=True)
                _synthesise_voice(plan[part][voice], unfinished, bar)
                os.replace(unfinished, folder)
            except (OSError, soundfile.SoundFileError) as error:
                raise InputError(f"{folder}: could not be written ({error}); check space and rights") from error


def _synthesise_voice(utterances: Sequence[PlannedUtterance], folder: Path, bar: tqdm) -> None:
    """Write the utterances of one voice, which a fresh espeak-ng makes independent of all others."""
    with Espeak() as espeak:
        for utterance in utterances:
            samples = espeak.synthesise(
                utterance.text,
                language=utterance.language,
                variant=utterance.voice.variant,
                rate_wpm=utterance.rate_wpm,
                pitch=utterance.pitch,
                pitch_range=utterance.pitch_range,
            )
            speech = change_tract_length(samples, espeak.sample_rate, utterance.voice.tract_length)
            path = folder / f"{utterance.utt_id.rpartition('/')[2]}.wav"
            recording = record_speech(speech, utterance.channel_seed)
            soundfile.write(path, recording, SAMPLE_RATE, subtype="PCM_16")
            bar.update()


def _list_part(plan: Plan, part: str) -> list[Utterance]:
    """Return the utterances of one part, sorted by ``utt_id``."""
    return sorted(
        Utterance(
            utterance.utt_id,
            voice.spk_id,
            f"{part}/{utterance.utt_id}.wav",
            {"gender": voice.gender, "language": utterance.language},
        )
        for voice, utterances in plan[part].items()
        for utterance in utterances
    )
