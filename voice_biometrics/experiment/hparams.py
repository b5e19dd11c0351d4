"""Hparams files: variants over a base, command-line overrides, and the table of keys.

A variant is a YAML file with ``base: <other file>`` and the keys that differ (``merged_tree``). It is merged before
``load_hyperpyyaml`` sees it, so everything else is HyperPyYAML. Loading a file builds the objects that it names: load
only files that you trust.
"""

import contextlib
import difflib
import io
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import speechbrain
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from speechbrain.utils.run_opts import RunOptions

from voice_biometrics.common.errors import InputError

ROOT = Path(__file__).parents[2]
DEFAULT_FILE = "hparams/ecapa_small.yaml"
RECORD = "hyperparams.yaml"  # of a run folder; that of an older run has older names
REFERENCE = re.compile(r"<([\w.]+)")
YAML_TAG = re.compile(r"!(ref|new|name|module|apply|applyref|copy|include|tuple|PLACEHOLDER)\b")

# Every hparams key and what it affects: "data" (the manifests: training and held-out speakers), "model" (the trained
# weights in any other way), "scoring" (only how eval_eer.py scores a trained model) or "free" (none of these: it may
# change while a run is stopped). A helper key that another key refers to need not be listed: it is part of that key.
# The default of a new key in DEFAULT_FILE must change nothing: runs that were begun before the key are read with it.
KEYS = {
    **dict.fromkeys(
        ("corpus", "trial_list", "valid_speakers", "test_speakers", "max_trials", "valid_corpus", "train_speakers",
         "train_utterances", "split_seed", "check_audio", "channel", "crop_every_s"), "data"),
    **dict.fromkeys(
        ("seed", "__set_seed", "sentence_len", "batch_size", "utterances_per_speaker", "speeds", "augment_room",
         "augment_noise", "augment_channel", "augment_telephone", "noise_folder", "rir_folder", "augmentation",
         "feature_masks", "sample_rate", "n_mels", "compute_features", "mean_var_norm", "embedding_dim",
         "embedding_model", "classifier", "modules", "margin_rad", "loss_scale", "compute_cost", "head_weight",
         "embedding_costs", "keep_decoded", "shard_window", "pretrained", "frozen_epochs", "number_of_epochs", "lr",
         "opt_class", "lr_annealing", "average_epochs", "epoch_counter", "precision", "find_unused_parameters"),
        "model"),
    **dict.fromkeys(
        ("segment_s", "subtract_mean", "as_norm_top", "as_norm_cohort", "calibrate_with_durations", "p_targets"),
        "scoring"),
    **dict.fromkeys(
        ("name", "output_folder", "manifest_folder", "save_folder", "data_folder", "skip_prep", "num_workers",
         "processes", "teacher", "teacher_file", "decoded_folder", "dataloader_options", "tensorboard",
         "ckpt_interval_minutes", "checkpointer", "train_logger", "error_stats"),
        "free"),  # of dataloader_options, batch_size is a key itself
}  # fmt: skip
RENAMED = {
    "num_features": "n_mels",
    "crop_duration_s": "sentence_len",
    "lr_scheduler": "lr_annealing",
    "embedding_cost": "embedding_costs",
}


def keys_that_affect(*kinds: str) -> set[str]:
    """Return the hparams keys of these kinds: "data", "model", "scoring", "free"."""
    return {key for key, kind in KEYS.items() if kind in kinds}


