"""Changes of configuration, data and code that make a finished run stale, by name; and those that do not."""

import shutil
from pathlib import Path

import pytest

from voice_biometrics.ablation import fingerprint
from voice_biometrics.ablation.fingerprint import checksum, differences, fingerprint_of, recipe_of
from voice_biometrics.experiment.hparams import read_command_line

TINY = "tests/hparams/tiny.yaml"
ROOT = Path(__file__).parents[3]


def write_manifests(folder: Path) -> Path:
    for name in fingerprint.MANIFESTS:
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def manifests(tmp_path) -> Path:
    return write_manifests(tmp_path)


def made(manifests: Path, *more: str, hparams: str = TINY) -> dict[str, str]:
    given = [hparams, "--output_folder", str(manifests / "run"), *more]
    return fingerprint_of(read_command_line(given, ""), manifests)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, str]:
    """The fingerprint of the tiny network without overrides."""
    return made(write_manifests(tmp_path_factory.mktemp("plain")))


def test_a_key_or_option_that_changes_training_is_named_with_its_values(manifests, plain):
    for more, change in (
        (["--margin_rad", "0.3"], "margin_rad is 0.3, was 0.2"),
        (["--max_grad_norm", "1"], "--max_grad_norm is new"),
        (["--seed", "7"], "seed is 7, was 1986"),
    ):
        assert change in differences(plain, made(manifests, *more))
        assert checksum(made(manifests, *more)) != checksum(plain)


def test_another_class_with_the_same_arguments_is_a_change(manifests, plain, tmp_path):
    variant = tmp_path / "tiny.yaml"
    variant.write_text(f"base: {ROOT / TINY}\nopt_class: !name:torch.optim.AdamW\n    lr: !ref <lr>\n")
    assert differences(plain, made(manifests, hparams=str(variant))) == ["opt_class differs"]


def test_free_and_scoring_keys_comments_and_another_place_are_no_change(manifests, plain, tmp_path):
    variant = tmp_path / "commented.yaml"
    variant.write_text(f"base: {ROOT / TINY}\nlr: {plain['lr']}  # some words\n")
    free = "--device cpu --num_workers 2 --data_folder elsewhere --noprogressbar --segment_s 2".split()
    assert differences(plain, made(manifests, *free, hparams=str(variant))) == []
    moved = fingerprint_of(read_command_line([TINY, "--output_folder", "elsewhere"], ""), manifests)
    assert differences(plain, moved) == [] and checksum(moved) == checksum(plain)


def test_changed_manifests_named_files_are_named(manifests, tmp_path):
    start = tmp_path / "start.ckpt"
    start.write_bytes(b"weights")
    before = made(manifests, "--trial_list", str(start))
    start.write_bytes(b"other weights")
    for name in fingerprint.MANIFESTS:
        (manifests / name).write_text("other")
    changes = differences(before, made(manifests, "--trial_list", str(start)))
    assert [text for text in changes if text.startswith("data: ")] == [
        *(f"data: {name} differs" for name in fingerprint.MANIFESTS),
        "data: files of trial_list differs",
    ]


def test_changed_training_code_is_named_by_file_and_comments_and_other_code_are_no_change(manifests, monkeypatch):
    code = manifests / "code"
    shutil.copytree(ROOT / "voice_biometrics", code / "voice_biometrics", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", code / "train.py")
    monkeypatch.setattr(fingerprint, "ROOT", code)
    before = made(manifests)
    brain = code / "voice_biometrics" / "training" / "brain.py"
    brain.write_text(brain.read_text() + "\n\n# a comment\n")
    (code / "voice_biometrics" / "ablation" / "results.py").write_text("changed = True\n")
    assert differences(before, made(manifests)) == []
    changed = (
        "train.py",
        *(f"voice_biometrics/{name}.py" for name in ("models/heads", "training/brain", "common/audio")),
    )
    for name in changed:
        with open(code / name, "a") as file:
            file.write("\nEXTRA = 1\n")
    assert differences(before, made(manifests)) == [f"code: {name} differs" for name in changed]


def test_other_versions_of_packages_and_of_the_fingerprint_are_named(plain):
    assert differences(plain, plain | {"code: torch": "9.0"}) == [f"code: torch is 9.0, was {plain['code: torch']}"]
    old = {"config": {}, "data": {}, "code": {}}
    (change,) = differences(old, plain)
    assert "another version" in change


def test_a_recipe_ignores_seed_and_speakers_only(manifests, plain):
    for more in (["--seed", "7"], ["--train_speakers", "0.5"], ["--crop_every_s", "2"]):
        assert recipe_of(made(manifests, *more)) == recipe_of(plain)
    for more in (
        ["--margin_rad", "0.3"],
        ["--train_utterances", "1"],
        ["--augment_noise", "0.3"],
        ["--embedding_dim", "8"],
    ):
        assert recipe_of(made(manifests, *more)) != recipe_of(plain)
