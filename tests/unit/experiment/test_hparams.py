"""Hparams: variants over a base, command-line overrides, and what they refuse."""

import re
from pathlib import Path

import pytest
from speechbrain.lobes.features import MFCC, Fbank

from voice_biometrics.common.errors import InputError
from voice_biometrics.experiment.hparams import read_command_line

SAID_BY_ITS_BASE = {"transfer_speechbrain"}
MAIN = "hparams/ecapa_small.yaml"
BEST = "hparams/ecapa_small_best.yaml"
ABLATIONS = sorted(Path("hparams/ablations").rglob("*.yaml"))


def num_parameters(hparams: dict) -> int:
    modules = (hparams["embedding_model"], hparams["classifier"])
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def read(*arguments: str):
    return read_command_line(list(arguments), "usage")


NUM_PARAMETERS = {  # where it is not the 1,329,114 of ecapa_small.yaml
    "angular_prototypical": 1_096_603,
    "augment_all": 1_794_138,
    "augment_speed": 1_794_138,
    "ecapa_1024": 21_000_064,
    "ecapa_512": 6_426_560,
    "mean_std_pooling": 1_336_442,
    "no_aggregation": 1_341_360,
    "no_res2": 1_331_526,
    "no_squeeze_excitation": 1_338_918,
    "original": 1_329_039,
    "shared_attention": 1_336_805,
    "softmax_nll": 1_330_325,
    "sub_centre_top_k": 1_561_626,
    "transfer_speechbrain": 21_000_064,
    "transformer": 1_324_520,
}


@pytest.mark.parametrize("path", [Path(MAIN), Path(BEST), *ABLATIONS], ids=lambda path: path.stem)
def test_each_file_has_its_number_of_parameters_with_1211_speakers(path):
    expected = NUM_PARAMETERS.get(path.stem, 1_329_114)
    assert num_parameters(read(str(path)).build(1211)) == expected
    said = re.search(r"([\d,]+) parameters with 1,211 speakers", path.read_text())
    assert (said is not None) == (path in (Path(MAIN), Path(BEST)) or path.stem in {*NUM_PARAMETERS} - SAID_BY_ITS_BASE)
    assert said is None or said[1] == f"{expected:,}"


def test_the_speaker_count_stands_in_one_place_only():
    hparams = read(MAIN).build(7)
    assert hparams["classifier"].weight.shape == (7, 192)


def test_every_ablation_says_only_a_few_things_and_builds():
    assert ABLATIONS
    for path in ABLATIONS:
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert len(lines) <= 12, path
        run = read(str(path))
        assert run.settings["name"] == path.stem
        run.build(5)


def test_another_tag_replaces_a_node_whole():
    features = read("hparams/ablations/features/fbank.yaml").build(5)["compute_features"]
    assert isinstance(features, Fbank) and not isinstance(features, MFCC)


def test_an_untagged_mapping_changes_single_arguments():
    wide = read("hparams/ablations/network/ecapa_512.yaml").build(5)["embedding_model"]
    assert wide.channels[0] == 512
    assert wide.fc.conv.out_channels == 192  # said by the base only


def test_overrides_reach_references():
    settings = read(MAIN, "--seed", "7", "--corpus", "librispeech").settings
    assert settings["output_folder"] == "results/ecapa_small/librispeech/7"
    assert settings["save_folder"].endswith("/7/save")


def test_the_main_file_is_taken_when_none_is_named():
    assert read("--seed", "7").hparams_file == Path(MAIN)


@pytest.mark.parametrize(
    "arguments, found",
    [
        (["--corpsu", "librispeech"], "did you mean corpus"),
        (["--dev", "cpu"], "--dev"),  # argparse would swallow the abbreviation
        (["--seed", "1", "--seed", "2"], "--seed: given twice"),
        (["--num_speakers", "3"], "counted in the training manifest"),
        (["hparams/none.yaml"], "none.yaml"),
        (["train.py"], "malformed|expected"),
    ],
)
def test_a_bad_command_line_is_refused_naming_the_item(arguments, found):
    with pytest.raises(InputError, match=found):
        read(*arguments)


