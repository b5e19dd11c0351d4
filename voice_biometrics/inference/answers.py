"""What the recogniser answers: for programs as a dictionary, for people in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voice_biometrics.inference.audio_input import Recording
from voice_biometrics.inference.decisions import GalleryPoint, OperatingPoint

SURE_SPEECH_S = 1.5  # cut to 2, 1.5, 1 and 0.5 s, recordings of 25 held-out speakers gave EERs of 12, 15, 20, 31 %


@dataclass(frozen=True)
class Verdict:
    """Whether two recordings, or a recording and an enrolled voice, are of one speaker.

    name : of the enrolled voice, None when two recordings were compared.
    score : higher = more alike. llr : natural log-likelihood ratio. point : what decided.
    doubts : what makes the answer less sure, a sentence each.
    """

    name: str | None
    is_accepted: bool
    score: float
    llr: float
    point: OperatingPoint
    doubts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer for ``json.dumps``."""
        return _decision(self.is_accepted) | asdict(self)

    def in_words(self) -> str:
        """Return the answer for people."""
        who = "the recordings are of one speaker" if self.name is None else f"the speaker is {self.name}"
        verdict = f"ACCEPTED: {who}" if self.is_accepted else f"REJECTED: it is not shown that {who}"
        return "\n".join([verdict, _numbers(self.score, self.llr), *_point_in_words(self.point), *_doubts(self.doubts)])


@dataclass(frozen=True)
class Candidate:
    """An enrolled voice, and how a recording compares with it."""

    name: str
    score: float
    llr: float
    is_accepted: bool


@dataclass(frozen=True)
class Identification:
    """Who of the enrolled voices speaks in a recording, or nobody. candidates : the best, the best first."""

    name: str | None
    candidates: tuple[Candidate, ...]
    point: GalleryPoint
    doubts: tuple[str, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether somebody was found."""
        return self.name is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the answer for ``json.dumps``."""
        return _decision(self.is_accepted) | asdict(self)

    def in_words(self) -> str:
        """Return the answer for people."""
        verdict = "NOBODY: the speaker is none of the enrolled" if self.name is None else f"FOUND: {self.name}"
        lines = [f"  {one.name}: {_numbers(one.score, one.llr)}" for one in self.candidates]
        return "\n".join([verdict, *lines, *_gallery_in_words(self.point), *_doubts(self.doubts)])


@dataclass(frozen=True)
class Enrolment:
    """What an enrolment made. disagreeing : recordings that rather sound like somebody else than the others."""

    name: str
    num_recordings: int
    speech_s: float
    disagreeing: tuple[str, ...]
    doubts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what was done for ``json.dumps``."""
        return asdict(self)

    def in_words(self) -> str:
        """Return what was done for people."""
        done = f"enrolled {self.name}: {counted(self.num_recordings, 'recording')}, {self.speech_s:.1f} s of speech"
        few = ["one recording only; with three, half as many right speakers are turned away"]
        doubts = [*_odd_ones(self.disagreeing), *(few if self.num_recordings == 1 else []), *self.doubts]
        return "\n".join([done, *_doubts(doubts)])


def doubts_about(recordings: Sequence[Recording], measured_from_s: float) -> tuple[str, ...]:
    """Return what makes an answer about recordings less sure; error rates hold from ``measured_from_s`` on."""
    doubts = []
    for recording in recordings:
        if recording.speech_s < SURE_SPEECH_S or recording.duration_s < measured_from_s:
            doubts.append(
                f"{recording.name}: short: {recording.speech_s:.1f} s of speech, so the right speaker is turned away "
                f"more often than was measured (on recordings of {measured_from_s:.1f} s and more)"
            )
        doubts += [f"{recording.name}: {remark}" for remark in recording.remarks]
    return tuple(doubts)


def _odd_ones(disagreeing: Sequence[str]) -> list[str]:
    """Return a sentence for each recording that does not fit the others of an enrolment."""
    return [
        f"{name}: sounds rather like somebody else than the other recordings; listen to it, and enrol without it"
        for name in disagreeing
    ]


def _decision(is_accepted: bool) -> dict[str, str]:
    return {"decision": "accepted" if is_accepted else "rejected"}


def _numbers(score: float, llr: float) -> str:
    return f"score {score:.3f}, log-likelihood ratio {llr:+.2f}"


def _point_in_words(point: OperatingPoint) -> list[str]:
    return [
        f"accepted from a log-likelihood ratio of {point.threshold:+.2f} on: {point.use}",
        f"measured there on people held out: {_rate(point.far, point.far_interval)} of strangers let in, "
        f"{_rate(point.frr, point.frr_interval)} of right speakers turned away",
    ]


def _gallery_in_words(point: GalleryPoint) -> list[str]:
    lines = [
        f"accepted from a log-likelihood ratio of {point.threshold:+.2f} on: {point.use}, for {point.num_voices:,} "
        f"voices, so that at most {_per_cent(point.max_far)} of strangers are taken for anybody",
        f"measured there on people held out: {_per_cent(point.frr)} of right speakers not found",
    ]
    if point.is_extrapolated:
        lines.append("the share of strangers is extrapolated: so few were too rare to be measured")
    return lines


def _doubts(doubts: Sequence[str]) -> list[str]:
    return [f"less sure: {doubt}" for doubt in doubts]


def _rate(rate: float, interval: tuple[float, float] | None) -> str:
    words = _per_cent(rate)
    return words if interval is None else f"{words} ({_per_cent(interval[0])} to {_per_cent(interval[1])})"


def counted(number: int, noun: str) -> str:
    """Return "1 voice", "2 voices"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _per_cent(rate: float) -> str:
    return f"{100 * rate:.2g} %"
