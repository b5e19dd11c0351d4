"""A hparams file, or a variant of one, plus command-line overrides.

A variant is a YAML file with ``base: <other file>`` and the keys that differ. Mappings are merged key by key, except
that a node with another tag (``!new:...``) replaces the base's node whole; a variant's ``name`` is its file's name.

Loading builds objects, so a hparams file is a program: never load one that you do not trust.
"""

import difflib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import speechbrain
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from voice_biometrics.augmentation.augment import check_speeds
from voice_biometrics.common.errors import InputError

DEFAULT_FILE = "hparams/ecapa_small.yaml"
PLACEHOLDER = "!PLACEHOLDER"
RECORD = "hyperparams.yaml"
REFERENCE = re.compile(r"<([\w.]+)")

# Every hparams key and what it affects: "data" (the manifests: training and held-out speakers), "model" (the trained
# weights in any other way), "scoring" (only how eval_eer.py scores a trained model) or "free" (none of these: it may
# change while a run is stopped). A helper key that another key refers to need not be listed: it is part of that key.
KEYS = {
    **dict.fromkeys(
        ("corpus", "trial_list", "valid_speakers", "test_speakers", "max_trials", "valid_corpus", "train_speakers",
         "split_seed", "check_audio", "crop_every_s", "num_speakers"), "data"),
    **dict.fromkeys(
        ("seed", "__set_seed", "sentence_len", "batch_size", "utterances_per_speaker", "speeds", "augment_room",
         "augment_noise", "augment_channel", "augment_telephone", "noise_folder", "rir_folder", "augmentation",
         "feature_masks", "sample_rate", "n_mels", "compute_features", "mean_var_norm", "embedding_dim",
         "embedding_model", "classifier", "modules", "margin_rad", "loss_scale", "compute_cost", "embedding_cost",
         "pretrained", "frozen_epochs", "number_of_epochs", "lr", "opt_class", "lr_annealing", "average_epochs",
         "epoch_counter", "precision", "find_unused_parameters"), "model"),
    **dict.fromkeys(
        ("segment_s", "subtract_mean", "as_norm_top", "as_norm_cohort", "calibrate_with_durations", "p_targets"),
        "scoring"),
    **dict.fromkeys(
        ("name", "output_folder", "manifest_folder", "save_folder", "data_folder", "num_workers", "tensorboard",
         "ckpt_interval_minutes", "checkpointer", "train_logger"), "free"),
}  # fmt: skip
RENAMED = {"num_features": "n_mels", "crop_duration_s": "sentence_len", "lr_scheduler": "lr_annealing"}


def keys_that_affect(*kinds: str) -> set[str]:
    """Return the hparams keys of these kinds: "data", "model", "scoring", "free"."""
    return {key for key, kind in KEYS.items() if kind in kinds}


@dataclass
class Run:
    """What the command line asks for."""

    hparams_file: Path
    text: str  # the hparams, its bases merged in
    overrides: str  # YAML lines
    run_opts: Any  # SpeechBrain's: device, precision, ...
    settings: dict[str, Any]  # the keys whose values are plain, overrides included; nothing is built for them
    arguments: list[str]

    @property
    def command_line(self) -> str:
        """The arguments as they would be typed."""
        return " ".join(f'"{item}"' if " " in item else item for item in self.arguments)

    def count_classes(self, num_speakers: int) -> int:
        """Return how many speakers the head has: those of the manifest, at each speed one of its own."""
        return num_speakers * len(check_speeds(self.settings["speeds"]))

    def build(self, num_speakers: int) -> dict[str, Any]:
        """Build all objects for a manifest of ``num_speakers``; InputError when one of them refuses its arguments."""
        overrides = f"{self.overrides}\nnum_speakers: {self.count_classes(num_speakers)}".strip()
        try:
            return load_hyperpyyaml(self.text, overrides)
        except (TypeError, ValueError, KeyError, ImportError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.hparams_file}: could not be built: {error}") from error


def read_command_line(arguments: list[str], usage: str) -> Run:
    """Read ``[HPARAMS] [--key value ...]``, HPARAMS being ``hparams/ecapa_small.yaml`` when none is given.

    ``--help`` prints ``usage`` and ends. Raises InputError for a missing or malformed file, a key that the file does
    not have, and a key that is given twice.
    """
    if {"-h", "--help"} & set(arguments):
        print(usage.strip())
        sys.exit(0)
    if not arguments or arguments[0].startswith("--"):
        arguments = [DEFAULT_FILE, *arguments]
    hparams_file = Path(arguments[0])
    tree = merged_tree(hparams_file)
    _check_keys(arguments[1:], tree, hparams_file)
    _, run_opts, overrides = speechbrain.parse_arguments(arguments)
    text = _dump(tree)
    return Run(hparams_file, text, overrides, run_opts, plain_settings(tree, overrides), arguments)