def test_help_fits_a_screen(capsys):
    import eval_eer
    import train

    for script in (train, eval_eer):
        with pytest.raises(SystemExit) as end:
            script.main(["--help"])
        printed = capsys.readouterr().out
        assert end.value.code == 0 and 5 < len(printed.splitlines()) <= 24


def write_variant(folder: Path, text: str) -> str:
    path = folder / "variant.yaml"
    path.write_text(f"base: {Path(MAIN).resolve()}\n{text}")
    return str(path)


def test_a_misspelt_key_of_a_variant_is_refused(tmp_path):
    with pytest.raises(InputError, match="margn_rad.*did you mean margin_rad"):
        read(write_variant(tmp_path, "margn_rad: 0.3\n"))


def test_a_new_key_that_a_variant_uses_is_fine(tmp_path):
    run = read(write_variant(tmp_path, "my_lr: 0.5\nlr: !ref <my_lr>\n"))
    assert run.settings["lr"] == 0.5


def test_an_argument_that_a_constructor_refuses_is_named(tmp_path):
    with pytest.raises(InputError, match="widht"):
        read(write_variant(tmp_path, "embedding_model:\n    widht: 3\n")).build(5)


@pytest.mark.parametrize("loss, found", [("WarmUpMargin {margn: 1}", "margn"), ("NoSuchLoss {}", "NoSuchLoss")])
def test_an_unknown_loss_and_an_unknown_key_of_one_are_named(tmp_path, loss, found):
    text = f"compute_cost:\n    loss_fn: !new:voice_biometrics.training.losses.{loss}\n"
    with pytest.raises(InputError, match=found):
        read(write_variant(tmp_path, text)).build(5)


def test_a_variant_of_a_variant_keeps_both_changes(tmp_path):
    write_variant(tmp_path, "lr: 0.5\nseed: 3\n")
    (tmp_path / "second.yaml").write_text("base: variant.yaml\nseed: 4\n")
    settings = read(str(tmp_path / "second.yaml")).settings
    assert (settings["lr"], settings["seed"], settings["name"]) == (0.5, 4, "second")


def test_every_key_of_the_main_file_is_read_by_the_code_or_by_the_file():
    text = Path(MAIN).read_text()
    sources = "".join(
        path.read_text() for place in ("voice_biometrics", "data_prep") for path in Path(place).rglob("*.py")
    )
    sources += Path("train.py").read_text() + Path("eval_eer.py").read_text()
    run_options = {"find_unused_parameters", "ckpt_interval_minutes"}  # read by SpeechBrain's Brain
    for key in (line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()):
        used = f"<{key}>" in text or f'"{key}"' in sources or f"hparams.{key}" in sources or f"    {key}: " in sources
        assert used or key in run_options, key


def test_an_old_name_is_refused_with_the_new_one_named_but_read_in_the_record_of_an_older_run(tmp_path):
    with pytest.raises(InputError, match="crop_duration_s.*sentence_len"):
        read(MAIN, "--crop_duration_s", "2")
    variant = tmp_path / "variant.yaml"
    variant.write_text(f"base: {Path(MAIN).resolve()}\nnum_features: 40\n")
    with pytest.raises(InputError, match="num_features.*n_mels"):
        read(str(variant))
    record = tmp_path / "hyperparams.yaml"
    record.write_text("num_features: 40\nseed: 1\n")
    assert read(str(record)).settings["n_mels"] == 40


def test_a_key_that_is_not_in_the_table_is_refused_unless_another_key_refers_to_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(Path(MAIN).read_text() + "\nhelper: 3\n")
    with pytest.raises(InputError, match="helper"):
        read(str(file))
    file.write_text(file.read_text().replace("loss_scale: 30", "loss_scale: !ref <helper>"))
    assert read(str(file)).settings["loss_scale"] == 3
