"""The model card: what a model is for, what it was made from, how well it works, and what nobody tested.

How a model was made, so that somebody else can make it again: commands, seeds, versions, checksums of the data.
"""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from voice_biometrics.evaluation.groups import GroupReport, GroupTable
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.experiment.hparams import hparams_files, keys_that_affect, merged_tree, plain_settings
from voice_biometrics.export.calibration import Measured
from voice_biometrics.export.quantise import SCHEME
from voice_biometrics.inference.model_folder import ONNX_NAMES
from voice_biometrics.metrics.bootstrap import Interval
from voice_biometrics.metrics.formatting import NONE, number, per_cent
from voice_biometrics.metrics.operating_points import in_words

ROOT = Path(__file__).parents[2]
ALWAYS_SAID = ("corpus", "data_folder", "valid_speakers", "split_seed", "seed")
NOT_SAID = {"num_speakers"} | keys_that_affect("free", "scoring") - {"data_folder", "output_folder"}
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "soundfile", "soxr", "onnx", "onnxruntime")


def how_to_reproduce(run: TrainedRun, others: Sequence[TrainedRun]) -> str:
    """Return the commands that make a model folder again, and what they were run with, as Markdown.

    ``others`` are the runs that the calibration is from, none where it is from ``run``.
    """
    folders = ["RUN", *(f"FOLD{number}" for number in range(1, len(others) + 1))]
    commands = [training_command(each, folder) for each, folder in zip((run, *others), folders, strict=True)]
    export = f"python export.py RUN --data_folder {_places(run.settings['corpus'])}"
    commands.append(export + (f" --calibration_from {' '.join(folders[1:])}" if others else ""))
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        f"- exported with Python {platform.python_version()}, {packages}; `requirements.txt` names them all",
        "- SHA-256 of what was trained on (`manifests/train.csv` of RUN: names, lengths in samples, speakers): "
        f"`{manifest_digest(run)}`",
        "- on another processor the figures differ in the last digits: bf16 and the order of sums are its own",
    ]
    return "```bash\n" + "\n".join(commands) + "\n```\n\n" + "\n".join(lines)


def training_command(run: TrainedRun, folder: str) -> str:
    """Return the command that trains a run into ``folder``: every plain key that differs from its hparams file."""
    name = run.settings["name"]
    found = [file for file in hparams_files(ROOT) if file.stem == name]
    before = plain_settings(merged_tree(found[0]), "") if found else {}
    file = found[0].relative_to(ROOT).as_posix() if found else f"{name}.yaml"
    after = run.settings | {"data_folder": _places(run.settings["corpus"]), "output_folder": folder}
    told = [key for key in ALWAYS_SAID if key in after]
    told += [key for key in before if key in after and key not in NOT_SAID | {*told} and after[key] != before[key]]
    return " ".join(["python train.py", file, *(f"--{key} {_typed(after[key])}" for key in told)])


def manifest_digest(run: TrainedRun) -> str:
    """Return the SHA-256 of the manifest of a run's training part."""
    return hashlib.sha256((run.manifests / "train.csv").read_bytes()).hexdigest()


def weights_metadata(run: TrainedRun, version: str, fingerprint: str) -> Mapping[str, str]:
    """Return what a file of the weights says of itself."""
    command = training_command(run, "RUN")
    return {
        "name": run.settings["name"], "version": version, "fingerprint": fingerprint, "training": command,
        "training_manifest_sha256": manifest_digest(run),
    }  # fmt: skip


def _places(corpora: str) -> str:
    """Return folders of corpora that stand for the user's own."""
    return ",".join(f"/path/to/{corpus.strip()}" for corpus in corpora.split(","))


def _typed(value: Any) -> str:
    """Write a value as it is typed on a command line, folders of this machine by their last name."""
    text = str(value)
    if isinstance(value, str) and Path(text).is_absolute() and not text.startswith("/path/to/"):
        text = f"/path/to/{Path(text).name}"
    return f'"{text}"' if not text or set(text) & set(" []{}*") else text


CORPORA = {  # corpus -> what it is, its licence, what to know of it
    "demo_voices": (
        "synthetic voices of espeak-ng",
        "sentences of this recipe, Apache-2.0",
        "No human being speaks in it: the model is a demonstration and says nothing about people.",
    ),
    "speechocean762": (
        "read English by native Mandarin speakers, half of them children, recorded with phones",
        "free for commercial and non-commercial use",
        "Each speaker was recorded in one session on one phone: level and channel give the speaker away, and clean "
        "figures flatter.",
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
        "Celebrities, and speaker labels found by a machine.",
    ),
    "speaker_folders": ("recordings of the user's own", "whatever the user has been granted", ""),
}

