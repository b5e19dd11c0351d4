"""Write the model folder of a trained run: complete, or not at all.

It includes ``speechbrain/``, the layout that SpeechBrain's ``SpeakerRecognition.from_hparams(source=...)`` loads:
``hyperparams.yaml`` (the modules as they were trained) and ``embedding_model.ckpt`` (their weights). SpeechBrain runs
the hparams file as a program.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from safetensors.torch import save as safetensors_bytes

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import write_json
from voice_biometrics.evaluation.conditions import conditions_named
from voice_biometrics.evaluation.evaluate import Evaluation, judge, with_llrs
from voice_biometrics.evaluation.groups import measure_groups
from voice_biometrics.evaluation.trained_run import WEIGHTS, TrainedRun
from voice_biometrics.experiment.hparams import as_yaml
from voice_biometrics.export.calibration import (
    ExportedRun,
    calibration_entry,
    check_calibration_runs,
    measure,
    score_held_out,
)
from voice_biometrics.export.model_card import CardFacts, weights_metadata, write_card
from voice_biometrics.export.onnx_export import (
    ENGINE_INPUT,
    engine_metadata,
    export_onnx,
    write_metadata,
)
from voice_biometrics.export.quantise import SCHEME, quantise
from voice_biometrics.export.whitening import whiten
from voice_biometrics.inference.embedder import Embedder, OnnxEmbedder, onnx_metadata
from voice_biometrics.inference.model_folder import (
    CALIBRATION_NAME,
    CARD_NAME,
    ENGINE_NAME,
    FORMAT,
    ONNX_NAMES,
    SPEECHBRAIN_NAME,
    SUMS_NAME,
    WEIGHTS_NAME,
    ModelFolder,
    read_model_folder,
    write_sums,
)
from voice_biometrics.models.kaldi_mfcc import KaldiLogMel
from voice_biometrics.scoring.embeddings import MIN_DURATION_S, embed

MIN_COSINE = 0.99999  # of an ONNX embedding to the run's
NUM_COMPARED = 30  # utterances, from the shortest to the longest
CARD_CONDITIONS = ("channel", "noise:10", "telephone", "short:1,2")
logger = logging.getLogger(__name__)

SPEECHBRAIN_HEADER = """\
# {name} {version}, for SpeechBrain:
#   from speechbrain.inference.speaker import SpeakerRecognition
#   model = SpeakerRecognition.from_hparams(source="<this folder>", savedir="<this folder>")
#   model.verify_files("a.wav", "b.wav")
# Its score is the cosine that ../calibration.json calibrates (fp32); ignore its threshold of 0.25. Classes of
# voice_biometrics, if any are named below, need this project on PYTHONPATH.

