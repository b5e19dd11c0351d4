"""The requests of the page and their answers, as JSON; ``page/backend.js`` documents the fields. Knows no HTTP."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.answers import SURE_SPEECH_S, Candidate, Identification, Verdict
from voice_biometrics.inference.audio_input import Recording, read_recording
from voice_biometrics.inference.decisions import choose_point, identification_point
from voice_biometrics.inference.model_folder import parse_json
from voice_biometrics.inference.recognizer import MIN_SPEECH_S, Recognizer
from voice_biometrics.inference.voiceprints import MAX_NAME

MAX_DURATION_S = 60.0
MAX_RECORDINGS = 10
MAX_FILE_NAME = 200  # characters

Name = Annotated[str, Meta(max_length=MAX_NAME)]
Bytes = Annotated[bytes, Meta(min_length=1)]  # base64 in JSON


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON object with exactly these entries."""


class File(Request):
    """A file that was dropped on the page."""

    name: Annotated[str, Meta(max_length=MAX_FILE_NAME)]
    content: Bytes

    def recording(self, recognizer: Recognizer) -> Recording:
        """Return the speech in it; InputError as ``read_recording``, or if it is too long."""
        stream = io.BytesIO(self.content)
        stream.name = self.name
        recording = read_recording(stream, recognizer.model.sample_rate, recognizer.channel)
        if recording.duration_s > MAX_DURATION_S:
            raise InputError(
                f"{recording.name}: expected at most {MAX_DURATION_S:g} s, found {recording.duration_s:.0f} s; "
                "cut the recording"
            )
        return recording


class Info(Request):
    """Model, thresholds and limits."""

    def answer(self, recognizer: Recognizer) -> dict[str, Any]:
        """Return ``Info`` of ``backend.js``."""
        model, held_out = recognizer.model, recognizer.model.held_out
        return {
            "model": {"name": model.name, "version": model.version, "fingerprint": recognizer.entry.fingerprint},
            "use": recognizer.point.use,
            "points": points(recognizer),
            "sample_rate": model.sample_rate,
            "min_speech_s": MIN_SPEECH_S,
            "sure_speech_s": SURE_SPEECH_S,
            "max_duration_s": MAX_DURATION_S,
            "held_out": {"description": held_out.description, "num_speakers": held_out.num_speakers},
            "storage": f"in {Path(recognizer.store_path).name} on the computer that runs verify.py",
        }


class Enrol(Request):
    """Enrol a voice; unless ``keep_all``, recordings of several speakers are refused."""

    name: Name
    recordings: Annotated[list[Bytes], Meta(min_length=1, max_length=MAX_RECORDINGS)]
    keep_all: bool = False

    def answer(self, recognizer: Recognizer) -> dict[str, Any]:
        """Return ``Enrolment``."""
        files = [File(f"recording {number}", content) for number, content in enumerate(self.recordings, start=1)]
        recordings = [file.recording(recognizer) for file in files]
        done = recognizer.enrol(self.name, recordings, keep_disagreeing=self.keep_all)
        warnings = [f"{name}: sounds like another speaker" for name in done.disagreeing] + [*done.doubts]
        found = {"name": done.name, "num_recordings": done.num_recordings, "speech_s": done.speech_s}
        return found | {"warnings": warnings}


class Verify(Request):
    """Decide if an enrolled voice speaks."""

    name: Name
    recording: Bytes

    def answer(self, recognizer: Recognizer) -> dict[str, Any]:
        """Return ``Verdict``."""
        recording = File("the recording", self.recording).recording(recognizer)
        return verdict(recognizer.verify(self.name, recording), points(recognizer))


class Identify(Request):
    """Find the enrolled voice that speaks."""

    recording: Bytes

    def answer(self, recognizer: Recognizer) -> dict[str, Any]:
        """Return ``Verdict``."""
        recording = File("the recording", self.recording).recording(recognizer)
        found = recognizer.identify(recording)
        return verdict(found, points(recognizer, found.point.num_voices), found.candidates)


class Compare(Request):
    """Decide if two recordings are of the same speaker."""

    a: File
    b: File

    def answer(self, recognizer: Recognizer) -> dict[str, Any]:
        """Return ``Verdict``."""
        recordings = [file.recording(recognizer) for file in (self.a, self.b)]
        return verdict(recognizer.compare(*recordings), points(recognizer))


class Voices(Request):
    """List the enrolled voices."""

    def answer(self, recognizer: Recognizer) -> dict[str, Any]:
        """Return the list of ``Voice``, sorted by name; empty before the first enrolment makes the store."""
        found = sorted(recognizer.voices()) if Path(recognizer.store_path).exists() else []
        return {"voices": [{"name": name, "num_recordings": number, "speech_s": s} for name, number, s in found]}


class Forget(Request):
    """Forget a voice."""

    name: Name

    def answer(self, recognizer: Recognizer) -> dict[str, Any]:
        """Return the name."""
        recognizer.forget(self.name)
        return {"forgot": self.name}


REQUESTS: dict[tuple[str, str], type[Request]] = {
    ("GET", "/api/info"): Info,
    ("GET", "/api/voices"): Voices,
    ("POST", "/api/enrol"): Enrol,
    ("POST", "/api/verify"): Verify,
    ("POST", "/api/identify"): Identify,
    ("POST", "/api/compare"): Compare,
    ("POST", "/api/forget"): Forget,
}


def parse_request(kind: type[Request], body: bytes) -> Request:
    """Return the request in a JSON body; InputError if it is not one."""
    return parse_json(body, kind, "the request", "reload the page")


def points(recognizer: Recognizer, num_voices: int = 1) -> list[dict[str, Any]]:
    """Return the operating points of all uses, as ``Point``, for one recording against ``num_voices`` voices."""
    entry = recognizer.entry
    single = {use: choose_point(entry, use) for use in entry.operating_points}
    single.setdefault(recognizer.point.use, recognizer.point)  # a FAR of the user's choice
    if num_voices == 1:
        return [asdict(point) | {"is_extrapolated": False} for point in single.values()]
    none = {"far": None, "far_interval": None, "frr_interval": None}
    return [asdict(identification_point(entry, point, num_voices)) | none for point in single.values()]


def verdict(
    answer: Verdict | Identification, all_points: list[dict[str, Any]], candidates: Sequence[Candidate] = ()
) -> dict[str, Any]:
    """Return ``Verdict`` of ``backend.js``."""
    return {
        "decision": "accepted" if answer.is_accepted else "rejected",
        "name": answer.name,
        "llr": candidates[0].llr if candidates else answer.llr,
        "use": answer.point.use,
        "points": all_points,
        "candidates": [{"name": one.name, "llr": one.llr} for one in candidates],
        "warnings": list(answer.doubts),
    }
