"""Compare, enrol, verify and identify voices, with a model folder and a store. Needs no PyTorch."""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import BinaryIO

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.answers import Candidate, Enrolment, Identification, Verdict, doubts_about
from voice_biometrics.inference.audio_input import Recording, read_recording
from voice_biometrics.inference.decisions import choose_point, identification_point
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.inference.store import Gallery, Store
from voice_biometrics.inference.voiceprints import (
    Template,
    another_model,
    checked_name,
    scaled_for_scoring,
    template_of_one,
    unit,
)

RecordingSource = str | Path | BinaryIO | Recording
DEFAULT_USE = "smart_speaker"
NUM_CANDIDATES = 3  # of an identification
MIN_SPEECH_S = 0.5  # cut to 0.3 s, recordings of 25 held-out speakers had an EER of 39 %: no answer is worth giving


class OtherSpeakerError(InputError):
    """Recordings of an enrolment that sound like another speaker than the others. places : theirs, from 0."""

    def __init__(self, places: list[int], names: Sequence[str]) -> None:
        super().__init__(f"{', '.join(names)}: sounds like another speaker; nothing was enrolled, record it again")
        self.places = places


class Recognizer:
    """Verification with one model folder. Use one per thread; the store may be shared with other processes.

        recognizer = Recognizer("model", "voices.db", use="door")
        recognizer.enrol("anna", ["anna1.wav", "anna2.wav", "anna3.wav"])
        if recognizer.verify("anna", "somebody.wav").is_accepted: ...

    A recording is a path, a binary stream of an audio file, or ``audio_input.recording_from_samples(...)``.

    Arguments
    ---------
    model_folder : made by ``export.py``; checked completely before it is used.
    store : file of the enrolled voices, made by the first enrolment; not needed for ``compare``.
    key_file : 32 bytes; encrypts the store.
    use, max_far : the threshold: an operating point of the model folder ("smart_speaker" by default, "door"), or the
        lowest threshold with at most this false-accept rate (a fraction).
    channel : the one to use of recordings with several, from 1; 0: their mean.
    precision : "fp32", or "int8": half the time, another fingerprint and therefore separate enrolments.

    Raises
    ------
    InputError : any fault of folder, store, key, recordings or names, in one line. So do all methods.
    ValueError : both ``use`` and ``max_far``.
    """

    def __init__(
        self,
        model_folder: str | Path,
        store: str | Path | None = None,
        *,
        key_file: str | Path | None = None,
        use: str | None = None,
        max_far: float | None = None,
        precision: str = "fp32",
        channel: int = 0,
    ) -> None:
        self.model = read_model_folder(model_folder)
        self.entry = self.model.embedder(precision)
        self.point = choose_point(self.entry, DEFAULT_USE if use is None and max_far is None else use, max_far)
        self.embed = Embedder(self.model, precision)
        self.store_path, self.key_file = store, key_file
        self.channel = channel
        self._store: Store | None = None
        self._gallery: Gallery | None = None

    def compare(self, first: RecordingSource, second: RecordingSource) -> Verdict:
        """Decide if two recordings are of the same speaker."""
        read = [self._read(first), self._read(second)]
        return self._verdict(None, *map(self._template, read), read)

    def enrol(
        self,
        name: str,
        recordings: Sequence[RecordingSource] | str | Path,
        add: bool = False,
        keep_disagreeing: bool = True,
    ) -> Enrolment:
        """Enrol a voice from one or more recordings; with ``add``, add them to those of an enrolled voice.

        The recordings are averaged; copies of one count once and are reported. One that sounds like another speaker
        than the others is reported in the result, not left out; without ``keep_disagreeing`` nothing is enrolled then,
        and OtherSpeakerError raised. Without ``add`` an enrolled name is refused, with it a name that is not enrolled.
        """
        name = checked_name(name)
        recordings = [recordings] if isinstance(recordings, str | Path) else recordings
        if not recordings:
            raise InputError(f"{name}: expected recordings, found none; give one or more")
        read = [self._read(recording) for recording in recordings]
        enrolled = self._enrolled(name) if add else None
        templates = without_copies([self._template(recording) for recording in read], enrolled)  # by place
        copies = tuple(
            f"{read[place].name}: the same recording again; counted once"
            for place in range(len(read))
            if place not in templates
        )
        if not templates:
            raise InputError(f"{read[0].name}: already enrolled as {name}; give other recordings")
        embeddings = np.stack([template.embedding for template in templates.values()])
        mean = None if enrolled is None else enrolled.embedding
        odd = [list(templates)[place] for place in disagreeing(embeddings, self.entry.calibration.llrs, mean)]
        odd_names = tuple(read[place].name for place in odd)
        if odd and not keep_disagreeing:
            raise OtherSpeakerError(odd, odd_names)
        stored = self._opened(create=not add).add(name, reduce(Template.joined, templates.values()), join=add)
        return Enrolment(name, stored.num_recordings, stored.speech_s, odd_names, copies + self._doubts(read))

    def verify(self, name: str, recording: RecordingSource) -> Verdict:
        """Decide if an enrolled voice speaks in a recording."""
        template, read = self._enrolled(name), self._read(recording)
        return self._verdict(name, template, self._template(read), [read])

    def identify(self, recording: RecordingSource) -> Identification:
        """Return the enrolled voice that speaks in a recording, if any.

        A stranger has as many chances as there are voices, so the threshold rises with their number: the FAR limit of
        the operating point holds for all comparisons together.
        """
        gallery = self._current_gallery()
        if not len(gallery):
            raise InputError(f"{self.store_path}: no voice is enrolled; enrol one first")
        read = self._read(recording)
        embedding = self._template(read).embedding
        best = gallery.best(embedding, NUM_CANDIDATES)
        point = identification_point(self.entry, self.point, len(gallery))
        scored = [(name, score, self._llr(score)) for name, score in best]
        candidates = tuple(Candidate(*one, is_accepted=one[-1] >= point.threshold) for one in scored)
        found = candidates[0].name if candidates[0].is_accepted else None
        doubts = self._doubts([read]) + _replay(self._enrolled(candidates[0].name), embedding, read.name)
        return Identification(found, candidates, point, doubts)

    def voices(self) -> list[tuple[str, int, float]]:
        """Return name, number of recordings and seconds of speech of all enrolled voices."""
        return [(name, voice.num_recordings, voice.speech_s) for name, voice in self._opened().items()]

    def forget(self, name: str) -> bool:
        """Forget a voice; returns whether no trace is left in the files already (see ``Store.forget``)."""
        return self._opened().forget(name)

    def _read(self, source: RecordingSource) -> Recording:
        is_read = isinstance(source, Recording)
        recording = source if is_read else read_recording(source, self.model.sample_rate, self.channel)
        if recording.sample_rate != self.model.sample_rate:
            raise InputError(
                f"{recording.name}: expected samples at {self.model.sample_rate:,} Hz, found {recording.sample_rate:,} "
                "Hz; give recording_from_samples the model's rate"
            )
        if recording.speech_s < MIN_SPEECH_S:
            why = "no speech found" if recording.speech_s < MIN_SPEECH_S / 2 else "too little to tell speakers apart"
            raise InputError(
                f"{recording.name}: expected {MIN_SPEECH_S:g} s of speech or more, found {recording.speech_s:.2f} s: "
                f"{why}; record a sentence"
            )
        return recording

    def _template(self, recording: Recording) -> Template:
        """Return the template of one recording."""
        try:
            embedding = unit(self.embed(recording.samples))
        except InputError as error:
            raise InputError(f"{recording.name}: {error}") from error
        return template_of_one(self.entry.fingerprint, recording.speech_s, embedding)

    def _verdict(self, name: str | None, enrolled: Template, test: Template, read: list[Recording]) -> Verdict:
        score = float(scaled_for_scoring(enrolled.embedding) @ test.embedding)
        llr = self._llr(score)
        doubts = self._doubts(read) + _replay(enrolled, test.embedding, read[-1].name)
        return Verdict(name, llr >= self.point.threshold, score, llr, self.point, doubts)

    def _doubts(self, read: list[Recording]) -> tuple[str, ...]:
        return doubts_about(read, self.model.held_out.duration_s.shortest)

    def _llr(self, score: float) -> float:
        return float(self.entry.calibration.llrs(np.array([score]))[0])

    def _enrolled(self, name: str) -> Template:
        """Return the template of a voice; InputError when it is not enrolled, or is with another model."""
        template = self._opened().get(name)
        if template.fingerprint != self.entry.fingerprint:
            raise InputError(f"{name} was {another_model(template.fingerprint, self.entry.fingerprint)}")
        return template

    def _opened(self, create: bool = False) -> Store:
        if self._store is not None and self._store.is_replaced():  # voices of a deleted file may not be accepted
            self._store.close()
            self._store = self._gallery = None
        if self._store is None:
            if self.store_path is None:
                raise InputError("voices are enrolled in a store: give its file")
            self._store = Store(self.store_path, self.key_file, create)
        return self._store

    def _current_gallery(self) -> Gallery:
        store = self._opened()
        if self._gallery is None:
            self._gallery = Gallery(store, self.entry.fingerprint)
        else:
            self._gallery.refresh()
        return self._gallery