USE = """\
It turns speech into an embedding of {dims} numbers; two embeddings are compared by their cosine, and
`calibration.json` says what the cosine means: a log-likelihood ratio (LLR), and thresholds with the error rates that
were measured there.

It is for telling whether two recordings are of one person, among people who mean no harm or little: a smart speaker
that chooses a playlist. It is **not** for identifying people without their consent, for evidence, or as the only key of
anything worth stealing: **it was not tested against replayed, converted or synthesised voices**, and such attacks are
easy.
"""

LEFT_OUT = ("subtract_mean", "as_norm_top", "segment_s", "calibrate_with_durations")  # keys that only eval_eer.py has

UNTESTED = """\
- replayed, converted and synthesised voices, mimics, twins and other family
- the same person on another day, device or in another mood than at enrolment, unless the data above have it
- languages, accents, ages and recording conditions that the data above do not have
- speech shorter than {shortest:.1f} s or longer than {longest:.1f} s (the short cuts above apart), several people at
  once, singing, whispering, illness
- real noise, rooms and telephone lines: those in the table above are made by a computer
- an average of several recordings: these thresholds are of single ones. `verify.py` scales its score so that strangers
  gain nothing by it; a program of your own that averages must do so as well (`docs/verification.md`)
"""


@dataclass(frozen=True, eq=False)
class CardFacts:
    """What the card is made of.

    others : the runs that the results are from, where not from ``run``.
    held_out : whom the results were measured on, in words. by_precision : precision -> what was measured.
    conditions : condition -> ``eer``, and ``far`` and ``frr`` at the operating point of ``use``.
    groups : error rates at the same point, None where there is no such point. sizes : file -> bytes.
    """

    run: TrainedRun
    others: Sequence[TrainedRun]
    version: str
    held_out: str
    by_precision: Mapping[str, Measured]
    use: str
    conditions: Mapping[str, Mapping[str, Interval]]
    groups: GroupReport | None
    sizes: Mapping[str, int]


def write_card(facts: CardFacts) -> str:
    """Return the card as Markdown."""
    title = f"# {facts.run.settings['name']} {facts.version}: speech to speaker embedding"
    sections = {
        "Use": USE.format(dims=facts.run.dims),
        "Training": _training(facts),
        "Results": _results(facts),
        "Decisions": _decisions(facts),
        "Under other conditions": _conditions(facts),
        "Groups of speakers": _groups(facts),
        "int8": _int8(facts),
        "Never tested": _untested(facts),
        "Made again": how_to_reproduce(facts.run, facts.others),
        "Files": _files(facts),
    }
    parts = [f"## {name}\n\n{text.strip()}" for name, text in sections.items() if text]
    return "\n\n".join([title, *parts]) + "\n"


def _training(facts: CardFacts) -> str:
    """The data, its licence, and the network."""
    run, training = facts.run, facts.run.training
    network = run.modules["embedding_model"]
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    lines = [
        f"- network: `{type(network).__name__}`, {num_parameters:,} parameters (without the speakers' head); features: "
        f"`{type(run.modules['compute_features']).__name__}` at {run.sample_rate:,} Hz",
        f"- trained on {training['spk_id'].nunique():,} speakers, {len(training):,} utterances, "
        f"{training['duration'].sum() / 3600:.1f} hours; epoch {run.checkpoint.meta.get('epoch', NONE)} of "
        f"{run.settings['number_of_epochs']}, seed {run.settings['seed']}",
    ]
    for corpus in run.settings["corpus"].split(","):
        what, licence, note = CORPORA[corpus.strip()]
        lines.append(f"- data: {corpus.strip()}: {what}. Licence: {licence}. {note}".rstrip())
    lines.append("- licence of the model: Apache-2.0, as far as that of the data allows")
    return "\n".join(lines)


def _results(facts: CardFacts) -> str:
    """EER and C_llr of each file."""
    fp32 = facts.by_precision["fp32"].trials
    num_target = int(np.count_nonzero(fp32.is_target))
    words = (
        f"Measured on {facts.held_out}. {num_target:,} target and {fp32.is_target.size - num_target:,} non-target "
        "trials of single utterances, cosine scores. Ranges are 95 % intervals over speakers."
    )
    rows = []
    for precision, measured in facts.by_precision.items():
        eer, cllr = (measured.figures[name] for name in ("eer", "cllr"))
        rows.append((f"`{ONNX_NAMES[precision]}`", _rate(eer), number(cllr.estimate, (cllr.lower, cllr.upper))))
    return "\n\n".join(filter(None, [words, _table(("file", "EER", "C_llr, bits"), rows), left_out(facts.run)]))


