"""Training with a teacher: its embeddings of the training utterances, and the loss that pulls the student to them.

``teacher.npz`` holds ``utterances`` (IDs of the manifest, sorted), their ``cuts`` (``cut_digest``), ``speeds``,
``embeddings`` (speeds, utterances, dims) float32 and ``teacher`` (name and checksum); ``training.teachers`` writes it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.manifest import cut_digest

ADVICE = "give --teacher to embed the training part"
MOST_OTHERS = 2**16  # targets that a crop is compared with: 32 MB of cosines in a batch of 128


@dataclass
class TeacherEmbeddings:
    """The contents of a teacher file."""

    utterances: list[str]  # sorted
    cuts: list[str]
    speeds: list[float]
    embeddings: np.ndarray  # (speeds, utterances, dims) float32
    teacher: str

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                utterances=np.array(self.utterances),
                cuts=np.array(self.cuts),
                speeds=np.array(self.speeds),
                embeddings=self.embeddings.astype(np.float32),
                teacher=np.array(self.teacher),
            )

    @classmethod
    def read(cls, path: Path) -> "TeacherEmbeddings":
        """Read a file that ``write`` wrote; InputError when it is missing or not such a file."""
        if not path.is_file():
            raise InputError(f"{path}: the teacher's embeddings are missing; {ADVICE}")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(
                    arrays["utterances"].tolist(),
                    arrays["cuts"].tolist(),
                    arrays["speeds"].tolist(),
                    arrays["embeddings"],
                    str(arrays["teacher"]),
                )
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{path}: expected a teacher's embeddings: {error}; {ADVICE}") from error
        expected = (len(found.speeds), len(found.utterances))
        if found.embeddings.ndim != 3 or found.embeddings.shape[:2] != expected:
            raise InputError(f"{path}: expected {expected} embeddings, found {found.embeddings.shape}; {ADVICE}")
        return found

    def lacks(self, rows: Mapping[str, Mapping], speeds: Sequence[float]) -> str:
        """Return in words what is missing for manifest rows by ID at some speeds, empty if nothing is."""
        known = dict(zip(self.utterances, self.cuts, strict=True))
        missing = sorted(utt_id for utt_id, row in rows.items() if known.get(utt_id) != cut_digest(row))
        if missing:
            return f"the training manifest has {missing[0]} and {len(missing) - 1} more, or other cuts of them"
        others = [speed for speed in speeds if speed not in self.speeds]
        return f"expected the speeds {list(speeds)}, found {self.speeds}" if others else ""


class TeacherTargets:
    """Unit-length, centred teacher embeddings, one for each training utterance at each speed.

    The mean over all utterances and speeds is subtracted before the length is set to 1: a teacher's embeddings share a
    large common part, which says nothing about the speaker.

    Arguments
    ---------
    path: written by ``TeacherEmbeddings.write``; it may have more utterances and speeds.
    rows: of the training manifest, by utterance ID, ``wav`` still beginning with ``$data_root``.
    speeds: those of the augmentation.

    Attributes
    ----------
    embeddings: (targets, dims) float32, the utterances at the first speed, then at the second, ...
    speakers: (targets,) numbers; a speaker at another speed is another one.

    Raises
    ------
    InputError: the file is missing or malformed, lacks an utterance, a cut or a speed, or an embedding is not finite.
    """

    def __init__(self, path: Path, rows: Mapping[str, Mapping], speeds: Sequence[float]) -> None:
        found = TeacherEmbeddings.read(path)
        if lacking := found.lacks(rows, speeds):
            raise InputError(f"{path}: the embeddings do not fit: {lacking}; {ADVICE}")
        number_of = {utt_id: number for number, utt_id in enumerate(found.utterances)}
        chosen = np.ix_([found.speeds.index(speed) for speed in speeds], [number_of[utt_id] for utt_id in rows])
        embeddings = found.embeddings[chosen]
        if not np.isfinite(embeddings).all():
            bad = list(rows)[int(np.argmin(np.isfinite(embeddings).all(axis=(0, 2))))]
            raise InputError(f"{path}: the embedding of {bad} is not finite; {ADVICE}")
        self.number_of = {utt_id: number for number, utt_id in enumerate(rows)}
        centred = embeddings - embeddings.mean(axis=(0, 1))
        lengths = np.linalg.norm(centred, axis=2, keepdims=True)
        self.embeddings = torch.from_numpy(centred / np.maximum(lengths, 1e-12)).float().flatten(0, 1)
        names = [(speed, row["spk_id"]) for speed in speeds for row in rows.values()]
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        self.speakers = torch.tensor([numbers[name] for name in names])

    def places(self, utterances: Sequence[str], speed_numbers: Sequence[int]) -> Tensor:
        """Return the places (utterances,) of the targets of utterances, each at one of the speeds."""
        numbers = torch.tensor([self.number_of[utt_id] for utt_id in utterances])
        return torch.as_tensor(speed_numbers) * len(self.number_of) + numbers


class TeacherLoss(nn.Module):
    """Cosine distance to the teacher, and recognition of the right teacher embedding among those of all utterances.

    The contrastive term is a cross entropy over cosines times ``scale``: each crop must be nearer to the teacher's
    embedding of the utterance it was cut from than to those of other speakers' training utterances: of all, or of
    MOST_OTHERS drawn for each batch if there are more. Where ``student_dims`` and ``teacher_dims`` differ, a linear map
    that is trained with the student, and not needed after training, turns one into the other; it must be among the
    trained modules. Raises InputError if a weight is negative, or the scale is not above 0.

    Source: the cross entropy is InfoNCE, van den Oord et al., 2018, arXiv 1807.03748, equation 4, with the teacher's
    embeddings as keys.
    """

    def __init__(
        self,
        cosine_weight: float = 1.0,
        contrastive_weight: float = 1.0,
        scale: float = 20.0,
        student_dims: int = 192,
        teacher_dims: int = 192,
    ) -> None:
        super().__init__()
        if min(cosine_weight, contrastive_weight) < 0 or scale <= 0:
            raise InputError(
                "teacher loss: expected weights of 0 or more and a scale above 0, found cosine_weight "
                f"{cosine_weight}, contrastive_weight {contrastive_weight}, scale {scale}"
            )
        self.cosine_weight, self.contrastive_weight, self.scale = cosine_weight, contrastive_weight, scale
        same = student_dims == teacher_dims
        self.map = nn.Identity() if same else nn.Linear(student_dims, teacher_dims, bias=False)
        self.teacher_dims = teacher_dims

    def use(self, targets: Tensor, speakers: Tensor, find_places: Callable[[Sequence[str]], Tensor]) -> None:
        """Take the teacher's embeddings.

        Arguments
        ---------
        targets: (targets, teacher_dims), centred and of unit length.
        speakers: (targets,) numbers.
        find_places: from the IDs of crops to the places of their targets (crops,).

        Raises InputError if the targets have another size than was stated.
        """
        if targets.shape[1] != self.teacher_dims:
            raise InputError(
                f"teacher loss: expected embeddings of {self.teacher_dims} dims, found {targets.shape[1]}; give "
                "teacher_dims"
            )
        self.targets, self.speakers, self.find_places = targets, speakers, find_places  # no buffers: DDP sends those

    def forward(self, embeddings: Tensor, speakers: Tensor, crop_ids: Sequence[str]) -> Tensor:
        """Return the weighted mean loss of a batch of the student's embeddings (crops, 1, dims)."""
        self.targets, self.speakers = self.targets.to(embeddings.device), self.speakers.to(embeddings.device)
        places = self.find_places(crop_ids).to(embeddings.device)
        students = normalize(self.map(embeddings.squeeze(1).float()), dim=1)
        own = (students * self.targets[places]).sum(dim=1)  # cosines (crops,)
        loss = self.cosine_weight * (1 - own.mean())
        if self.contrastive_weight:
            others = self._others(places)
            same_speaker = self.speakers[places, None] == self.speakers[others]
            cosines = (students @ self.targets[others].T).masked_fill(same_speaker, -torch.inf)  # (crops, others)
            logits = self.scale * torch.cat([own[:, None], cosines], dim=1)
            loss = loss + self.contrastive_weight * cross_entropy(logits, torch.zeros_like(places))
        return loss

    def _others(self, places: Tensor) -> slice | Tensor:
        """Return the targets to compare with; a draw depends on the batch only, so a resumed run repeats it."""
        if len(self.targets) <= MOST_OTHERS:
            return slice(None)
        generator = torch.Generator().manual_seed(int(places.sum()))
        return torch.randint(len(self.targets), (MOST_OTHERS,), generator=generator).to(places.device)