def hparams_files(root: Path = Path()) -> list[Path]:
    """Return the hparams files below ``root``: the complete ones, then the ablations."""
    return [*sorted(root.glob("hparams/*.yaml")), *sorted(root.glob("hparams/ablations/*/*.yaml"))]


def merged_tree(hparams_file: Path) -> CommentedMap:
    """Return the YAML tree of ``hparams_file`` with its bases merged in, tags and references unresolved.

    Raises InputError for a missing or malformed file, and for a new key of a variant that nothing refers to.
    """
    tree = _load(hparams_file)
    if hparams_file.name == RECORD:
        return CommentedMap({RENAMED.get(key, key): node for key, node in tree.items()})
    if "base" not in tree:
        for key in tree:
            _refuse_old_name(f"{hparams_file}: key {key!r}", key)
            if key not in KEYS and key not in referred_to(tree):
                raise InputError(
                    f"{hparams_file}: key {key!r}: unknown; add it to KEYS in {__name__} with what it affects"
                )
        return tree
    base_file = hparams_file.parent / tree.pop("base")
    base = merged_tree(base_file)
    known = list(base)
    merged = _merge(base, tree)
    merged["name"] = tree.get("name", hparams_file.stem)
    for key in tree:
        _refuse_old_name(f"{hparams_file}: key {key!r}", key)
        if key not in known and key not in referred_to(merged):
            raise InputError(f"{hparams_file}: key {key!r}{_did_you_mean(key, known)}: not in {base_file}, nor used")
    return merged


def referred_to(tree: CommentedMap) -> set[str]:
    """Return the keys that other keys of ``tree`` refer to."""
    return set(REFERENCE.findall(_dump(tree)))


def _refuse_old_name(place: str, key: str) -> None:
    if key in RENAMED:
        raise InputError(f"{place}: renamed to {RENAMED[key]}, as in SpeechBrain's recipes")


def _load(path: Path) -> CommentedMap:
    """Read one YAML file as a tree that keeps tags and comments."""
    if not path.is_file():
        raise InputError(f"{path}: the hparams file is missing; see hparams/ and hparams/ablations/")
    try:
        tree = YAML().load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise InputError(f"{path}: malformed YAML: {error}") from error
    if not isinstance(tree, CommentedMap):
        raise InputError(f"{path}: expected 'key: value' lines, found {type(tree).__name__}")
    return tree


def _merge(base: CommentedMap, changes: CommentedMap) -> CommentedMap:
    """Put ``changes`` into ``base``: mappings of the same tag, or of none, are merged, all else is replaced."""
    for key, change in changes.items():
        node = base.get(key)
        mergeable = isinstance(node, CommentedMap) and isinstance(change, CommentedMap)
        if mergeable and change.tag.value in (None, node.tag.value):
            _merge(node, change)
        else:
            base[key] = change
    return base


def _dump(tree: CommentedMap) -> str:
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 10_000  # a reference that is folded over two lines is not found
    yaml.dump(tree, stream)
    return stream.getvalue()


def plain_settings(tree: CommentedMap, overrides: str) -> dict[str, Any]:
    """Return the keys whose values, overrides included, are numbers, text, lists of such or made of them by reference.

    Nothing else is built: these are known before the training speakers are counted.
    """
    changed = YAML().load(overrides) or {}
    nodes = {key: changed.get(key, node) for key, node in tree.items()}
    plain = CommentedMap()
    while True:
        found = {key: node for key, node in nodes.items() if key not in plain and _is_plain(node, plain)}
        if not found:
            return load_hyperpyyaml(_dump(plain))
        plain.update(found)


def _is_plain(node: Any, known: CommentedMap) -> bool:
    """Tell a value that needs no object: no tag, or a reference to values that are known already."""
    if isinstance(node, CommentedMap):
        return False
    if isinstance(node, list):
        return all(_is_plain(item, known) for item in node)
    tag = getattr(getattr(node, "tag", None), "value", None)
    if tag is None or not tag.startswith("!"):
        return True
    return tag == "!ref" and set(REFERENCE.findall(str(node.value))) <= set(known)


def _check_keys(arguments: list[str], tree: CommentedMap, hparams_file: Path) -> None:
    """Raise InputError for an argument that is neither a key of the file nor an option of SpeechBrain's."""
    options = set(speechbrain.utils.run_opts.RunOptions().as_dict())
    given: set[str] = set()
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        key = argument[2:].split("=")[0]
        _refuse_old_name(f"--{key}", key)
        if key == "num_speakers":
            raise InputError("--num_speakers: the speakers are counted in the training manifest; leave it out")
        if key not in tree and key not in options:
            raise InputError(f"--{key}{_did_you_mean(key, [*tree, *options])}: not a key of {hparams_file}")
        if key in given:
            raise InputError(f"--{key}: given twice; leave one out")
        given.add(key)


def _did_you_mean(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
