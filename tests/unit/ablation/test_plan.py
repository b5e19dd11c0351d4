"""Reading the command line of a study."""

from pathlib import Path

import pytest

import run_ablations
from tests.conftest import write_speakers
from voice_biometrics.ablation.plan import split_overrides

ROOT = Path(__file__).parents[3]


def test_overrides_are_for_all_variants_or_for_one():
    rest = ["--lr", "0.1", "--b.seeds", "3", "4", "--b.lr", "0.2", "--a.margin_rad=0.3", "--noprogressbar"]
    overrides, seeds = split_overrides(rest, ["a", "b"])
    assert overrides["a"] == ["--lr", "0.1", "--noprogressbar", "--margin_rad", "0.3"]
    assert overrides["b"] == ["--lr", "0.2", "--noprogressbar"]
    assert seeds == {"b": ["3", "4"]}


def test_seeds_of_one_variant_and_the_order_of_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = ["fbank", "--seeds", "1", "--fbank.seeds", "1", "2", "--jobs", "2", "--lr", "0.1"]
    options, request = run_ablations.read_request(given)
    assert request.runs() == [("ecapa_small", 1), ("fbank", 1), ("fbank", 2)] and options.jobs == 2
    assert request.base == "ecapa_small" and request.overrides["fbank"] == ["--lr", "0.1"]


def test_bad_input_is_refused_by_name(tmp_path, monkeypatch, capsys):
    for given, named in (
        (["fbnak", "--seeds", "1"], "did you mean fbank?"),
        (["nowhere.yaml", "--seeds", "1"], "nowhere.yaml: not found"),
        (["fbank", "fbank", "--seeds", "1"], "fbank: named twice"),
        (["fbank"], "no seeds"),
        (["fbank", "--seeds", "1", "1"], "--seeds 1 1"),
        (["fbank", "--seeds", "1", "--fbank.seeds", "one"], "--seeds one"),
        (["fbank", "--seeds", "1", "--fbnk.lr", "0.1"], "fbnk is no variant"),
        (["fbank", "--seeds", "1", "--lr", "0.1", "--lr", "0.2"], "--lr: given twice"),
        (["fbank", "--seeds", "1", "--seed", "3"], "use --seeds"),
        (["fbank", "--seeds", "1", "--devices", "cpu", "--device", "cpu"], "--device and --devices"),
        (["fbank", "--seeds", "1", "--jobs", "0"], "--jobs 0"),
        (["fbank", "--seeds", "1", "--valid_speakers", "0"], "--valid_speakers"),
        (["fbank", "--seeds", "1", "--fbank.split_seed", "1"], "variant fbank"),
    ):
        monkeypatch.chdir(ROOT)
        write_speakers(tmp_path / "corpus", num_speakers=5, num_utterances=2, duration_s=0.1)
        own = ["--base", "tests/hparams/tiny.yaml", "--corpus", "speaker_folders"]
        folders = ["--data_folder", str(tmp_path / "corpus"), "--output_folder", str(tmp_path / "study")]
        with pytest.raises(SystemExit) as end:
            run_ablations.main([*given, *own, *folders])
        assert end.value.code == 2 and named in capsys.readouterr().err


def test_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit) as end:
        run_ablations.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and len(lines) <= 24 and max(map(len, lines)) <= 120
