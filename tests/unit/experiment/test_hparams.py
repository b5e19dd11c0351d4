"""Hparams: variants over a base, command-line overrides, the table of keys, and what they refuse."""

import re
from pathlib import Path

import pytest
import speechbrain
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.features import MFCC, Fbank

from voice_biometrics.common.errors import InputError
from voice_biometrics.experiment.hparams import KEYS, RENAMED, check_arguments, read_command_line

SAID_BY_ITS_BASE = {"transfer_speechbrain"}
MAIN = "hparams/ecapa_small.yaml"
BEST = "hparams/ecapa_small_best.yaml"
BEST_10_MS = "hparams/ecapa_small_best_10ms.yaml"
ABLATIONS = sorted(Path("hparams/ablations").rglob("*.yaml"))
NUM_PARAMETERS = {  # where it is not that of the base; speeds make three classes of a speaker
    "ecapa_small": 1_329_114,
    "angular_prototypical": 1_096_603,
    "ecapa_small_best": 1_794_138,
    "ecapa_small_best_10ms": 1_182_114,
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
    "taught_ecapa_512": 6_891_584,
    "taught_one_speed": 1_329_114,
    "teacher_only": 1_096_602,
    "transfer_speechbrain": 21_000_064,
    "transformer": 1_324_520,
}


def expected_parameters(path: Path) -> int:
    """Return the number of parameters of a file, or else of its base."""
    if path.stem in NUM_PARAMETERS:
        return NUM_PARAMETERS[path.stem]
    return expected_parameters(path.parent / re.search(r"^base: (.*)$", path.read_text(), re.MULTILINE)[1])


def read(*arguments: str):
    return read_command_line(list(arguments), "usage")


def write_variant(folder: Path, text: str) -> str:
    path = folder / "variant.yaml"
    path.write_text(f"base: {Path(MAIN).resolve()}\n{text}")
    return str(path)


@pytest.mark.slow
def test_each_file_builds_says_only_a_few_things_and_has_its_number_of_parameters_with_1211_speakers():
    assert len(ABLATIONS) > 30
    for path in (Path(MAIN), Path(BEST), Path(BEST_10_MS), *ABLATIONS):
        run = read(str(path))
        hparams = run.build()
        modules = [hparams["embedding_model"]]
        if hparams["head_weight"]:
            modules.append(hparams["classifier"](out_neurons=1211 * len(hparams["speeds"])))
        found = sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
        assert found == expected_parameters(path), path
        said = re.search(r"([\d,]+) parameters with 1,211 speakers", path.read_text())
        own = path.stem in {*NUM_PARAMETERS} - SAID_BY_ITS_BASE
        assert (said is not None) == own and (not said or said[1] == f"{found:,}"), path
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert (
            path not in ABLATIONS
            or len(lines) <= (13 if path.stem != "untaught_best" else 23)
            and run.settings["name"] == path.stem
        ), path


def test_another_tag_replaces_a_node_and_an_untagged_mapping_changes_single_arguments():
    features = read("hparams/ablations/features/fbank.yaml").build()["compute_features"]
    assert isinstance(features, Fbank) and not isinstance(features, MFCC)
    wide = read("hparams/ablations/network/ecapa_512.yaml").build()["embedding_model"]
    assert wide.channels[0] == 512 and wide.fc.conv.out_channels == 192  # the latter is said by the base only


def test_a_variant_of_a_variant_keeps_both_changes_and_may_add_a_helper_key(tmp_path):
    write_variant(tmp_path, "my_lr: 0.5\nlr: !ref <my_lr>\nseed: 3\n")
    (tmp_path / "second.yaml").write_text("base: variant.yaml\nseed: 4\n")
    settings = read(str(tmp_path / "second.yaml")).settings
    assert (settings["lr"], settings["seed"], settings["name"]) == (0.5, 4, "second")


def test_overrides_reach_references_and_the_main_file_is_the_default():
    run = read("--seed", "7", "--corpus", "librispeech")
    assert run.hparams_file == Path(MAIN)
    assert run.settings["output_folder"] == "results/ecapa_small/librispeech/7"
    assert run.settings["save_folder"].endswith("/7/save")


def test_hparams_files_are_found_beside_the_script_when_it_is_called_from_another_folder(tmp_path, monkeypatch):
    expected, root = read(MAIN, "--seed", "7"), Path.cwd()
    monkeypatch.chdir(tmp_path)
    for run in (read("--seed", "7"), read(MAIN, "--seed", "7")):
        assert run.text == expected.text and run.arguments == [str(root / MAIN), "--seed", "7"]


