"""The command line of verify.py: what it says, its exit statuses, and that nothing bad is ever "accepted"."""

import gc
import io
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import verify
from tests.conftest import SAMPLE_RATE, make_speech
from tests.model_folders import write_toy_model_folder
from voice_biometrics.inference.store import Store

ROOT = Path(__file__).parents[3]
ACCEPTED, REJECTED, NOT_JUDGED = 0, 1, 2


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A model folder and recordings of two voices."""
    folder = tmp_path_factory.mktemp("verify")
    write_toy_model_folder(folder / "model")
    for name, pitch_hz in (("anna", 110), ("bert", 190)):
        for number in range(4):
            soundfile.write(folder / f"{name}{number}.wav", make_speech(pitch_hz, 2.0, number), SAMPLE_RATE)
    recordings = [str(folder / f"anna{number}.wav") for number in range(3)]
    where = ["--model", str(folder / "model"), "--store", str(folder / "enrolled.db")]
    assert verify.main(["enrol", "anna", *recordings, *where]) == 0
    gc.collect()  # closes the store, whose log would vanish while it is copied
    return folder


@pytest.fixture
def folder(originals, tmp_path, monkeypatch):
    """A working folder with copies of them."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Run verify.py here with the toy model; returns exit status, standard output and error."""

    def run(*arguments, model="model"):
        judges = arguments[0] in ("compare", "enrol", "verify", "identify")
        status = verify.main([*arguments, *(["--model", model] if judges else [])])
        return status, *capsys.readouterr()

    return run


def test_two_recordings_are_compared_in_words(run):
    status, said, _ = run("compare", "anna0.wav", "anna1.wav")
    assert status == ACCEPTED
    first, score, point, rates = said.splitlines()
    assert first.startswith("ACCEPTED: ")
    assert re.fullmatch(r"score 0\.\d{3}, log-likelihood ratio \+\d+\.\d\d", score)
    assert "+2.00" in point and "smart_speaker" in point
    far, frr = re.findall(r"([\d.]+) % \(([\d.]+) to ([\d.]+)\)", rates)
    assert [*map(float, far)] == [1.0, 0.5, 2.0] and [*map(float, frr)] == [20.0, 15.0, 25.0]
    status, said, _ = run("compare", "anna0.wav", "bert1.wav", "--use", "door")
    assert status == REJECTED and said.startswith("REJECTED: ") and "+4.00 (door)" in said


def test_programs_get_json(run):
    status, said, _ = run("compare", "anna0.wav", "bert1.wav", "--far", "0.02", "--json")
    content = json.loads(said)
    assert status == REJECTED and content["decision"] == "rejected" and content["is_accepted"] is False
    assert content["point"]["use"] == "far 0.02" and content["point"]["threshold"] == 2.0
    assert content["llr"] < content["point"]["threshold"] and content["doubts"] == []
    status, said, _ = run("compare", "anna0.wav", "gone.wav", "--json")
    assert status == NOT_JUDGED
    content = json.loads(said)
    assert content.keys() == {"decision", "error"} and content["decision"] == "not judged"
    assert content["error"].startswith("gone.wav: could not be read")


def test_a_voice_is_enrolled_verified_identified_listed_and_forgotten(run, folder):
    status, said, _ = run("enrol", "anna", "anna0.wav", "anna1.wav", "anna2.wav")
    assert (status, said) == (0, "enrolled anna: 3 recordings, 5.7 s of speech\n")
    assert stat.S_IMODE((folder / "voices.db").stat().st_mode) == 0o600
    assert run("verify", "anna", "anna3.wav")[0] == ACCEPTED
    assert run("verify", "anna", "bert3.wav")[0] == REJECTED
    status, said, _ = run("identify", "anna3.wav")
    assert status == ACCEPTED and said.startswith("FOUND: anna\n  anna: score 0.9")
    status, said, _ = run("identify", "bert3.wav", "--json")
    assert status == REJECTED and json.loads(said)["name"] is None
    assert run("identify", "bert3.wav")[1].startswith("NOT FOUND: ")
    assert run("list")[1] == "anna: 3 recordings, 5.7 s, model abababababab\n"
    assert json.loads(run("list", "--json")[1])["voices"][0]["name"] == "anna"
    assert run("forget", "anna")[:2] == (0, "forgot anna\n")
    assert json.loads(run("compact", "--json")[1]) == {"is_compacted": True}
    assert json.loads(run("list", "--json")[1]) == {"voices": []}
    assert run("verify", "anna", "anna3.wav")[0] == NOT_JUDGED