def left_out(run: TrainedRun) -> str:
    """Say which of the run's scoring keys the model folder does not have."""
    asked = {key: run.settings.get(key) for key in LEFT_OUT}
    told = [f"`{key}: {value}`" for key, value in asked.items() if value]
    if not told:
        return ""
    return (
        f"The run's own report may have other figures: its hparams ask `eval_eer.py` for {', '.join(told)}. The model "
        "folder has none of it: all figures, thresholds and calibrations here are of plain cosines of whole utterances."
    )


def _decisions(facts: CardFacts) -> str:
    """What the thresholds do."""
    lines = [
        "Each trial was judged by a calibration on other speakers; the thresholds were chosen on these very trials, so "
        "a limit on the FAR is met here by construction.\n"
    ]
    for precision, measured in facts.by_precision.items():
        for use, point in measured.thresholds.points.items():
            words = in_words(use, measured.thresholds.held_out[use])
            lines.append(f"- {precision}, accept from LLR {point.threshold:.2f} on ({point.rule}). {words}")
        lines += [f"- {precision}, no threshold: {reason}" for reason in measured.thresholds.refused.values()]
    return "\n".join(lines)


def _conditions(facts: CardFacts) -> str:
    """Altered speech, judged by the thresholds for clean speech."""
    if not facts.conditions:
        return ""
    rows = [(name, *(_rate(rates[key]) for key in ("eer", "far", "frr"))) for name, rates in facts.conditions.items()]
    words = f"The same trials (fp32), every utterance altered in its own way; the threshold for {facts.use} as above."
    limit = facts.by_precision["fp32"].thresholds.points[facts.use].max_far
    worst, rates = max(facts.conditions.items(), key=lambda item: item[1]["far"].estimate)
    if rates["far"].estimate > 3 * limit:
        words += (
            f"\n\n**The threshold holds for recordings like those it was measured on, and for no others**: under "
            f"{worst!r} it lets in {per_cent(rates['far'].estimate)} of strangers where {per_cent(limit)} were asked "
            "for. Measure on recordings of your own devices."
        )
    return f"{words}\n\n{_table(('condition', 'EER', 'strangers let in', 'right speakers refused'), rows)}"


def _groups(facts: CardFacts) -> str:
    """Who is let in or refused more often than others."""
    if facts.groups is None or not facts.groups.tables:
        return ""
    words = f"One threshold for everybody, that of {facts.use}; trials within a group (fp32)."
    return "\n\n".join([words, *(_group(table) for table in facts.groups.tables)])


def _group(table: GroupTable) -> str:
    rows = []
    for row in table.rows:
        rates = [_rate(rate) if rate else NONE for rate in (row.eer, row.far, row.frr)]
        rows.append((row.name, row.num_speakers, *rates, row.remark))
    columns = (table.title, "speakers", "EER", "strangers let in", "right speakers refused", "remark")
    return _table(columns, rows) + (f"\n\n{table.remark}." if table.remark else "")


def _int8(facts: CardFacts) -> str:
    """What quantisation costs."""
    exact, quantised = (facts.by_precision[precision] for precision in ("fp32", "int8"))
    loss = quantised.figures["eer"].estimate - exact.figures["eer"].estimate
    change = quantised.trials.scores - exact.trials.scores
    return (
        f"`{ONNX_NAMES['int8']}` ({SCHEME}): EER {'+' if loss >= 0 else '-'}{per_cent(abs(loss))} (absolute) against "
        f"fp32 on the same trials; scores differ by {np.sqrt(np.mean(change**2)):.4f} (root mean square), at most "
        f"{np.abs(change).max():.3f}. Embeddings of the two are not to be compared with each other: each file has a "
        "fingerprint, thresholds and a calibration of its own."
    )


def _untested(facts: CardFacts) -> str:
    durations_s = facts.by_precision["fp32"].trials.utterances["duration"]
    return UNTESTED.format(shortest=durations_s.min(), longest=durations_s.max())


def _files(facts: CardFacts) -> str:
    rows = [(f"`{name}`", f"{size / 1e6:,.3f} MB") for name, size in facts.sizes.items()]
    return _table(("file", "size"), rows)


def _rate(rate: Interval) -> str:
    """Word a rate with its interval."""
    return per_cent(rate.estimate, (rate.lower, rate.upper))


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
