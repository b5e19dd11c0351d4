"""Demo voices: a small synthetic corpus, generated locally, for trying the recipe without a download.

Corpus card: 64 synthetic speakers, 48 for training (24 of each gender) and 16 for testing (8 of each) that share no
espeak-ng variant; 1,280 utterances, 20 per voice, 1.07 hours (0.80 for training), 16 kHz mono 16-bit WAV, 124 MB,
generated in half a minute. The sentences are licensed like this recipe (Apache-2.0); espeak-ng 1.52 (GPL-3.0; PyPI
``espeakng-loader``) is only used to generate the audio.

Files: ``train/<voice>/<nn>.wav``, ``test/<voice>/<nn>.wav`` and the record ``demo_voices.json``. IDs are
``<voice>/<nn>``, metadata columns ``gender`` (f or m) and ``language`` (espeak-ng's name). Trials: all pairs of the
test utterances.

Each voice speaks two of five languages, ten sentences in each, with its own vocal tract, pitch and rate
(``demo.voices``); each utterance varies in pitch and rate and has its own microphone, level and noise
(``demo.channel``). The same machine and package produce the same bytes.

Synthetic voices vary far less than people do: error rates on this corpus show that the recipe runs and learns, and
nothing about real speech.
"""

import hashlib
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
from voice_biometrics.common.files import read_json, write_json

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # incremented when the same plan produces other audio
RECORD_NAME = "demo_voices.json"
OUR_FILES = re.compile(r"(train|test)/[a-z0-9]+-\d(\.part)?/\d\d\.wav|" + re.escape(RECORD_NAME))
PARTS = {part: make_voices(part) for part in ("train", "test")}

Plan = Mapping[str, Mapping[Voice, Sequence[PlannedUtterance]]]  # part -> voice -> its utterances


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the demo voices in ``data_folder``, after synthesising those that are missing.

    Raises InputError when a ``trial_list`` is given, ``data_folder`` contains other files, or espeak-ng is missing or
    fails.
    """
    if trial_list:
        raise InputError(
            f"trial_list {trial_list!r}: expected '': the trials of demo_voices are all pairs of its test "
            "voices; leave trial_list out"
        )
    plan = {part: {voice: plan_utterances(voice, NUM_UTTERANCES) for voice in PARTS[part]} for part in PARTS}
    return find_or_synthesise(data_folder, plan)


def find_or_synthesise(data_folder: Path, plan: Plan) -> Corpus:
    """List the corpus of ``plan`` in ``data_folder``, after synthesising the voices that are missing or incomplete.

    A corpus with a different record is replaced. Raises InputError as ``find_utterances`` does.
    """
    settings, found = _settings_of(plan), read_json(data_folder / RECORD_NAME)
    is_same_plan = settings.items() <= found.items()
    if not is_same_plan or _missing_voices(data_folder, plan):
        _check_folder_is_ours(data_folder, found)
        for part in () if is_same_plan else PARTS:
            shutil.rmtree(data_folder / part, ignore_errors=True)
        write_json(settings, data_folder / RECORD_NAME)
        _synthesise(data_folder, plan)
        logger.info("Demo voices are in %s", data_folder)
    return Corpus(data_folder, train=_list_part(plan, "train"), test=_list_part(plan, "test"))


def _settings_of(plan: Plan) -> dict:
    """Return the record of a corpus: everything that determines its bytes."""
    planned = repr([(part, sorted(voices.items())) for part, voices in sorted(plan.items())])
    return {
        "corpus": "demo_voices",
        "version": FORMAT_VERSION,
        "num_voices": {part: len(voices) for part, voices in plan.items()},
        "num_utterances": sum(len(utterances) for voices in plan.values() for utterances in voices.values()),
        "plan_sha256": hashlib.sha256(planned.encode()).hexdigest(),
    }


def _missing_voices(data_folder: Path, plan: Plan) -> list[tuple[str, Voice]]:
    """Return part and voice of every voice with a missing file."""
    return [
        (part, voice)
        for part, voices in plan.items()
        for voice, utterances in voices.items()
        if not all((data_folder / part / f"{utterance.utt_id}.wav").is_file() for utterance in utterances)
    ]


def _check_folder_is_ours(data_folder: Path, found: dict) -> None:
    """Raise InputError if ``data_folder`` contains files that are not part of a demo corpus."""
    foreign = ["a file"] if data_folder.is_file() else []
    for path in sorted(data_folder.rglob("*") if found else data_folder.glob("*")):
        name = path.relative_to(data_folder).as_posix()
        is_hidden = path.name.startswith(".")  # .DS_Store, or the leftover of a killed write
        if not (is_hidden or found and (path.is_dir() or OUR_FILES.fullmatch(name))):
            foreign.append(name)
    if foreign:
        raise InputError(
            f"{data_folder}: expected a new or empty folder, or demo voices; found {foreign[0]}; choose another "
            "--data_folder"
        )


def _synthesise(data_folder: Path, plan: Plan) -> None:
    """Synthesise the missing voices; each folder is renamed into place when complete."""
    missing = _missing_voices(data_folder, plan)
    num_utterances = sum(len(plan[part][voice]) for part, voice in missing)
    with tqdm(total=num_utterances, desc="synthesising demo voices", unit="utt") as bar:
        for part, voice in missing:
            folder = data_folder / part / voice.spk_id
            unfinished = folder.with_name(f"{folder.name}.part")
            try:
                for leftover in (unfinished, folder):
                    shutil.rmtree(leftover, ignore_errors=True)
                unfinished.mkdir(parents=True)
                _synthesise_voice(plan[part][voice], unfinished, bar)
                os.replace(unfinished, folder)
            except (OSError, soundfile.SoundFileError) as error:
                raise InputError(f"{folder}: cannot write: {error}; check free space and permissions") from error


def _synthesise_voice(utterances: Sequence[PlannedUtterance], folder: Path, bar: tqdm) -> None:
    """Write the utterances of one voice, with a fresh espeak-ng so that they depend on no other voice."""
    with Espeak() as espeak:
        for utterance in utterances:
            prosody = {key: getattr(utterance, key) for key in ("language", "rate_wpm", "pitch", "pitch_range")}
            samples = espeak.synthesise(utterance.text, variant=utterance.voice.variant, **prosody)
            speech = change_tract_length(samples, espeak.sample_rate, utterance.voice.tract_length)
            path = folder / f"{utterance.utt_id.rpartition('/')[2]}.wav"
            recording = record_speech(speech, utterance.channel_seed)
            soundfile.write(path, recording, SAMPLE_RATE, subtype="PCM_16")
            bar.update()


def _list_part(plan: Plan, part: str) -> list[Utterance]:
    """Return the utterances of one part, sorted by ``utt_id``."""
    planned = sorted((item for utterances in plan[part].values() for item in utterances), key=lambda item: item.utt_id)
    return [
        Utterance(
            item.utt_id,
            item.voice.spk_id,
            f"{part}/{item.utt_id}.wav",
            {"gender": item.voice.gender, "language": item.language},
        )
        for item in planned
    ]