def without_copies(templates: Sequence[Template], enrolled: Template | None) -> dict[int, Template]:
    """Return the templates of recordings, each by its place, without copies of earlier and of enrolled recordings."""
    kept: dict[int, Template] = {}
    for place, template in enumerate(templates):
        known = [*kept.values(), *([] if enrolled is None else [enrolled])]
        if not any(one.holds(template.embedding) for one in known):
            kept[place] = template
    return kept


def _replay(enrolled: Template, embedding: np.ndarray, name: str) -> tuple[str, ...]:
    """Return the doubt that a recording is one that it is compared with."""
    is_held = enrolled.holds(embedding)
    return (f"{name}: identical to the recording that it is compared with, as in a replay",) if is_held else ()


def disagreeing(
    embeddings: np.ndarray, llrs: Callable[[np.ndarray], np.ndarray], enrolled: np.ndarray | None = None
) -> list[int]:
    """Return the recordings of an enrolment whose LLR of being the same speaker as the majority is below 0.

    The majority are the recordings that agree with the one most similar to all. Of two that disagree both are returned,
    since it is unknown which is wrong. On 25 speakers held out of speechocean762, one of 3 recordings of one speaker
    was returned in 4 % of 1,000 draws; when one of 3 was another speaker's, it was returned in 91 %, alone in 85 %.

    Arguments
    ---------
    embeddings : (recordings, dims), of length 1. llrs : scores (trials,) to log-likelihood ratios.
    enrolled : (dims,), mean of earlier recordings of the voice, which then decides alone.
    """
    agree = np.zeros(len(embeddings), bool)
    if enrolled is None:
        pairs = embeddings @ embeddings.T
        agree = llrs(pairs[np.argmax(pairs.sum(axis=1))]) >= 0.0  # (recordings,)
        if len(agree) == 2 and not agree.all():
            return [0, 1]
        enrolled = embeddings[agree].mean(axis=0)
    fits = llrs(embeddings @ scaled_for_scoring(enrolled)) >= 0.0
    return np.flatnonzero(~(agree | fits)).tolist()