sample_rate: {sample_rate}
"""
SPEECHBRAIN_FOOTER = f"""
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        {WEIGHTS}: !ref <{WEIGHTS}>
"""


def write_model_folder(
    run: TrainedRun, others: Sequence[TrainedRun], destination: Path, version: str, whitened: float = 0.0
) -> ModelFolder:
    """Export a run to a model folder; an existing one is replaced when the new one is complete.

    Arguments
    ---------
    run : the run to export.
    others : runs of the same hparams whose held-out speakers calibrate it; empty: its own held-out speakers do.
    destination : the model folder.
    version : of the model.
    whitened : the share that ``whiten`` folds into the networks of all runs.

    Raises
    ------
    InputError : a module is not supported, no speakers were held out, another run was trained differently, the ONNX
        embeddings differ from the run's, or ``destination`` is not a model folder.
    """
    check_calibration_runs(run, others)  # first, because the rest takes minutes
    if not others:
        run.held_out()
    if destination.exists() and not (destination / SUMS_NAME).is_file():
        raise InputError(f"{destination}: exists and is not a model folder; choose another --model_folder")
    if whitened:
        for each in (run, *others):
            whiten(each, whitened)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as scratch:
        folder = Path(scratch) / "model"
        own = ExportedRun(run, make_embedders(run, folder))
        sources = [ExportedRun(other, make_embedders(other, Path(scratch) / f"{i}")) for i, other in enumerate(others)]
        for source in (own, *sources):
            check_parity(source.run, source.embedders["fp32"])
        write_engine_file(run, folder / ENGINE_NAME)
        fill(folder, run, sources or [own], version)
        model = read_model_folder(folder)
        for precision in ONNX_NAMES:
            Embedder(model, precision)  # fails if the file cannot be loaded
        if destination.exists():
            os.replace(destination, Path(scratch) / "before")
        os.replace(folder, destination)
    return read_model_folder(destination)


def make_embedders(run: TrainedRun, folder: Path) -> dict[str, OnnxEmbedder]:
    """Write the ONNX files of a run, without metadata, to a new folder and load them."""
    folder.mkdir()
    export_onnx(run.modules, run.dims, folder / ONNX_NAMES["fp32"])
    quantise(folder / ONNX_NAMES["fp32"], folder / ONNX_NAMES["int8"])
    return {
        precision: OnnxEmbedder((folder / name).read_bytes(), name, run.sample_rate, MIN_DURATION_S)
        for precision, name in ONNX_NAMES.items()
    }


def write_engine_file(run: TrainedRun, path: Path) -> None:
    """Write the ONNX file for engines that compute the features; log why not, if they do not compute the run's.

    Raises InputError as ``check_parity``.
    """
    try:
        export_onnx(run.modules, run.dims, path, for_engines=True)
    except InputError as error:
        logger.warning("no %s: %s", path.name, error)
        return
    session, log_mels = onnxruntime.InferenceSession(path), KaldiLogMel(sample_rate=run.sample_rate)

    def embed_log_mels(samples: np.ndarray) -> np.ndarray:
        return session.run(None, {ENGINE_INPUT: log_mels(torch.from_numpy(samples)[None]).numpy()})[0][0]

    check_parity(run, embed_log_mels)


def check_parity(run: TrainedRun, embed_samples: Callable[[np.ndarray], np.ndarray]) -> None:
    """Raise InputError when an exported fp32 embedding of a training utterance differs from the run's by cosine."""
    min_samples = round(MIN_DURATION_S * run.sample_rate)
    manifest = run.utterances(run.manifests / "train.csv").sort_values("duration")
    chosen = manifest.iloc[np.unique(np.linspace(0, len(manifest) - 1, NUM_COMPARED).astype(int))]
    cosines = []
    for wav, start, stop in zip(chosen["wav"], chosen["start"], chosen["stop"], strict=True):
        samples = read_audio(wav, run.sample_rate, start, stop)
        samples = np.resize(samples, max(samples.size, min_samples))
        both = [embed(run.modules, torch.from_numpy(samples)[None])[0], embed_samples(samples)]
        pair = np.stack(both).astype(np.float64)
        cosines.append(pair[0] @ pair[1] / np.linalg.norm(pair, axis=1).prod())
    if not min(cosines) >= MIN_COSINE:
        raise InputError(
            f"{run.folder}: the ONNX embeddings differ from the run's (cosine {min(cosines):.6f}, expected "
            f"{MIN_COSINE} or more): the export does not support this network"
        )


def fill(folder: Path, run: TrainedRun, sources: Sequence[ExportedRun], version: str) -> None:
    """Write all other files of the model folder beside the two ONNX files."""
    by_precision = {precision: measure(score_held_out(sources, precision)) for precision in ONNX_NAMES}
    held_out, digests = describe_held_out(run, sources), fingerprints(run)
    for precision, name in ONNX_NAMES.items():
        metadata = onnx_metadata(run.settings["name"], version, run.sample_rate, digests[precision])
        write_metadata(folder / name, metadata)
        if precision == "fp32" and (folder / ENGINE_NAME).is_file():
            write_metadata(folder / ENGINE_NAME, metadata | engine_metadata(run.sample_rate, run.dims))
    write_json(_calibration(run, version, held_out, by_precision, digests), folder / CALIBRATION_NAME)
    write_speechbrain_layout(run, folder / SPEECHBRAIN_NAME, version)
    tensors = {name: tensor.contiguous() for name, tensor in run.modules[WEIGHTS].state_dict().items()}
    (folder / WEIGHTS_NAME).write_bytes(safetensors_bytes(tensors, weights_metadata(run, version, digests["fp32"])))
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*.*"))}
    others = [source.run for source in sources if source.run is not run]
    further = _further_results(sources, by_precision["fp32"])
    facts = CardFacts(run, others, version, held_out, by_precision, sizes=sizes, **further)
    (folder / CARD_NAME).write_text(write_card(facts), encoding="utf-8")
    write_sums(folder)


