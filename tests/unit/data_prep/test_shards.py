"""Shards: the same audio, manifests and losses as from files, in tar files that WebDataset reads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset

import train
from data_prep import shards
from data_prep.prepare import prepare
from data_prep.settings import Settings
from tests.conftest import forget_setting, write_speakers
from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_utterances
from voice_biometrics.training.brain import SpeakerBrain

ROOT = Path(__file__).parents[3]
TINY = "tests/hparams/tiny.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """6 speakers with 8 utterances each."""
    return write_speakers(tmp_path_factory.mktemp("shards") / "corpus", 6, 8)


@pytest.fixture(scope="module")
def packed(corpus) -> Path:
    """The corpus, two of its speakers held out, in tar files of 0.2 MiB."""
    prepare(Settings("speaker_folders", str(corpus), valid_speakers=2), corpus.parent / "manifests")
    return pack(corpus, corpus.parent / "packed")


def pack(corpus: Path, output: Path) -> Path:
    manifests, folder = str(corpus.parent / "manifests"), str(corpus)
    shards.main([manifests, str(output), "--data_folder", folder, "--mib", "0.2"])
    return output


def test_an_utterance_is_read_from_its_tar_file_as_from_its_own(corpus, packed):
    for part in ("train", "valid"):
        files = read_utterances(corpus.parent / "manifests" / f"{part}.csv", {"data_root": str(corpus)})
        found = read_utterances(packed / f"{part}.csv", {"data_root": str(packed)})
        pd.testing.assert_frame_equal(found.drop(columns="wav"), files.drop(columns="wav"))
        assert found["wav"].str.contains(r"\.tar:\d+:\d+$").all()
        for wav, place in zip(files["wav"], found["wav"], strict=True):
            np.testing.assert_array_equal(read_audio(place, 16000, 100, 9000), read_audio(wav, 16000, 100, 9000))


def test_webdataset_reads_the_tar_files(corpus, packed):
    paths = [str(path) for path in sorted(packed.glob("train-*.tar"))]
    assert len(paths) > 3
    found = list(webdataset.WebDataset(paths, shardshuffle=False))
    rows = [json.loads(sample["json"]) for sample in found]
    assert len(found) == 32 and {row["spk_id"] for row in rows} == {f"spk{number}" for number in range(6)} - held_out(
        packed
    )
    for sample, row in zip(found, rows, strict=True):
        assert sample["wav"] == (corpus / f"{row['ID']}.wav").read_bytes()


def held_out(packed: Path) -> set[str]:
    return set(pd.read_csv(packed / "valid.csv")["spk_id"])


def test_a_second_run_keeps_whole_tar_files_and_writes_the_same_bytes(corpus, packed, tmp_path):
    other = tmp_path / "packed"
    shutil.copytree(packed, other)
    (other / "train-000001.tar").unlink()
    (other / "train-000002.tar").write_bytes((packed / "train-000000.tar").read_bytes())  # of other utterances
    kept = (other / "train-000000.tar").stat().st_mtime_ns
    pack(corpus, other)
    assert (other / "train-000000.tar").stat().st_mtime_ns == kept
    assert {path.name: path.read_bytes() for path in other.iterdir()} == {
        path.name: path.read_bytes() for path in packed.iterdir()
    }


def test_training_gives_the_same_losses_and_error_rates_as_from_files(corpus, packed, tmp_path):
    curves = []
    for name, folder in (("files", corpus), ("shards", packed)):
        own = ["--corpus", "speaker_folders", "--data_folder", str(folder), "--output_folder", str(tmp_path / name)]
        train.main([TINY, *own, "--device", "cpu"])
        curves.append(pd.read_csv(tmp_path / name / "metrics.csv")[["epoch", "train_loss", "eer"]])
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    assert "tar:" in (tmp_path / "shards" / "manifests" / "train.csv").read_text()


def test_faults_are_told(corpus, packed, tmp_path):
    with pytest.raises(InputError, match=r"prepared with valid_speakers 2, but it is 0.2"):
        prepare(Settings("speaker_folders", str(packed), valid_speakers=0.2), tmp_path / "manifests")
    older = tmp_path / "older"
    shutil.copytree(packed, older)
    forget_setting(older, "train_utterances")
    prepare(Settings("speaker_folders", str(older), valid_speakers=2), tmp_path / "manifests")
    with pytest.raises(InputError, match=r"prepared with train_utterances 0, but it is 3"):
        prepare(Settings("speaker_folders", str(older), valid_speakers=2, train_utterances=3), tmp_path / "manifests")
    with pytest.raises(SystemExit):
        shards.main([str(tmp_path), str(tmp_path / "out"), "--data_folder", str(corpus)])
    partial = tmp_path / "partial"
    shutil.copytree(packed, partial)
    (partial / "prepared.json").unlink()
    with pytest.raises(InputError, match="expected shards that are complete"):
        prepare(Settings("speaker_folders", str(partial), valid_speakers=2), tmp_path / "manifests")
    tar = packed / "train-000000.tar"
    with pytest.raises(InputError, match=r"missing.tar:0:10: expected readable audio, found No such file"):
        read_audio(f"{tmp_path}/missing.tar:0:10", 16000)
    with pytest.raises(InputError, match=r"train-000000.tar:0:600: expected readable audio"):
        read_audio(f"{tar}:0:600", 16000)


def test_training_from_a_window_of_shards_resumes_within_an_epoch(packed, tmp_path, monkeypatch):
    given = [
        TINY,
        "--corpus",
        "speaker_folders",
        "--data_folder",
        str(packed),
        "--device",
        "cpu",
        "--shard_window",
        "2",
    ]
    given += ["--ckpt_interval_minutes", "0", "--ckpt_interval_steps", "1"]
    train.main([*given, "--output_folder", str(tmp_path / "whole")])
    after_batch, steps = SpeakerBrain.on_fit_batch_end, []

    def stopped_in_the_second_epoch(self, *args):
        after_batch(self, *args)
        steps.append(self.step)
        if len(steps) == 7:  # an epoch has four steps; the checkpoint is that of the step before
            raise KeyboardInterrupt

    monkeypatch.setattr(SpeakerBrain, "on_fit_batch_end", stopped_in_the_second_epoch)
    with pytest.raises(SystemExit):
        train.main([*given, "--output_folder", str(tmp_path / "stopped")])
    train.main([*given, "--output_folder", str(tmp_path / "stopped")])
    assert steps == [1, 2, 3, 4, 1, 2, 3, 3, 4]
    curves = [pd.read_csv(tmp_path / name / "metrics.csv")[["train_loss", "eer"]] for name in ("whole", "stopped")]
    pd.testing.assert_frame_equal(*curves, rtol=1e-6)


@pytest.mark.slow
def test_two_processes_train_from_shards_of_their_own(packed, tmp_path):
    own = ["--corpus", "speaker_folders", "--data_folder", str(packed), "--output_folder", str(tmp_path)]
    command = [sys.executable, "train.py", TINY, *own, "--device", "cpu", "--processes", "2", "--shard_window", "2"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [1, 2]
