"""Answers of the recogniser: dictionaries for programs, text for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voice_biometrics.inference.audio_input import Recording
from voice_biometrics.inference.decisions import IdentificationPoint, VerificationPoint
from voice_biometrics.metrics.formatting import per_cent

SURE_SPEECH_S = 1.5  # cut to 2, 1.5, 1 and 0.5 s, recordings of 25 held-out speakers gave EERs of 12, 15, 20, 31 %


class Answer:
    """A decision with its ``point`` and ``doubts``; the parts that ``Verdict`` and ``Identification`` share."""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer for ``json.dumps``."""
        return {"decision": "accepted" if self.is_accepted else "rejected"} | asdict(self)

    def in_words(self) -> str:
        """Return the answer as text."""
        return "\n".join([*self._decision(), *warnings(self.doubts)])


@dataclass(frozen=True)
class Verdict(Answer):
    """Decision on two recordings, or on a recording and an enrolled voice.

    name : of the enrolled voice, None when two recordings were compared.
    score : higher = more alike. llr : natural log-likelihood ratio. point : the threshold and its error rates.
    doubts : reasons why the answer is less reliable than measured, a sentence each.
    """

    name: str | None
    is_accepted: bool
    score: float
    llr: float
    point: VerificationPoint
    doubts: tuple[str, ...]

    def _decision(self) -> list[str]:
        point = self.point
        if self.name is None:
            verdict = "ACCEPTED: same speaker" if self.is_accepted else "REJECTED: same speaker not confirmed"
        else:
            verdict = f"{'ACCEPTED: speaker' if self.is_accepted else 'REJECTED: speaker not'} confirmed as {self.name}"
        return [
            verdict,
            _numbers(self.score, self.llr),
            f"threshold {point.threshold:+.2f} ({point.use})",
            f"on held-out speakers: {per_cent(point.far, point.far_interval, digits=2)} false accepts, "
            f"{per_cent(point.frr, point.frr_interval, digits=2)} false rejects",
        ]


@dataclass(frozen=True)
class Candidate:
    """An enrolled voice, compared with a recording."""

    name: str
    score: float
    llr: float
    is_accepted: bool


@dataclass(frozen=True)
class Identification(Answer):
    """The enrolled voice that speaks in a recording, None for none of them. candidates : the best, best first."""

    name: str | None
    candidates: tuple[Candidate, ...]
    point: IdentificationPoint
    doubts: tuple[str, ...]

    @property
    def is_accepted(self) -> bool:
        """True if a voice was identified."""
        return self.name is not None

    def _decision(self) -> list[str]:
        point = self.point
        lines = [
            "NOT FOUND: no enrolled voice confirmed" if self.name is None else f"FOUND: {self.name}",
            *(f"  {one.name}: {_numbers(one.score, one.llr)}" for one in self.candidates),
            f"threshold {point.threshold:+.2f} ({point.use}, {counted(point.num_voices, 'voice')}): at most "
            f"{per_cent(point.max_far, digits=2)} of strangers are identified as anyone",
            f"on held-out speakers: {per_cent(point.frr, digits=2)} false rejects",
        ]
        extrapolated = ["so few false accepts could not be measured; the threshold is extrapolated"]
        return lines + (warnings(extrapolated) if point.is_extrapolated else [])


@dataclass(frozen=True)
class Enrolment:
    """Result of an enrolment. disagreeing : recordings that sound like another speaker than the others."""

    name: str
    num_recordings: int
    speech_s: float
    disagreeing: tuple[str, ...]
    doubts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result for ``json.dumps``."""
        return asdict(self)

    def in_words(self) -> str:
        """Return the result as text."""
        done = f"enrolled {self.name}: {counted(self.num_recordings, 'recording')}, {self.speech_s:.1f} s of speech"
        doubts = [
            f"{name}: sounds like another speaker; listen to it, and enrol without it" for name in self.disagreeing
        ]
        if self.num_recordings == 1:
            doubts.append("only one recording; three halve the false rejections")
        return "\n".join([done, *warnings([*doubts, *self.doubts])])


def doubts_about(recordings: Sequence[Recording], measured_from_s: float) -> tuple[str, ...]:
    """Return why an answer about recordings is less reliable; none measured was shorter than ``measured_from_s``."""
    doubts = []
    for recording in recordings:
        if recording.speech_s < SURE_SPEECH_S or recording.duration_s < measured_from_s:
            doubts.append(f"{recording.name}: only {recording.speech_s:.1f} s of speech; expect more false rejections")
        doubts += [f"{recording.name}: {remark}" for remark in recording.remarks]
    return tuple(doubts)


def counted(number: int, noun: str) -> str:
    """Return "1 voice", "2 voices"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def warnings(doubts: Sequence[str]) -> list[str]:
    """Return a line for each doubt."""
    return [f"warning: {doubt}" for doubt in doubts]


def _numbers(score: float, llr: float) -> str:
    return f"score {score:.3f}, log-likelihood ratio {llr:+.2f}"
