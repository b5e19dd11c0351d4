"""What makes a finished run stale: configuration, data and code, told by name; and what does not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from voice_biometrics.ablation import fingerprint
from voice_biometrics.ablation.fingerprint import Fingerprint, fingerprint_of
from voice_biometrics.experiment.hparams import read_command_line

TINY = "tests/hparams/tiny.yaml"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def manifests(tmp_path) -> Path:
    for name in fingerprint.MANIFESTS:
        (tmp_path / name).write_text(name)
    return tmp_path


def made(manifests: Path, *more: str, hparams: str = TINY, num_speakers: int = 4) -> Fingerprint:
    given = [hparams, "--output_folder", str(manifests / "run"), *more]
    return fingerprint_of(read_command_line(given, ""), num_speakers, manifests)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Fingerprint:
    """That of the tiny network as it is."""
    folder = tmp_path_factory.mktemp("plain")
    for name in fingerprint.MANIFESTS:
        (folder / name).write_text(name)
    return made(folder)


@pytest.fixture
def code(tmp_path, monkeypatch) -> Path:
    """A copy of the code, which a test may edit."""
    copy = tmp_path / "code"
    shutil.copytree(ROOT / "voice_biometrics", copy / "voice_biometrics", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", copy / "train.py")
    monkeypatch.setattr(fingerprint, "ROOT", copy)
    return copy


@pytest.mark.parametrize(
    "more, told",
    [
        (["--margin_rad", "0.3"], "margin_rad is 0.3, was 0.2"),
        (["--max_grad_norm", "1"], "--max_grad_norm is new"),
        (["--seed", "7"], "seed is 7, was 1986"),
    ],
)
def test_a_key_or_option_that_changes_training_is_told_with_its_values(manifests, plain, more, told):
    assert told in made(manifests, *more).differences(plain)


def test_another_class_with_the_same_arguments_is_told(manifests, plain, tmp_path):
    variant = tmp_path / "tiny.yaml"
    variant.write_text(f"base: {ROOT / TINY}\nopt_class: !name:torch.optim.AdamW\n    lr: !ref <lr>\n")
    assert made(manifests, hparams=str(variant)).differences(plain) == ["opt_class differs"]


@pytest.mark.parametrize(
    "more", [["--device", "cpu"], ["--num_workers", "2"], ["--data_folder", "elsewhere"], ["--noprogressbar"]]
)
def test_what_does_not_change_training_is_not_told(manifests, plain, more):
    assert made(manifests, *more).differences(plain) == []


def test_the_study_may_be_moved(manifests, plain):
    moved = fingerprint_of(read_command_line([TINY, "--output_folder", "elsewhere"], ""), 4, manifests)
    assert moved.differences(plain) == []


def test_a_comment_in_the_hparams_is_not_told(manifests, tmp_path):
    for folder, comment in (("a", ""), ("b", "  # some words")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.yaml").write_text(f"base: {ROOT / TINY}\nlr: 0.01{comment}\n")
    bare, commented = (made(manifests, hparams=str(tmp_path / folder / "v.yaml")) for folder in "ab")
    assert bare.config["lr"] == "0.01" and commented.differences(bare) == []


@pytest.mark.parametrize("name", fingerprint.MANIFESTS)
def test_a_changed_manifest_is_told(manifests, plain, name):
    (manifests / name).write_text("other")
    assert made(manifests).differences(plain) == [f"data: {name} differs"]


def test_another_number_of_speakers_is_told(manifests, plain):
    assert "num_speakers is 5, was 4" in made(manifests, num_speakers=5).differences(plain)


@pytest.mark.parametrize("more", [["--seed", "7"], ["--train_speakers", "0.5"], ["--crop_every_s", "2"]])
def test_a_recipe_is_the_same_for_other_seeds_and_other_speakers(manifests, plain, more):
    assert made(manifests, *more, num_speakers=5).recipe() == plain.recipe()


@pytest.mark.parametrize("more", [["--margin_rad", "0.3"], ["--augment_noise", "0.3"], ["--embedding_dim", "8"]])
def test_a_recipe_is_another_where_training_is(manifests, plain, more):
    assert made(manifests, *more).recipe() != plain.recipe()


def test_a_file_that_the_configuration_names_is_part_of_the_data(manifests, tmp_path):
    start = tmp_path / "start.ckpt"
    start.write_bytes(b"weights")
    before = made(manifests, "--trial_list", str(start))
    start.write_bytes(b"other weights")
    assert made(manifests, "--trial_list", str(start)).differences(before) == ["data: files of trial_list differs"]


def test_code_that_training_uses_is_told_by_file(manifests, code):
    before = made(manifests)
    brain = code / "voice_biometrics" / "training" / "brain.py"
    brain.write_text(brain.read_text() + "\nEXTRA = 1\n")
    assert made(manifests).differences(before) == ["code: voice_biometrics/training/brain.py differs"]


def test_comments_docstrings_and_code_that_training_does_not_use_void_nothing(manifests, code):
    before = made(manifests)
    assert {"train.py", "voice_biometrics/training/brain.py", "voice_biometrics/metrics/error_rates.py"} < set(
        before.code
    )
    brain = code / "voice_biometrics" / "training" / "brain.py"
    brain.write_text(brain.read_text().replace('"""', '"""Other words: ', 1) + "\n# the end\n")
    for unused in ("training/curves.py", "metrics/calibration.py", "models/original_ecapa.py", "ablation/results.py"):
        (code / "voice_biometrics" / unused).write_text("changed = True\n")
    (code / "README.md").write_text("changed")
    assert made(manifests).differences(before) == []


def test_code_that_only_the_hparams_name_is_told_for_the_variants_that_name_it(manifests, code):
    original = "hparams/ablations/network/original.yaml"
    before = made(manifests), made(manifests, hparams=original)
    (code / "voice_biometrics" / "models" / "original_ecapa.py").write_text("changed = True\n")
    assert made(manifests).differences(before[0]) == []
    told = made(manifests, hparams=original).differences(before[1])
    assert told == ["code: voice_biometrics/models/original_ecapa.py differs"]


def test_another_version_of_a_package_is_told(plain):
    now = replace(plain, code=plain.code | {"torch": "9.0"})
    assert now.differences(plain) == [f"torch is 9.0, was {plain.code['torch']}"]


def test_the_checksum_is_equal_only_for_equal_contents(manifests, plain):
    assert made(manifests).sha256() == plain.sha256() != made(manifests, "--lr", "0.5").sha256()
