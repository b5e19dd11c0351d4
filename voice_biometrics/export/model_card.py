"""The model card: intended use, training data, results, limits, and the commands that reproduce the model."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from voice_biometrics.common.files import sha256_of
from voice_biometrics.common.markdown import MISSING, Markdown, bullets, code_block, document, section, table
from voice_biometrics.evaluation.evaluate import Evaluation, Judged
from voice_biometrics.evaluation.groups import GroupReport, GroupTable
from voice_biometrics.evaluation.trained_run import WEIGHTS, TrainedRun
from voice_biometrics.experiment.hparams import as_yaml, hparams_files, keys_that_affect, merged_tree, plain_settings
from voice_biometrics.export.quantise import SCHEME
from voice_biometrics.inference.model_folder import CALIBRATION_NAME, ONNX_NAMES
from voice_biometrics.metrics.formatting import number, per_cent
from voice_biometrics.metrics.operating_points import in_words

ROOT = Path(__file__).parents[2]
ALWAYS_IN_COMMAND = ("corpus", "data_folder", "valid_speakers", "split_seed", "seed")
NEVER_IN_COMMAND = keys_that_affect("free", "scoring") - {"data_folder", "output_folder"}
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "soundfile", "soxr", "onnx", "onnxruntime")
EVALUATION_KEYS = ("subtract_mean", "as_norm_top", "segment_s", "calibrate_with_durations")  # of eval_eer.py only

CORPORA = {  # corpus: content, licence, caveat
    "demo_voices": (
        "synthetic voices of espeak-ng",
        "sentences of this recipe, Apache-2.0",
        "No person speaks in it: the model is a demonstration, and its figures say nothing about people.",
    ),
    "speechocean762": (
        "read English by native Mandarin speakers, half of them children, recorded with phones",
        "free for commercial and non-commercial use",
        "Each speaker was recorded in one session on one phone. Level and channel help to recognise the speaker, so "
        "figures on clean speech are optimistic.",
    ),
    "librispeech": ("read English audiobooks", "CC BY 4.0", "Most speakers were recorded with one microphone each."),
    "common_voice": (
        "sentences read by volunteers in many languages, each on their own device",
        "CC0; users agree not to try to identify a speaker",
        "A speaker is an anonymous ID: one person may have several, and several people may share one.",
    ),
    "voxceleb": (
        "interviews from video sites, many languages",
        "metadata and lists CC BY 4.0; the recordings belong to their owners",
        "Celebrities; the speaker labels were made automatically.",
    ),
    "speaker_folders": ("the user's own recordings", "as granted to the user", ""),
}

TEACHER_CAVEAT = (
    "The teacher may have been trained on speakers of public test lists (CAM++: possibly on those of VoxCeleb1), so do "
    "not compare this model on such a list with models trained without it."
)
USE = """\
The model turns speech into an embedding of {dims} numbers. Two embeddings are compared by their cosine.
`calibration.json` turns the cosine into a log-likelihood ratio (LLR) and has decision thresholds with their measured
error rates.

Intended use: deciding whether two recordings are of the same person where an error does little harm, such as a smart
speaker that chooses a playlist. Do **not** use it to identify people without their consent, as evidence, or as the only
protection of anything valuable: **it was not tested against replayed, converted or synthesised voices**, and such
attacks are easy.
"""

UNTESTED = """\
- replayed, converted or synthesised voices, impersonators, twins and other relatives
- the same person on another day, on another device or in another mood than at enrolment, unless the training data has
  such recordings
- languages, accents, ages and recording conditions that the training data does not have
- speech shorter than {shortest:.1f} s or longer than {longest:.1f} s (except for the short crops above), several people
  at once, singing, whispering, illness
- real noise, rooms and telephone lines: those in the table above are simulated
- averages of several recordings: the thresholds are for single recordings. `verify.py` scales the score of an average
  so that the FAR does not rise; other programs that average must do the same (`docs/verification.md`)
