"""Parts of embeddings: the same in any number of shards, whole or missing, of one model and one manifest."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import embed
import eval_eer
from data_prep.prepare import prepare
from data_prep.settings import Settings
from tests.conftest import write_speakers
from tests.model_folders import write_toy_model_folder
from tests.run_folders import write_run_folder
from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import make_trials
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.scoring import embedding_parts
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.embedding_parts import read_parts, shard_named

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(embedding_parts, "ROWS_PER_PART", 5)


@pytest.fixture
def manifest(speakers, tmp_path) -> Path:
    """24 utterances of 6 speakers."""
    prepare(Settings("speaker_folders", str(speakers), valid_speakers=0), tmp_path / "manifests")
    return tmp_path / "manifests" / "train.csv"


@pytest.fixture
def model(tmp_path) -> Path:
    return write_toy_model_folder(tmp_path / "model")


def run(model: Path, manifest: Path, *more: str) -> tuple[int, int]:
    corpus = ["--data_folder", str(manifest.parents[1] / "speakers")]
    return embed.embed_shard(embed.parse_options([str(model), "--manifest", str(manifest), *corpus, *more]))


def test_shards_together_give_the_embedding_of_each_utterance(model, manifest, tmp_path):
    for share in ("2/3", "1/3", "3/3"):
        run(model, manifest, "--output", str(tmp_path / "e"), "--shard", share)
    utterances, embeddings = read_parts(tmp_path / "e")
    expected = pd.read_csv(manifest)
    assert utterances.to_dict("list") == expected[["ID", "spk_id", "duration"]].to_dict("list")
    embedder = Embedder(read_model_folder(model))
    for row in (0, 5, 23):
        wav = expected["wav"][row].replace("$data_root", str(tmp_path / "speakers"))
        np.testing.assert_array_equal(embeddings[row], embedder(read_audio(wav, 16000)))


def test_only_missing_parts_are_written_whatever_the_shards(model, manifest, tmp_path):
    folder = tmp_path / "e"
    assert run(model, manifest, "--output", str(folder)) == (5, 0)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (folder / "part-000003.parquet").unlink()
    (folder / ".part-000003.77.parquet").write_bytes(b"half a part")  # left by a kill
    with pytest.raises(InputError, match=r"expected 24 utterances, found 19"):
        read_parts(folder)
    assert run(model, manifest, "--output", str(folder), "--shard", "2/2") == (1, 1)
    assert {path: path.read_bytes() for path in folder.glob("part*")} == before


def test_more_parts_are_read_than_files_may_be_open(model, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_parts, "ROWS_PER_PART", 1)
    assert run(model, manifest, "--output", str(tmp_path / "e")) == (24, 0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))  # one part at a time
    try:
        for _ in range(20):  # a reader that closes late does so now and then
            assert len(read_parts(tmp_path / "e")[0]) == 24
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_parts_of_another_model_or_manifest_are_refused_by_name(model, manifest, tmp_path):
    output = ("--output", str(tmp_path / "e"))
    run(model, manifest, *output)
    with pytest.raises(InputError, match=r"part-000000.parquet: made with another model"):
        run(model, manifest, *output, "--precision", "int8")
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:7], lines[8], lines[7], *lines[9:]]))
    with pytest.raises(InputError, match=r"part-000001.parquet: made with another manifest"):
        run(model, manifest, *output)
    (tmp_path / "e" / "part-000000.parquet").write_bytes(b"no Parquet")
    with pytest.raises(InputError, match=r"part-000000.parquet: expected a Parquet file"):
        run(model, manifest, *output)


def test_a_part_that_is_damaged_or_of_another_program_is_told_by_name(model, manifest, tmp_path):
    run(model, manifest, "--output", str(tmp_path / "e"))
    part = tmp_path / "e" / "part-000002.parquet"
    whole = part.read_bytes()
    for content in (whole[:500], whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :]):
        part.write_bytes(content)  # cut off; the end is there, but not what it points to
        with pytest.raises(InputError, match=r"part-000002.parquet: expected a Parquet file of embed.py: .*; remove"):
            read_parts(tmp_path / "e")
    pd.DataFrame({"ID": ["a"]}).to_parquet(part)
    with pytest.raises(InputError, match=r"part-000002.parquet: expected .* found another one"):
        read_parts(tmp_path / "e")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        shard_named(text)


def test_a_fault_names_its_file_and_leaves_no_half_part(model, manifest, tmp_path):
    (tmp_path / "speakers" / "spk1" / "utt2.wav").write_bytes(b"")
    with pytest.raises(InputError, match="spk1/utt2.wav"):
        run(model, manifest, "--output", str(tmp_path / "e"))
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["part-000000.parquet"]
    with pytest.raises(InputError, match=r"\$data_root is not a known root"):
        embed.embed_shard(embed.parse_options([str(model), "--manifest", str(manifest)]))


def test_a_run_folder_gives_its_own_embeddings(tmp_path):
    corpus = write_speakers(tmp_path / "speakers", 4, 3)
    folder = write_run_folder(tmp_path / "run", corpus, num_held_out=2)
    manifest, output = folder / "manifests" / "valid.csv", tmp_path / "e"
    embed.main([str(folder), "--manifest", str(manifest), "--output", str(output)])
    trained = TrainedRun(folder)
    expected = trained.embed(trained.utterances(manifest))
    np.testing.assert_allclose(read_parts(output)[1], expected, rtol=1e-4, atol=1e-5)


def test_a_model_folder_needs_no_pytorch(model, manifest, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['speechbrain'] = None; import embed\n"
        f"embed.main([{str(model)!r}, '--manifest', {str(manifest)!r}, '--data_folder', {str(tmp_path / 'speakers')!r},"
        f"'--output', {str(tmp_path / 'e')!r}])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert len(read_parts(tmp_path / "e")[0]) == 24


def test_all_pairs_of_parts_have_the_error_rates_of_their_scores(model, manifest, tmp_path, capsys):
    run(model, manifest, "--output", str(tmp_path / "e"))
    eval_eer.main(["--embeddings", str(tmp_path / "e"), "--custom", "0.1,1,2"])
    found = json.loads((tmp_path / "e_eval" / "metrics.json").read_text())
    utterances, embeddings = read_parts(tmp_path / "e")
    trials = make_trials(utterances, None, seed=0)
    scores = score_trials(embeddings, pd.Index(utterances["ID"]), trials)
    exact = error_rates(scores["score"].to_numpy(), scores["target"].to_numpy())
    assert (found["num_target"], found["num_nontarget"]) == (exact.num_target, exact.num_nontarget) == (36, 240)
    assert found["eer_bounds"][0] <= exact.equal_error_rate()[0] <= found["eer_bounds"][1]
    assert [entry["p_target"] for entry in found["min_dcf"]] == [0.01, 0.05, 0.1]
    assert pd.read_csv(tmp_path / "e_eval" / "det.csv").columns.tolist() == ["threshold", "far", "frr"]
    assert (tmp_path / "e_eval" / "det.png").stat().st_size > 10_000
    with pytest.raises(SystemExit) as stop:
        eval_eer.main(["--embeddings", str(tmp_path / "e"), "--enrol_with", "3"])
    assert stop.value.code == 2 and "--enrol_with does not go with --embeddings" in capsys.readouterr().err


def test_listed_trials_of_parts_have_the_error_rates_of_their_scores(model, manifest, tmp_path, capsys):
    run(model, manifest, "--output", str(tmp_path / "e"))
    utterances, embeddings = read_parts(tmp_path / "e")
    some = make_trials(utterances.iloc[3:20], 60, seed=0)
    some.to_csv(tmp_path / "some.csv", index=False)
    eval_eer.main(["--embeddings", str(tmp_path / "e"), "--test_trials", str(tmp_path / "some.csv")])
    folder = tmp_path / "e_eval" / "some"
    found, scores = json.loads((folder / "metrics.json").read_text()), pd.read_csv(folder / "scores.csv")
    expected = score_trials(embeddings, pd.Index(utterances["ID"]), some)
    pd.testing.assert_frame_equal(scores, expected, check_dtype=False)
    assert found["eer"] == error_rates(expected["score"].to_numpy(), expected["target"] == 1).equal_error_rate()[0]
    assert len(found["interval"]) == 2 and found["num_speakers"] == utterances.iloc[3:20]["spk_id"].nunique()
    assert "export.py" not in capsys.readouterr().out
    some.assign(test_id=["unknown", *some["test_id"][1:]]).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(SystemExit):
        eval_eer.main(["--embeddings", str(tmp_path / "e"), "--test_trials", str(tmp_path / "other.csv")])
    assert "other.csv, line 2: utterance unknown is not among the 24 utterances" in capsys.readouterr().err