def test_text_on_the_command_line_stays_text():
    for text in (
        "voices #2",
        "a=b: c",
        "007",
        "two words",
        "ünï{code}",
        "null",
        "",
        "[old] voices",
        "{x}",
        "!mine",
        "it's",
    ):
        for given in (["--data_folder", text], [f"--data_folder={text}"] if text else ["--data_folder", ""]):
            run = read(MAIN, *given)
            assert run.settings["data_folder"] == text
            assert load_hyperpyyaml("data_folder: elsewhere", run.overrides)["data_folder"] == text


def test_flags_may_have_a_value_and_lists_may_have_spaces():
    run = read("--noprogressbar", "True", "--debug", "false", "--tensorboard", "--speeds", "[0.9,", "1.0]")
    assert run.run_opts.noprogressbar and not run.run_opts.debug
    assert run.settings["tensorboard"] is True and run.settings["speeds"] == [0.9, 1.0]
    assert speechbrain.parse_arguments(check_arguments([MAIN, "--lr", "0.1"], ""))[2] == "lr: 0.1"


def test_a_bad_command_line_is_refused_naming_the_item():
    for arguments, found in (
        (["--corpsu", "librispeech"], "did you mean corpus"),
        (["--dev", "cpu"], "--dev"),  # argparse would swallow the abbreviation
        (["--seed", "1", "--seed", "2"], "--seed: given twice"),
        (["--num_speakers", "3"], "--num_speakers"),
        (["--crop_duration_s", "2"], "crop_duration_s.*sentence_len"),
        ([MAIN, "stray", "--seed", "1"], "^stray"),
        ([MAIN, "--seed", "1", "stray"], "^stray.*--seed"),
        (["--noprogressbar", "stray"], "stray"),
        (["--seed"], "--seed: expected a value"),
        (["hparams/none.yaml"], "none.yaml"),
        (["train.py"], "malformed|expected"),
    ):
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


def test_a_mistake_in_a_variant_is_refused_naming_the_key_or_argument(tmp_path):
    for text, found in (
        ("margn_rad: 0.3\n", "margn_rad.*did you mean margin_rad"),
        ("num_features: 40\n", "num_features.*n_mels"),
        ("embedding_model:\n    widht: 3\n", "widht"),
        ("compute_cost:\n    loss_fn: !new:voice_biometrics.training.losses.WarmUpMargin {margn: 1}\n", "margn"),
        ("compute_cost:\n    loss_fn: !new:voice_biometrics.training.losses.NoSuchLoss {}\n", "NoSuchLoss"),
    ):
        with pytest.raises(InputError, match=found):
            read(write_variant(tmp_path, text)).build()


def test_a_key_of_a_complete_file_is_in_the_table_or_referred_to(tmp_path):
    assert {line.split(":")[0] for line in Path(MAIN).read_text().splitlines() if line[:1].isalpha()} <= set(KEYS)
    assert not set(KEYS) & set(RENAMED) and set(KEYS.values()) == {"data", "model", "scoring", "free"}
    file = tmp_path / "mine.yaml"
    file.write_text(Path(MAIN).read_text() + "\nhelper: 3\n")
    with pytest.raises(InputError, match="helper"):
        read(str(file))
    file.write_text(file.read_text().replace("loss_scale: 30", "loss_scale: !ref <helper>"))
    assert read(str(file)).settings["loss_scale"] == 3


def test_every_key_of_the_main_file_is_read_by_the_code_or_by_the_file():
    text = Path(MAIN).read_text()
    places = ("voice_biometrics", "data_prep")
    sources = "".join(path.read_text() for place in places for path in Path(place).rglob("*.py"))
    sources = sources.partition("KEYS = {")[0] + sources.partition("RENAMED = {")[2]  # the table itself reads none
    sources += Path("train.py").read_text() + Path("eval_eer.py").read_text()
    run_options = {"find_unused_parameters", "ckpt_interval_minutes"}  # read by SpeechBrain's Brain
    for key in (line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()):
        used = f"<{key}>" in text or f'"{key}"' in sources or f"hparams.{key}" in sources or f"    {key}: " in sources
        assert used or key in run_options, key


def test_the_record_of_an_older_run_is_read_with_its_keys_renamed_and_newer_ones_at_their_default(tmp_path):
    record = tmp_path / "hyperparams.yaml"
    record.write_text("num_features: 40\nseed: 1\n")
    run = read(str(record))
    assert run.settings == read("--n_mels", "40", "--seed", "1").settings
    assert "!ref" not in run.text and "num_features" not in run.text