"""


@dataclass(frozen=True, eq=False)
class CardFacts:
    """Content of the card.

    others : runs that the results are from, if not ``run`` itself.
    held_out : description of the speakers that the results were measured on. by_precision : results by precision.
    conditions : the same trials under other conditions. use : the operating point of ``conditions`` and ``groups``,
        "" if there is none. groups : error rates at that point, or None. sizes : file -> bytes.
    """

    run: TrainedRun
    others: Sequence[TrainedRun]
    version: str
    held_out: str
    by_precision: Mapping[str, Evaluation]
    use: str
    conditions: Sequence[Judged]
    groups: GroupReport | None
    sizes: Mapping[str, int]


def write_card(facts: CardFacts) -> str:
    """Return the card as Markdown."""
    durations_s = facts.by_precision["fp32"].clean.trials.utterances["duration"]
    sizes = [(_code(name), f"{size / 1e6:,.3f} MB") for name, size in facts.sizes.items()]
    sections = {
        "Use": [USE.format(dims=facts.run.dims).strip()],
        "Training": [_training(facts.run)],
        "Results": _results(facts),
        "Decisions": _decisions(facts),
        "Other conditions": _conditions(facts),
        "Groups of speakers": _groups(facts),
        "int8": [_int8(facts)],
        "Not tested": [UNTESTED.format(shortest=durations_s.min(), longest=durations_s.max()).strip()],
        "Reproduce": how_to_reproduce(facts.run, facts.others),
        "Files": [table(("file", "size"), sizes)],
    }
    title = f"{facts.run.settings['name']} {facts.version}: speaker embeddings from speech"
    return document(Markdown(title), [section(name, *blocks) for name, blocks in sections.items() if blocks])


def _training(run: TrainedRun) -> Markdown:
    """Describe network, training data and licence."""
    training, network = run.training, run.modules[WEIGHTS]
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    lines = [
        f"network: `{type(network).__name__}`, {num_parameters:,} parameters without the classification head; "
        f"features: `{type(run.modules['compute_features']).__name__}` at {run.sample_rate:,} Hz",
        f"trained on {training['spk_id'].nunique():,} speakers, {len(training):,} utterances, "
        f"{training['duration'].sum() / 3600:.1f} hours; epoch {run.checkpoint.meta.get('epoch', MISSING)} of "
        f"{run.settings['number_of_epochs']}, seed {run.settings['seed']}",
    ]
    if origin := origin_of(run):
        lines.append(f"started from {origin}")
    if run.whitened:
        lines.append(f"last layer: multiplied by a within-speaker whitening of strength {run.whitened:g}")
    for corpus in (name.strip() for name in run.settings["corpus"].split(",")):
        content, licence, caveat = CORPORA[corpus]
        lines.append(f"data: {corpus}: {content}. Licence: {licence}. {caveat}".rstrip())
    if teacher := teacher_of(run):
        lines.append(f"teacher: {teacher}. Its embeddings of the training utterances were targets. {TEACHER_CAVEAT}")
    lines.append("licence of the model: Apache-2.0, subject to the licences of the data")
    return bullets(map(Markdown, lines))


def origin_of(run: TrainedRun) -> str:
    """Return the network that a run started from (``pretrained``), empty for random weights."""
    folder = run.settings["pretrained"]
    if not folder:
        return ""
    description = Path(folder, CALIBRATION_NAME)
    if not description.is_file():
        return f"the network in `{folder}`"
    model = json.loads(description.read_text(encoding="utf-8"))
    return f"the network of {model['name']} {model['version']}"


def teacher_of(run: TrainedRun) -> str:
    """Return name and checksum of the teacher of a run, empty without one."""
    path = Path(run.settings["teacher_file"] or run.manifests / "teacher.npz")
    if not path.is_file():
        return ""
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays["teacher"])


def _results(facts: CardFacts) -> list[str]:
    """Return EER and C_llr of each file."""
    fp32 = facts.by_precision["fp32"].clean.trials
    num_target = int(np.count_nonzero(fp32.is_target))
    words = (
        f"Measured on {facts.held_out}. {num_target:,} target and {fp32.is_target.size - num_target:,} non-target "
        "trials of single utterances, cosine scores, 95 % confidence intervals over speakers."
    )
    rows = []
    for precision, measured in facts.by_precision.items():
        figures = measured.clean.summary
        cllr = number(figures["cllr"], figures["cllr_interval"])
        rows.append((_code(ONNX_NAMES[precision]), per_cent(measured.clean.eer), cllr))
    return [words, table(("file", "EER", "C_llr, bits"), rows), left_out(facts.run)]


def left_out(run: TrainedRun) -> str:
    """Return a note on scoring keys of the run that the model folder does not follow; empty when none is set."""
    asked = [f"`{key}: {run.settings[key]}`" for key in EVALUATION_KEYS if run.settings.get(key)]
    if not asked:
        return ""
    return (
        f"`eval_eer.py` may report other figures for this run, because its hparams set {', '.join(asked)}. Here, all "
        "figures, thresholds and calibrations are for plain cosines of whole utterances."
    )


def _decisions(facts: CardFacts) -> list[str]:
    """Return the thresholds and their error rates."""
    words = (
        "The LLR of each trial is from a calibration on other speakers. The thresholds were chosen on these trials, so "
        "the FAR meets its limit here by construction."
    )
    lines = []
    for precision, measured in facts.by_precision.items():
        for use, point in measured.thresholds.points.items():
            rates = in_words(use, measured.thresholds.held_out[use])
            lines.append(f"{precision}, threshold: LLR {point.threshold:.2f} ({point.rule}). {rates}")
        lines += [f"{precision}, no threshold: {reason}" for reason in measured.thresholds.refused.values()]
    return [words, bullets(map(Markdown, lines))]


def _conditions(facts: CardFacts) -> list[str]:
    """Return error rates on altered speech at the threshold for clean speech."""
    if not facts.conditions:
        return []
    at = {judged.name: judged.points[facts.use] for judged in facts.conditions}
    rows = [(one.name, *map(per_cent, (one.eer, at[one.name].far, at[one.name].frr))) for one in facts.conditions]
    words = f"The same trials (fp32) with each utterance altered at random, at the threshold for {facts.use} above."
    limit = facts.by_precision["fp32"].thresholds.points[facts.use].max_far
    worst = max(at, key=lambda name: at[name].far.estimate)
    warning, far = "", at[worst].far.estimate
    if far > 3 * limit:
        warning = (
            f"**The threshold is valid only for recordings like those it was chosen on**: under {worst!r} its FAR is "
            f"{per_cent(far)} instead of {per_cent(limit)}. Measure on recordings of your devices."
        )
    return [words, warning, table(("condition", "EER", "FAR", "FRR"), rows)]


def _groups(facts: CardFacts) -> list[str]:
    """Return error rates by group of speakers."""
    if facts.groups is None or not facts.groups.tables:
        return []
    words = f"The threshold for {facts.use} for all groups; trials within a group (fp32)."
    return [words, *(_group(group) for group in facts.groups.tables)]


def _group(group: GroupTable) -> str:
    rows = [(row.name, row.num_speakers, *map(per_cent, (row.eer, row.far, row.frr)), row.remark) for row in group.rows]
    text = table((group.title, "speakers", "EER", "FAR", "FRR", "remark"), rows, left=(group.title, "remark"))
    return f"{text}\n\n{group.remark}." if group.remark else text


def _int8(facts: CardFacts) -> str:
    """Return the loss by quantisation."""
    exact, quantised = (facts.by_precision[precision] for precision in ("fp32", "int8"))
    loss = quantised.clean.eer.estimate - exact.clean.eer.estimate
    change = quantised.clean.trials.scores - exact.clean.trials.scores
    return (
        f"`{ONNX_NAMES['int8']}` ({SCHEME}): EER {'+' if loss >= 0 else '-'}{per_cent(abs(loss))} (absolute) compared "
        f"with fp32 on the same trials. Scores differ by {np.sqrt(np.mean(change**2)):.4f} (root mean square), at most "
        f"{np.abs(change).max():.3f}. Do not compare embeddings of one file with those of the other: each has its own "
        "fingerprint, thresholds and calibration."
    )


def _code(name: str) -> Markdown:
    return Markdown(f"`{name}`")


def how_to_reproduce(run: TrainedRun, others: Sequence[TrainedRun]) -> list[str]:
    """Return the commands that make the model folder again, the package versions and the checksum of the data.

    ``others`` : runs that the calibration is from, if not ``run`` itself.
    """
    folders = ["RUN", *(f"FOLD{number}" for number in range(1, len(others) + 1))]
    commands = [training_command(each, folder) for each, folder in zip((run, *others), folders, strict=True)]
    export = f"python export.py RUN --data_folder {_placeholders(run.settings['corpus'])}"
    export += f" --calibration_from {' '.join(folders[1:])}" if others else ""
    commands.append(export + (f" --whiten {run.whitened:g}" if run.whitened else ""))
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    checksum = sha256_of(run.manifests / "train.csv")
    notes = (
        f"exported with Python {platform.python_version()}, {packages}; `requirements.txt` lists all packages",
        f"SHA-256 of `manifests/train.csv` of RUN (utterances, lengths in samples, speakers): `{checksum}`",
        "on another processor, figures may differ in the last digits, because of bf16 and the order of summation",
    )
    return [code_block("\n".join(commands), "bash"), bullets(map(Markdown, notes))]


def training_command(run: TrainedRun, folder: str) -> str:
    """Return the command that trains a run into ``folder``, with all plain keys that differ from its hparams file."""
    name = run.settings["name"]
    found = [file for file in hparams_files(ROOT) if file.stem == name]
    before = plain_settings(as_yaml(merged_tree(found[0]))) if found else {}
    file = found[0].relative_to(ROOT).as_posix() if found else f"{name}.yaml"
    after = run.settings | {"data_folder": _placeholders(run.settings["corpus"]), "output_folder": folder}
    given = [key for key in ALWAYS_IN_COMMAND if key in after]
    skipped = NEVER_IN_COMMAND | {*given}
    given += [key for key in before if key in after and key not in skipped and after[key] != before[key]]
    arguments = [f"--{key} {_argument(after[key])}" for key in given]
    teacher = ["--teacher /path/to/teacher"] if teacher_of(run) else []
    return " ".join(["python train.py", file, *arguments, *teacher])


def weights_metadata(run: TrainedRun, version: str, fingerprint: str) -> dict[str, str]:
    """Return the metadata of ``weights.safetensors``."""
    return {
        "name": run.settings["name"],
        "version": version,
        "fingerprint": fingerprint,
        "training": training_command(run, "RUN"),
        "training_manifest_sha256": sha256_of(run.manifests / "train.csv"),
    }


def _placeholders(corpora: str) -> str:
    """Return a placeholder path for each corpus."""
    return ",".join(f"/path/to/{corpus.strip()}" for corpus in corpora.split(","))


def _argument(value: Any) -> str:
    """Return a value as a command-line argument; of an absolute path only the last part is shown."""
    text = str(value)
    if isinstance(value, str) and Path(text).is_absolute() and not text.startswith("/path/to/"):
        text = f"/path/to/{Path(text).name}"
    return f'"{text}"' if not text or set(text) & set(" []{}*") else text