@dataclass
class Run:
    """The command line of ``train.py``, parsed; no object is built."""

    hparams_file: Path
    text: str  # the hparams, bases merged
    overrides: str  # YAML lines
    run_opts: RunOptions  # SpeechBrain's: device, precision, ...
    arguments: list[str]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The keys with plain values."""
        return plain_settings(self.text, self.overrides)

    @property
    def command_line(self) -> str:
        """The arguments as typed in a shell."""
        return shlex.join(self.arguments)

    def build(self) -> dict[str, Any]:
        """Build all objects of the hparams."""
        with readable_errors(self.hparams_file):
            return load_hyperpyyaml(self.text, self.overrides)


def read_command_line(arguments: list[str], usage: str) -> Run:
    """Parse ``[HPARAMS] [--key value ...]``; see ``check_arguments`` for what is refused."""
    checked = check_arguments(arguments, usage)
    hparams_file, run_opts, overrides = speechbrain.parse_arguments(checked)
    text = as_yaml(merged_tree(Path(hparams_file)))
    given = [hparams_file, *(arguments[1:] if arguments and not arguments[0].startswith("--") else arguments)]
    return Run(Path(hparams_file), text, overrides, run_opts, given)


@contextlib.contextmanager
def readable_errors(hparams_file: str | Path) -> Iterator[None]:
    """Turn the errors of ``load_hyperpyyaml``, such as an argument that a class does not have, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, ImportError, AttributeError, OSError) as error:
        raise InputError(f"{hparams_file}: could not be built: {error}") from error


def check_arguments(arguments: list[str], usage: str) -> list[str]:
    """Return command-line arguments in the form that ``sb.parse_arguments`` reads without loss.

    The hparams file defaults to ``hparams/ecapa_small.yaml``, and is also looked for beside the script. Text is quoted
    for YAML, and flags may have a value (``--noprogressbar True``). ``--help`` prints ``usage`` and exits. Raises
    InputError for a missing or malformed file, an unknown or repeated key, and a word that belongs to no key.
    """
    if {"-h", "--help"} & set(arguments):
        print(usage.strip())
        sys.exit(0)
    if not arguments or arguments[0].startswith("--"):
        arguments = [DEFAULT_FILE, *arguments]
    if not Path(arguments[0]).exists() and (ROOT / arguments[0]).is_file():  # called from another folder
        arguments = [str(ROOT / arguments[0]), *arguments[1:]]
    tree, options = merged_tree(Path(arguments[0])), RunOptions().as_dict()
    given: dict[str, list[str]] = {}
    for key, words in split_options(arguments[1:]):
        _check_key(key, [*tree, *options], given, arguments[0])
        given[key] = words
    found = [_as_speechbrain_reads(key, words, tree.get(key), options) for key, words in given.items()]
    return [arguments[0], *sum(found, [])]