def test_enrolling_twice_adds_only_when_told_to(run):
    assert "only one recording" in run("enrol", "anna", "anna0.wav")[1]
    status, _, told = run("enrol", "anna", "bert0.wav")
    assert status == NOT_JUDGED
    assert told.startswith("error: voices.db: anna is already enrolled") and "--add" in told
    status, said, _ = run("enrol", "anna", "anna1.wav", "bert2.wav", "--add")
    done, warning = said.splitlines()
    assert (status, done) == (0, "enrolled anna: 3 recordings, 5.3 s of speech")
    assert warning.startswith("warning: bert2.wav: ")


def test_a_recording_on_standard_input_is_judged(run, folder, monkeypatch):
    content = (folder / "anna1.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run("compare", "anna0.wav", "-")[0] == ACCEPTED
    status, _, told = run("compare", "-", "-")
    assert status == NOT_JUDGED and "expected one recording on standard input" in told


def test_voices_move_to_another_store_that_is_encrypted(run, folder):
    run("enrol", "anna", "anna0.wav", "anna1.wav")
    run("enrol", "bert", "bert0.wav")
    assert json.loads(run("export", "voices.jsonl", "--json")[1]) == {"exported": 2}
    assert stat.S_IMODE((folder / "voices.jsonl").stat().st_mode) == 0o600
    (folder / "key").write_bytes(os.urandom(32))
    (folder / "key").chmod(0o600)
    other = ("--store", "other.db", "--key_file", "key")
    assert json.loads(run("import", "voices.jsonl", *other, "--json")[1]) == {"imported": 2, "unchanged": 0}
    assert json.loads(run("import", "voices.jsonl", *other, "--json")[1]) == {"imported": 0, "unchanged": 2}
    assert [item[1].to_bytes() for item in Store("voices.db").items()] == [
        item[1].to_bytes() for item in Store("other.db", "key").items()
    ]
    assert run("verify", "anna", "anna2.wav", *other)[0] == ACCEPTED
    status, _, told = run("list", "--store", "other.db")
    assert status == NOT_JUDGED and "other.db: it is encrypted" in told


def test_a_faulty_file_imports_nothing(run, folder):
    run("enrol", "anna", "anna0.wav")
    run("export", "voices.jsonl")
    head, anna = (folder / "voices.jsonl").read_text().splitlines()
    content = json.loads(anna)
    for line, told in (
        ("x", "voices.jsonl, line 3: "),
        ('{"name": "a", "fingerprint": "ab"}', "voices.jsonl, line 3: .*fingerprint"),
        ("x" * 200_000, "voices.jsonl, line 3: longer than 131,072 bytes"),
        (json.dumps(content | {"name": "b", "embedding": "AADAfw=="}), "voices.jsonl, line 3: embedding"),  # NaN
        (json.dumps(content | {"name": " b"}), "invalid name"),
        (json.dumps(content | {"speech_s": 1.0}), "anna is already enrolled"),
        (json.dumps(content | {"name": "c", "x": 1}), "voices.jsonl, line 3: .*x"),
    ):
        (folder / "voices.jsonl").write_text("\n".join([head, json.dumps(content | {"name": "bert"}), line, ""]))
        status, _, error = run("import", "voices.jsonl")
        assert status == NOT_JUDGED and re.search(told, error) and error.count("\n") == 1, line[:100]
        assert run("list")[1].splitlines() == ["anna: 1 recording, 2.0 s, model abababababab"], line[:100]
    for faulty in ("", anna, head.replace("2", "3")):
        (folder / "voices.jsonl").write_text(faulty + "\n")
        assert "line 1" in run("import", "voices.jsonl", "--store", "new.db")[2]


BAD = {
    "gone.wav": "gone.wav: could not be read (No such file or directory)",
    ".": ".: expected an audio file, found a folder, pipe or device",
    "": "could not be read (No such file or directory)",
    "text.wav": "text.wav: expected audio that libsndfile reads",
    "silent.wav": "silent.wav: expected speech, found silence",
    "nan.wav": "nan.wav: expected finite samples",
    "short.wav": "short.wav: expected 0.5 s of speech or more",
    "x\udcff.wav": "'x\\udcff.wav': could not be read",
    "a\x1b[2J\n.wav": "'a\\x1b[2J\\n.wav': could not be read",
}


def test_every_command_tells_a_bad_recording_and_does_nothing(run, folder):
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "silent.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(folder / "nan.wav", np.full(SAMPLE_RATE, np.nan), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(folder / "short.wav", make_speech(110, 0.3, 0), SAMPLE_RATE)
    before = (folder / "enrolled.db").read_bytes()
    commands = (["compare", "anna0.wav"], ["enrol", "bert"], ["verify", "anna"], ["identify"])
    for command, (bad, expected) in itertools.product(commands, BAD.items()):
        status, said, told = run(*command, bad, "--store", "enrolled.db")
        assert status == NOT_JUDGED and said == "", (command, bad)
        assert told.startswith("error: ") and expected in told and told.count("\n") == 1, (command, bad)
        assert (folder / "enrolled.db").read_bytes() == before


def test_every_command_tells_a_bad_name(run):
    names = ("", "a\x1b[2J\n", "\udcff")
    for name, (command, *rest) in itertools.product(
        names, (["enrol", "anna0.wav"], ["verify", "anna0.wav"], ["forget"])
    ):
        status, said, told = run(command, name, *rest, "--store", "enrolled.db")
        assert (status, said) == (NOT_JUDGED, "")
        assert f"invalid name {ascii(name)}" in told and told.count("\n") == 1


def test_every_command_tells_an_unknown_name_a_missing_store_and_a_missing_model(run):
    for command in (["verify", "nobody", "anna0.wav"], ["forget", "nobody"]):
        status, _, told = run(*command, "--store", "enrolled.db")
        assert status == NOT_JUDGED and "enrolled.db: nobody is not enrolled" in told
    for command in (["verify", "anna", "anna0.wav"], ["identify", "anna0.wav"], ["list"], ["forget", "anna"]):
        status, _, told = run(*command, "--store", "gone.db")
        assert status == NOT_JUDGED and "gone.db: no store of voices" in told
    for command in (["compare", "anna0.wav", "anna1.wav"], ["identify", "anna0.wav", "--store", "enrolled.db"]):
        status, _, told = run(*command, model="gone")
        assert status == NOT_JUDGED and "gone: expected a model folder, found none; make one with export.py" in told


def test_a_changed_model_folder_is_never_used(run, folder):
    with open(folder / "model" / "embedder.onnx", "r+b") as file:
        file.write(b"?")
    status, _, told = run("compare", "anna0.wav", "anna0.wav")
    assert status == NOT_JUDGED and "embedder.onnx: expected sha256" in told


def test_a_wrong_command_line_ends_with_status_2(capsys):
    for line in ("", "judge", "compare a.wav", "compare a b --thresh 0", "compare a b --use door --far 0.1"):
        with pytest.raises(SystemExit) as end:
            verify.main(line.split())
        assert end.value.code == NOT_JUDGED and "error: " in capsys.readouterr().err, line


def test_a_use_or_far_that_the_model_does_not_support_is_told(run):
    for choice, told in (("--use", "window"), ("--far", "1e-09")):
        value = "window" if choice == "--use" else "1e-9"
        status, _, error = run("compare", "anna0.wav", "anna1.wav", choice, value)
        assert status == NOT_JUDGED and told in error


def test_the_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit) as end:
        verify.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and len(lines) <= 32 and max(map(len, lines)) <= 96