def fingerprints(run: TrainedRun) -> dict[str, str]:
    """Return the fingerprint of each precision; they differ because int8 scores have another scale."""
    exact = run.fingerprint()
    return {"fp32": exact, "int8": hashlib.sha256(f"{exact} {SCHEME}".encode()).hexdigest()}


def write_speechbrain_layout(run: TrainedRun, folder: Path, version: str) -> None:
    """Write the two files of SpeechBrain's layout to a new folder."""
    folder.mkdir()
    header = SPEECHBRAIN_HEADER.format(name=run.settings["name"], version=version, sample_rate=run.sample_rate)
    text = header + as_yaml(run.nodes).rstrip() + "\n" + SPEECHBRAIN_FOOTER
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    torch.save(run.modules[WEIGHTS].state_dict(), folder / f"{WEIGHTS}.ckpt")


def describe_held_out(run: TrainedRun, sources: Sequence[ExportedRun]) -> str:
    """Return a description of the speakers that the model was measured on."""
    runs = [source.run for source in sources]
    speakers = pd.concat([other.held_out().manifest["spk_id"].drop_duplicates() for other in runs]).value_counts()
    words = f"{len(speakers)} speakers of {run.settings.get('valid_corpus') or run.settings['corpus']}, "
    if runs == [run]:
        words += "held out of training"
    else:
        several = f"{len(runs)} trainings" if len(runs) > 1 else "another training"
        words += f"held out of {several} with the same hparams (this model may have been trained on them)"
        if repeated := (speakers > 1).sum():
            words += (
                f"; {repeated} of them were held out of more than one training: their trials count once per training, "
                "and the intervals treat them as one speaker"
            )
    if any(other.held_out_chose_it for other in runs):
        words += "; they also selected the checkpoint, so the figures are slightly optimistic"
    return words


def _further_results(sources: Sequence[ExportedRun], measured: Evaluation) -> dict:
    """Return results under other conditions, and by group, at the first operating point if there is one."""
    if not measured.thresholds.points:
        return {"use": "", "conditions": [], "groups": None}
    use, point = next(iter(measured.thresholds.points.items()))
    conditions = [condition for text in CARD_CONDITIONS for condition in conditions_named(text)]
    altered = [
        with_llrs(judge(score_held_out(sources, "fp32", condition), ()), measured.thresholds, (), are_held_out=True)
        for condition in conditions
    ]
    groups = measure_groups(measured.clean.trials, measured.clean.llrs, point.threshold)
    return {"use": use, "conditions": altered, "groups": groups}


def _calibration(
    run: TrainedRun, version: str, held_out: str, by_precision: Mapping[str, Evaluation], digests: Mapping[str, str]
) -> dict:
    """Return the content of ``calibration.json``."""
    utterances = by_precision["fp32"].clean.trials.utterances
    duration_s = utterances["duration"]
    return {
        "format": FORMAT,
        "name": run.settings["name"],
        "version": version,
        "sample_rate": run.sample_rate,
        "embedding_dim": run.dims,
        "min_duration_s": MIN_DURATION_S,
        "held_out": {
            "description": held_out,
            "num_speakers": int(utterances["spk_id"].nunique()),
            "num_utterances": len(utterances),
            "duration_s": {
                "shortest": float(duration_s.min()),
                "median": float(duration_s.median()),
                "longest": float(duration_s.max()),
            },
        },
        "embedders": {
            precision: calibration_entry(measured, ONNX_NAMES[precision], digests[precision])
            for precision, measured in by_precision.items()
        },
    }