def split_options(words: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return each option with its values: [("lr", ["0.01"]), ("noprogressbar", [])]; ``--lr=0.01`` is the same."""
    options: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            option, _, value = word[2:].partition("=")
            options.append((option, [value] if value else []))
        elif options:
            options[-1][1].append(word)
        else:
            raise InputError(f"{word}: expected --key value after the hparams file or the variants")
    return options


def _check_key(key: str, known: list[str], given: Iterable[str], hparams_file: str) -> None:
    _refuse_old_name(f"--{key}", key)
    if key not in known:
        raise InputError(f"--{key}{did_you_mean(key, known)}: not a key of {hparams_file}")
    if key in given:
        raise InputError(f"--{key}: given twice; leave one out")


def _as_speechbrain_reads(key: str, words: list[str], node: Any, options: dict[str, Any]) -> list[str]:
    """Return one option of the command line with its value; ``node`` is the value in the file."""
    is_flag = options.get(key) is False
    if is_flag or isinstance(node, bool):
        value = words[0].lower() if words else "true"
        if value not in ("true", "false") or len(words) > 1:
            raise InputError(f"--{key} {words[-1]}: expected True or False, or no value")
        if is_flag:
            return [f"--{key}"] * (value == "true")
        return [f"--{key}", value]
    if not words:
        raise InputError(f"--{key}: expected a value")
    is_text = _is_text(node)
    is_yaml = key.endswith("module_keys") or YAML_TAG.match(words[0]) or (words[0][:1] in ("[", "{") and not is_text)
    if len(words) > 1 and not is_yaml:
        raise InputError(f"{words[1]}: belongs to no key; expected one value for --{key} (text with spaces in quotes)")
    if is_yaml or key in options or not is_text:
        return [f"--{key}", *words]
    return [f"--{key}", json.dumps(words[0], ensure_ascii=False).replace("=", r"\u003d")]  # SpeechBrain splits at "="


def _is_text(node: Any) -> bool:
    """Text, or text that contains references."""
    value = getattr(node, "value", None)
    return isinstance(node, str) or (isinstance(value, str) and not re.fullmatch(r"<[^<>]+>", value))


def hparams_files(root: Path = Path()) -> list[Path]:
    """Return the hparams files below ``root``: the complete ones, then the ablations."""
    return [*sorted(root.glob("hparams/*.yaml")), *sorted(root.glob("hparams/ablations/*/*.yaml"))]


def merged_tree(hparams_file: Path) -> CommentedMap:
    """Return the YAML tree of a hparams file with its bases merged in, tags and references unresolved.

    A variant's keys replace those of its base. Of two mappings with the same tag, or if the variant's has none, only
    the entries that the variant names are replaced; a mapping with another tag (``!new:...``) replaces the whole. The
    ``name`` of a variant is that of its file. Raises InputError for a missing or malformed file, and for a key that is
    neither in KEYS nor referred to. The record of a run gets the keys that are newer than it, with their defaults.
    """
    tree = _load(hparams_file)
    if hparams_file.name == RECORD:
        record = CommentedMap({RENAMED.get(key, key): node for key, node in tree.items()})
        return YAML().load(resolve_references(as_yaml(CommentedMap({**default_tree(), **record}))))
    merged = tree
    if "base" in tree:
        merged = merge(merged_tree(hparams_file.parent / tree.pop("base")), tree)
        merged["name"] = tree.get("name", hparams_file.stem)
    for key in tree:
        place = f"{hparams_file}: key {key!r}"
        _refuse_old_name(place, key)
        if key not in KEYS and key not in REFERENCE.findall(as_yaml(merged)):
            raise InputError(f"{place}{did_you_mean(key, KEYS)}: not in KEYS of {__name__}, and no key refers to it")
    return merged


def default_tree() -> CommentedMap:
    """Return the YAML tree of DEFAULT_FILE, wherever the program is called."""
    return merged_tree(ROOT / DEFAULT_FILE)


def merge(base: CommentedMap, changes: CommentedMap) -> CommentedMap:
    """Merge ``changes`` into ``base``, and return it; see ``merged_tree``."""
    for key, change in changes.items():
        node = base.get(key)
        mergeable = isinstance(node, CommentedMap) and isinstance(change, CommentedMap)
        if mergeable and change.tag.value in (None, node.tag.value):
            merge(node, change)
        else:
            base[key] = change
    return base


def _load(path: Path) -> CommentedMap:
    """Read a YAML file as a tree that keeps tags and comments."""
    if not path.is_file():
        raise InputError(f"{path}: the hparams file is missing; see hparams/ and hparams/ablations/")
    try:
        tree = YAML().load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise InputError(f"{path}: malformed YAML: {error}") from error
    if not isinstance(tree, CommentedMap):
        raise InputError(f"{path}: expected 'key: value' lines, found {type(tree).__name__}")
    return tree


def as_yaml(tree: CommentedMap) -> str:
    """Return a YAML tree as text."""
    stream, yaml = io.StringIO(), YAML()
    yaml.width = 10_000  # HyperPyYAML does not find a reference that is folded over two lines
    yaml.dump(tree, stream)
    return stream.getvalue()


def plain_settings(text: str, overrides: str = "") -> dict[str, Any]:
    """Return the keys of a hparams text with plain values (numbers, text, lists of them); no object is built."""
    tree = YAML().load(resolve_references(text, overrides))
    return load_hyperpyyaml(as_yaml(CommentedMap({key: node for key, node in tree.items() if _is_plain(node)})))


def _is_plain(node: Any) -> bool:
    if isinstance(node, list):
        return all(_is_plain(item) for item in node)
    return not isinstance(node, dict) and not getattr(getattr(node, "tag", None), "value", None)


def _refuse_old_name(place: str, key: str) -> None:
    if key in RENAMED:
        raise InputError(f"{place}: renamed to {RENAMED[key]}")


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" with the most similar known key, or an empty string."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