def test_a_mistake_of_ours_is_not_read_as_a_rejection(run, monkeypatch):
    monkeypatch.setattr("voice_biometrics.inference.recognizer.Recognizer.compare", lambda *_: 1 / 0)
    status, said, told = run("compare", "anna0.wav", "anna1.wav")
    assert (status, said) == (NOT_JUDGED, "") and "ZeroDivisionError" in told


def test_the_model_of_the_repository_is_found_from_any_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not (tmp_path / "pretrained").exists()
    status = verify.main(["compare", "anna0.wav", "anna0.wav"])
    assert status == ACCEPTED


def test_nothing_is_sent_and_nothing_is_written_to_the_home_folder(folder):
    """ONNX Runtime's telemetry writes a database below ~/.cache when it is imported, and looks up a server later."""
    home = folder / "home"
    home.mkdir()
    names = ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in names} | {"HOME": str(home)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, str(ROOT / "verify.py"), "compare", "anna0.wav", "anna1.wav", "--model", "model"]
    traced = ["strace", "-f", "-e", "trace=socket,connect", "-o", "trace"] if shutil.which("strace") else []
    assert subprocess.run([*traced, *command], env=environment, capture_output=True).returncode == ACCEPTED
    assert list(home.rglob("*")) == []
    assert not traced or not re.search(r"(socket|connect)\(", (folder / "trace").read_text())


