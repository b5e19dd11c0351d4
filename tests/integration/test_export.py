"""From a run folder to a model folder: the same embeddings and EER everywhere, calibrated on speakers held out."""

import contextlib
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from safetensors import safe_open
from speechbrain.inference.speaker import SpeakerRecognition

import export
from tests.conftest import make_speech, make_voice, write_speakers
from tests.run_folders import write_run_folder
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export import package
from voice_biometrics.export.onnx_export import export_onnx
from voice_biometrics.export.package import write_speechbrain_layout
from voice_biometrics.inference import Recognizer
from voice_biometrics.inference.audio_input import recording_from_samples
from voice_biometrics.inference.embedder import Embedder, OnnxEmbedder
from voice_biometrics.inference.model_folder import ModelFolder, read_model_folder
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.embeddings import embed, embed_manifest
from voice_biometrics.training.transfer import start_from

DURATIONS_S = (0.5, 0.7, 1.0, 3.0, 10.0, 60.0)


@pytest.fixture(scope="module", autouse=True)
def few_conditions():
    """Measure one further condition where the card has five: the speakers are toys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "CARD_CONDITIONS", ("telephone",))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_speakers(tmp_path_factory.mktemp("corpus"), num_speakers=12, num_utterances=5, duration_s=0.8)


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("run"), corpus)


@pytest.fixture(scope="module")
def model(run) -> Path:
    export.main([str(run)])
    return run / "model"  # without embedder.sherpa.onnx: SpeechBrain's features are not Kaldi's


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def fails_with(capsys, *given: str) -> str:
    with pytest.raises(SystemExit) as end:
        export.main(list(given))
    assert end.value.code == 2
    return capsys.readouterr().err


@contextlib.contextmanager
def no_network():
    def refuse(*args, **kwargs):
        raise AssertionError("asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def test_the_model_folder_has_the_documented_files_without_paths_of_this_machine(model):
    names = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert names == {
        *("embedder.onnx", "embedder.int8.onnx", "calibration.json", "MODEL_CARD.md", "SHA256SUMS"),
        *("weights.safetensors", "speechbrain/hyperparams.yaml", "speechbrain/embedding_model.ckpt"),
    }
    folder = read_model_folder(model)
    assert folder.held_out.num_speakers == 9 and folder.embedding_dim == 16
    assert "selected the checkpoint" in folder.held_out.description
    for file in ("calibration.json", "MODEL_CARD.md", "speechbrain/hyperparams.yaml", "embedder.onnx"):
        content = (model / file).read_bytes()
        assert str(Path.cwd()).encode() not in content and str(model.parent).encode() not in content, file


def test_run_folder_onnx_and_speechbrain_give_the_same_embedding_of_half_a_second_to_a_minute(run, model, corpus):
    modules = TrainedRun(run).modules
    onnx = Embedder(read_model_folder(model))
    with no_network():
        stock = SpeakerRecognition.from_hparams(source=str(model / "speechbrain"), savedir=str(model / "speechbrain"))
    for number, duration_s in enumerate(DURATIONS_S):
        samples = make_voice(120 + 20 * number, duration_s, seed=number)
        ours = embed(modules, torch.from_numpy(samples)[None])[0]
        theirs = stock.encode_batch(torch.from_numpy(samples)[None])[0, 0].numpy()
        assert cosine(ours, onnx(samples)) > 0.99999, duration_s
        assert cosine(ours, theirs) > 0.99999, duration_s
    files = [corpus / "spk1" / "utt0.wav", corpus / "spk2" / "utt1.wav"]
    score, _ = stock.verify_files(*map(str, files))
    assert score.item() == pytest.approx(
        cosine(*(onnx(stock.load_audio(str(file)).numpy()) for file in files)), abs=1e-4
    )
    assert not list(Path.cwd().glob("utt*.wav"))


def test_features_that_are_not_normalised_are_so_everywhere(run, tmp_path):
    hparams = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("model")) / "hyperparams.yaml"
    tree = YAML().load(hparams.read_text())
    nothing = YAML().load(Path("hparams/ablations/features/untaught_best.yaml").read_text())["mean_var_norm"]
    nothing["input_shape"] = [None, None, 80]
    tree["mean_var_norm"] = tree["modules"]["mean_var_norm"] = nothing
    YAML().dump(tree, hparams)
    for state in hparams.parent.glob("save/CKPT*/normalizer.ckpt"):
        state.unlink()
    finished, layout = TrainedRun(hparams.parent), tmp_path / "speechbrain"
    export_onnx(finished.modules, finished.dims, tmp_path / "x.onnx")
    onnx = OnnxEmbedder((tmp_path / "x.onnx").read_bytes(), "x.onnx", 16000, 0.5)
    write_speechbrain_layout(finished, layout, "1.0")
    stock = SpeakerRecognition.from_hparams(source=str(layout), savedir=str(layout))
    samples = make_voice(120, 2.0, seed=1)
    ours = embed(finished.modules, torch.from_numpy(samples)[None])[0]
    assert cosine(ours, onnx(samples)) > 0.99999
    assert cosine(ours, stock.encode_batch(torch.from_numpy(samples)[None])[0, 0].numpy()) > 0.99999
    normalised = embed(TrainedRun(run).modules, torch.from_numpy(samples)[None])[0]
    assert cosine(ours, normalised) < 0.999


def test_training_goes_on_from_the_weights_of_a_model_folder(run, model, corpus, tmp_path):
    begun = write_run_folder(tmp_path / "other", corpus, "--seed", "5")
    target = TrainedRun(begun).modules["embedding_model"]
    start_from(model, target, torch.nn.Linear(1, 1), begun)
    trained = TrainedRun(run).modules["embedding_model"].state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in target.state_dict().items())
    with safe_open(model / "weights.safetensors", "pt") as file:
        assert file.metadata()["fingerprint"] == read_model_folder(model).embedder("fp32").fingerprint
        assert "--corpus speaker_folders" in file.metadata()["training"]


def test_the_eer_in_the_folder_is_that_of_the_run(run, model):
    finished = TrainedRun(run)
    held_out = finished.held_out()
    manifest, trials = held_out.manifest, held_out.trials
    embeddings = embed_manifest(finished.modules, manifest, 16000, "cpu")
    scores = score_trials(embeddings, pd.Index(manifest["ID"]), trials)
    eer, _ = equal_error_rate(scores["score"].to_numpy(), scores["target"].to_numpy() == 1)
    folder = read_model_folder(model)
    assert 0.01 < eer < 0.45
    assert folder.embedder("fp32").eer.estimate == pytest.approx(eer, abs=1e-6)
    assert folder.embedder("int8").eer.estimate == pytest.approx(eer, abs=0.05)


def test_thresholds_do_on_the_held_out_speakers_what_the_folder_says(model):
    for entry in read_model_folder(model).embedders.values():
        point, curve = entry.operating_points["smart_speaker"], entry.error_rates
        threshold, far, frr = curve.at_far(point.max_far)
        assert far <= point.max_far == 0.01
        assert (threshold, far, frr) == pytest.approx((point.threshold, point.far.estimate, point.frr.estimate))
        assert point.far.estimate == pytest.approx(point.num_false_accepts / point.num_nontarget)
        assert curve.far[0] == 1 and curve.frr[0] == 0 and curve.far[-1] == 0 and curve.frr[-1] == 1
        assert "door" not in entry.operating_points  # too few trials to speak of one in ten thousand


def test_the_card_has_data_results_limits_and_a_table_for_every_measurement(model):
    card = (model / "MODEL_CARD.md").read_text()
    assert "trained on 3 speakers, 15 utterances" in card and "16,000 Hz" in card
    assert "Measured on 9 speakers of speaker_folders" in card
    titles = re.findall("^## (.*)$", card, flags=re.MULTILINE)
    assert titles[:5] == ["Use", "Training", "Results", "Decisions", "Other conditions"]
    assert {"Not tested", "Reproduce", "Files"} <= set(titles)
    for row in ("| `embedder.onnx` |", "| `embedder.int8.onnx` |", "| telephone |"):
        assert row in card, row
    for line in ("Licence", "replayed", "smart_speaker: ", "door: a FAR of"):
        assert line in card, line


def test_a_fingerprint_follows_from_the_weights_and_nothing_else(run, model, corpus, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("model"))
    export.main([str(moved), "--model_folder", str(tmp_path / "again"), "--version", "2.0"])
    other = TrainedRun(write_run_folder(tmp_path / "other", corpus, "--seed", "5"))
    first, again = read_model_folder(model), read_model_folder(tmp_path / "again")
    assert (first.version, again.version) == ("1.0", "2.0")
    assert first.embedder("fp32").fingerprint == again.embedder("fp32").fingerprint != other.fingerprint()
    assert first.embedder("int8").fingerprint == again.embedder("int8").fingerprint
    assert (model / "embedder.onnx").read_bytes() != (tmp_path / "again" / "embedder.onnx").read_bytes()  # the version


def test_the_arguments_of_train_name_the_run_as_well(run, model, corpus, capsys, monkeypatch):
    asked = []

    def note(run: TrainedRun, others: list, destination: Path, version: str, whitened: float) -> ModelFolder:
        asked.append((run.fingerprint(), others, destination, version, whitened))
        return read_model_folder(model)

    monkeypatch.setattr(export, "write_model_folder", note)
    given = ["tests/hparams/tiny.yaml", "--corpus", "speaker_folders", "--data_folder", str(corpus)]
    given += ["--output_folder", str(run)]
    export.main([*given, "--version", "3", "--whiten", "0.2"])
    assert asked == [(TrainedRun(run).fingerprint(), [], run / "model", "3", 0.2)]
    assert "embedder.int8.onnx   EER" in capsys.readouterr().out
    assert "another compute_features" in fails_with(capsys, *given, "--n_mels", "40")


def test_a_model_of_all_speakers_is_calibrated_by_runs_that_held_out_others(corpus, tmp_path, capsys):
    scoring = ("--as_norm_top", "2", "--subtract_mean", "True", "--calibrate_with_durations", "True")
    everybody = write_run_folder(tmp_path / "all", corpus, *scoring, num_held_out=0)
    assert "no speakers were held out" in fails_with(capsys, str(everybody))
    folds = [write_run_folder(tmp_path / seed, corpus, "--split_seed", seed, "--seed", seed) for seed in ("1", "2")]
    export.main([str(everybody), "--calibration_from", *map(str, folds)])
    folder = read_model_folder(everybody / "model")
    held_out = [set(pd.read_csv(fold / "manifests" / "valid.csv")["spk_id"]) for fold in folds]
    assert held_out[0] != held_out[1]
    assert folder.held_out.num_speakers == len(held_out[0] | held_out[1])
    assert "2 trainings" in folder.held_out.description and "selected the checkpoint" not in folder.held_out.description
    assert folder.held_out.num_utterances == 2 * 9 * 5
    several = len(held_out[0] & held_out[1])
    assert several and f"{several} of them were held out of more than one training" in folder.held_out.description
    card = (everybody / "model" / "MODEL_CARD.md").read_text()
    assert "--valid_speakers 0 " in card and "--valid_speakers 9 --split_seed 2 " in card
    assert "--calibration_from FOLD1 FOLD2" in card
    assert "`subtract_mean: True`, `as_norm_top: 2`, `calibrate_with_durations: True`" in card
    speech = [recording_from_samples(make_speech(120, 1.0, seed), 16000, 16000) for seed in range(2)]
    assert np.isfinite(Recognizer(everybody / "model").compare(*speech).llr)


def test_an_export_that_fails_leaves_the_folder_before_and_nothing_else(run, model, monkeypatch):
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}

    def fail(folder: Path, *args) -> None:
        (folder / "MODEL_CARD.md").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "fill", fail)
    with pytest.raises(SystemExit):
        export.main([str(run)])
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert not [path for path in run.iterdir() if path.name.startswith(".model")]


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(run, corpus, tmp_path, capsys, monkeypatch):
    target, notes = tmp_path / "model", tmp_path / "notes.txt"
    notes.write_text("mine")
    assert "tmp" in fails_with(capsys, str(run), "--model_folder", str(tmp_path))  # not a model folder
    assert "expected a run folder" in fails_with(capsys, str(run), "--calibration_from", str(corpus))
    assert "--version" in fails_with(capsys, str(run), "--version", "../1")
    assert "seed_of" in fails_with(capsys, str(run), "--seed_of", "3")
    other = write_run_folder(tmp_path.parent / "narrow", corpus, "--embedding_dim", "8")
    given = (str(run), "--model_folder", str(target))
    assert "another embedding_dim" in fails_with(capsys, *given, "--calibration_from", str(other))
    exact = package.embed
    monkeypatch.setattr(package, "embed", lambda modules, waves: exact(modules, waves) + 0.1)
    assert "cosine 0.99" in fails_with(capsys, *given)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