WATCHED = """
import sys
for name in ("torch", "speechbrain", "hyperpyyaml", "yaml", "scipy", "pandas", "matplotlib", "onnx"):
    sys.modules[name] = None  # importing it fails

def watch(event, arguments):
    if event in ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"):
        print(event, arguments)

sys.addaudithook(watch)
import verify
sys.exit(verify.main(sys.argv[1:]))
"""


def test_nothing_heavy_is_imported_and_nothing_that_is_loaded_is_executed(folder):
    command = [sys.executable, "-c", WATCHED, "identify", "anna3.wav", "--store", "enrolled.db", "--json"]
    command += ["--model", "model"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (ACCEPTED, "")
    assert json.loads(done.stdout)["decision"] == "accepted"


def test_no_status_but_0_means_accepted_when_the_answer_cannot_be_given(folder):
    command = [sys.executable, str(ROOT / "verify.py"), "compare", "anna0.wav", "anna1.wav", "--model", "model"]
    assert subprocess.run(command, capture_output=True).returncode == ACCEPTED
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, stdout=full, stderr=subprocess.DEVNULL).returncode == NOT_JUDGED
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (NOT_JUDGED, "")


def test_every_command_takes_one_channel_of_a_recording(run, folder):
    both = np.stack([soundfile.read(folder / f"{name}3.wav")[0] for name in ("anna", "bert")], axis=1)
    soundfile.write(folder / "both.wav", both, SAMPLE_RATE)
    for channel, status in (("1", ACCEPTED), ("2", REJECTED)):
        assert run("compare", "anna0.wav", "both.wav", "--channel", channel)[0] == status
        assert run("verify", "anna", "both.wav", "--channel", channel, "--store", "enrolled.db")[0] == status
        assert run("identify", "both.wav", "--channel", channel, "--store", "enrolled.db")[0] == status
    assert run("enrol", "bert", "both.wav", "--channel", "2", "--store", "enrolled.db")[0] == ACCEPTED
    assert run("verify", "bert", "bert0.wav", "--store", "enrolled.db")[0] == ACCEPTED
    status, _, told = run("compare", "anna0.wav", "both.wav", "--channel", "3")
    assert status == NOT_JUDGED and "both.wav: expected channel 3" in told


def test_an_export_does_not_replace_the_store(run, folder):
    before = (folder / "enrolled.db").read_bytes()
    (folder / "link.db").symlink_to(folder / "enrolled.db")
    for name in ("enrolled.db", "link.db"):
        status, _, told = run("export", name, "--store", "enrolled.db")
        assert status == NOT_JUDGED and "is the store itself" in told
    assert (folder / "enrolled.db").read_bytes() == before
