"""Prepare one corpus or several joined: headers, speaker splits, trials, checks, manifests.

Writes to the manifest folder ``train.csv``, ``valid.csv`` and ``valid_trials.csv`` (held-out training speakers),
``test.csv`` and ``test_trials.csv`` (if there is a test part), ``skipped.csv`` (unusable training files) and, last,
``prepared.json`` with settings, a checksum of the list of files, and counts. Existing manifests of the same settings
and files are reused.
"""

import hashlib
import logging
import unicodedata
from itertools import islice
from pathlib import Path

import pandas as pd

from data_prep.corpus import MAX_SKIPPED, Corpus, Utterance
from data_prep.file_checks import Remarks, report_copies
from data_prep.settings import Settings, recorded_settings
from data_prep.shards import shards_folder, take_manifests
from data_prep.splits import Parts, check_parts, hold_out, join_parts, keep_speakers, keep_utterances
from voice_biometrics.common.audio_files import BLOCK, Header, read_headers, shortened
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import write_json, written_whole
from voice_biometrics.common.manifest import (
    COLUMNS,
    describe,
    read_manifest,
    read_record,
    root_variable,
    write_manifest,
)
from voice_biometrics.common.trial_lists import check_speakers, make_trials, read_trials, resolve_trials, write_trials

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # incremented when the same settings produce other manifests


def prepare(settings: Settings, manifest_folder: Path, is_trained: bool = False) -> dict:
    """Write the manifests and trial lists, and return the content of ``prepared.json``.

    With ``is_trained`` a run was trained with the manifests that are there, so its speakers must be the same. Raises
    InputError, before anything is written, for other speakers, a fault of the corpus or a setting.
    """
    if (shards := shards_folder(settings)) is not None:
        if is_trained:
            parts = {path.stem: read_manifest(path) for path in shards.glob("*.csv") if path.stem in ("train", "valid")}
            _check_same_speakers(Parts(**parts), manifest_folder)
        return take_manifests(shards, settings, manifest_folder)
    corpora = settings.corpora()
    record = {"version": FORMAT_VERSION, "settings": settings.portable(), "files_sha256": _fingerprint(corpora)}
    done = read_record(manifest_folder)
    before = done | {"settings": recorded_settings(done)}
    is_complete = all((manifest_folder / name).is_file() for name in done.get("files", ["train.csv"]))
    if is_complete and all(before.get(key) == value for key, value in record.items()):
        logger.info("Reusing the manifests in %s: same settings and files", manifest_folder)
        return done
    parts_of, skipped = {}, []
    for label, corpus in corpora.items():
        root = "$" + root_variable(label, len(corpora) > 1)
        parts_of[label], left_out = _prepare_corpus(label, corpus, root, settings)
        skipped.append(left_out)
    parts = join_parts(parts_of)
    check_parts(parts, [corpus.hint for corpus in corpora.values() if corpus.hint])
    if is_trained:
        _check_same_speakers(parts, manifest_folder)
    return _write(parts, pd.concat(skipped), record, manifest_folder)


def _check_same_speakers(parts: Parts, folder: Path) -> None:
    """Raise InputError, naming the difference, unless the manifests in ``folder`` have the speakers of ``parts``."""
    if not (folder / "train.csv").is_file():
        raise InputError(
            f"{folder / 'train.csv'}: missing, so the speakers that the run was trained on are unknown; restore it, or "
            "give another --output_folder"
        )
    changes = []
    for name, part in (("train", parts.train), ("valid", parts.valid)):
        path = folder / f"{name}.csv"
        before = set(read_manifest(path)["spk_id"]) if path.is_file() else set()
        changes += [f"{speaker} is no longer in {path.name}" for speaker in sorted(before - set(part["spk_id"]))]
        changes += [f"{speaker} is new in {path.name}" for speaker in sorted(set(part["spk_id"]) - before)]
    if changes:
        raise InputError(
            f"{folder}: a run was trained with other speakers: {shortened(changes)}; restore the corpus, or train into "
            "another --output_folder"
        )


def _fingerprint(corpora: dict[str, Corpus]) -> str:
    """Return a checksum of paths, speakers, metadata and trial lists."""
    digest = hashlib.sha256()
    for label, corpus in corpora.items():
        for part in ([label], _in_order(corpus.train), _in_order(corpus.test)):
            for item in part:
                digest.update(repr(item).encode(errors="backslashreplace"))
        digest.update(corpus.trial_list.read_bytes() if corpus.trial_list else b"")
    return digest.hexdigest()


def _in_order(utterances: list[Utterance]) -> list[Utterance]:
    return sorted(utterances, key=lambda utterance: utterance.utt_id)


def _prepare_corpus(label: str, corpus: Corpus, root: str, settings: Settings) -> tuple[Parts, pd.DataFrame]:
    """Read the headers of one corpus, split its speakers and make its trials; return the skipped files as well."""
    train, skipped = _read_part(label, corpus.root, corpus.train, root, settings)
    _check_usable(corpus.root, skipped, len(corpus.train), "training part", MAX_SKIPPED)
    parts = Parts(train=train)
    if corpus.test:
        parts.test, faulty = _read_part(f"{label} test", corpus.root, corpus.test, root, settings)
        _check_usable(corpus.root, faulty, len(corpus.test), "test part", 0.0)
        parts.test_trials = _test_trials(corpus, parts.test, settings)
    corpus.train, corpus.test = [], []  # the tables take a third of the memory
    if parts.test.empty:
        hold_out(parts, "test", settings.test_speakers, settings.max_trials, settings.split_seed)
    files = pd.concat(
        [part[["wav", "spk_id"]] for part in (parts.train, parts.test) if len(part) or part is parts.train]
    )
    files["path"] = files.pop("wav").str.removeprefix(f"{root}/").str.replace(r"#channel=\d+$", "", regex=True)
    report_copies(corpus.root, files)
    valid_amount = settings.valid_amounts()[label]
    hold_out(parts, "valid", valid_amount, settings.max_trials, settings.split_seed)
    if valid_amount and parts.valid.empty and len(parts.train):
        logger.warning("%s: no speaker has two utterances, so none is held out", label)
    parts.train = keep_speakers(parts.train, settings.train_speakers, settings.split_seed)
    parts.train = keep_utterances(parts.train, settings.train_utterances, settings.split_seed)
    return parts, pd.concat([skipped, pd.DataFrame(corpus.left_out, columns=skipped.columns)])


def _read_part(
    label: str, folder: Path, utterances: list[Utterance], root: str, settings: Settings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the manifest of ``utterances``, sorted by ID, and a table ``file, reason`` of skipped files."""
    utterances = [_checked(utterance) for utterance in _in_order(utterances)]
    what = f"{'audio' if settings.check_audio else 'headers'} of {label}"
    paths = [utterance.path for utterance in utterances]
    headers = zip(utterances, read_headers(folder, paths, what, settings.check_audio, settings.channel), strict=True)
    columns = COLUMNS + list(utterances[0].metadata if utterances else [])
    tables, skipped, remarks = [], [], Remarks()
    while block := list(islice(headers, BLOCK)):  # as tables, which take much less memory than rows
        rows = []
        for utterance, header in block:
            remarks.add(utterance.path, header)
            if fault := header.fault or ("$" in utterance.path and "'$' in its path, which manifests cannot represent"):
                skipped.append((utterance.path, fault))
            else:
                rows.append(_manifest_row(utterance, header, root, settings.channel))
        tables += [pd.DataFrame(rows, columns=columns)] if rows else []
    remarks.report(label, settings.channel)
    manifest = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return manifest, pd.DataFrame(skipped, columns=["file", "reason"])


def _manifest_row(utterance: Utterance, header: Header, root: str, channel: int) -> tuple:
    """Return a row of a manifest."""
    duration_s = round(header.num_samples / header.sample_rate, 6)
    wav = f"{root}/{utterance.path}" + (f"#channel={channel}" if channel and header.num_channels > 1 else "")
    numbers = (utterance.utt_id, duration_s, wav, 0, header.num_samples, utterance.spk_id)
    return numbers + tuple(utterance.metadata.values())


def _checked(utterance: Utterance) -> Utterance:
    """Return an utterance with its IDs in composed Unicode (NFC); InputError as ``_checked_name``."""
    utt_id, spk_id = _checked_name(utterance.utt_id), _checked_name(utterance.spk_id)
    is_same = (utt_id, spk_id) == (utterance.utt_id, utterance.spk_id)  # then it takes no further memory
    return utterance if is_same else utterance._replace(utt_id=utt_id, spk_id=spk_id)


def _checked_name(name: str) -> str:
    """Return an ID in composed Unicode (NFC); raise InputError for one that a manifest cannot represent."""
    is_text = name.isprintable()  # bytes that are not UTF-8 become surrogates, which are not printable
    if not is_text or name != name.strip() or any(part != part.strip() for part in name.split("/")):
        raise InputError(
            f"{name!r}: expected a name in UTF-8 without leading or trailing blanks; rename the file or folder"
        )
    return unicodedata.normalize("NFC", name)


def _check_usable(root: Path, faulty: pd.DataFrame, num_files: int, part: str, max_share: float) -> None:
    """Raise InputError, with the reason of the first, if too many files are unusable."""
    if len(faulty) > max_share * num_files:
        first = faulty.iloc[0]
        raise InputError(
            f"{root}: {len(faulty)} of {num_files} files of the {part} cannot be used (at most {max_share:.0%} may be "
            f"skipped); the first is {first['file']}: {first['reason']}; repair or remove such files"
        )


def _test_trials(corpus: Corpus, test: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return the trials of the test part: the corpus' list, or all pairs."""
    if corpus.trial_list is None:
        return make_trials(test, None, settings.split_seed)
    name = str(corpus.trial_list)
    trials = resolve_trials(read_trials(corpus.trial_list), pd.Index(test["ID"]), name)
    check_speakers(trials, dict(zip(test["ID"], test["spk_id"], strict=True)), name)
    return trials


def _write(parts: Parts, skipped: pd.DataFrame, record: dict, folder: Path) -> dict:
    """Write the non-empty tables, then the record; remove files of an earlier preparation."""
    (folder / "prepared.json").unlink(missing_ok=True)
    files = [f"{name}.csv" for name, table in parts.tables().items() if not table.empty]
    for name, table in parts.tables().items():
        path = folder / f"{name}.csv"
        if table.empty:
            path.unlink(missing_ok=True)
        elif name.endswith("trials"):
            write_trials(table, path)
            logger.info("%s: %s trials, %s target", name, f"{len(table):,}", f"{int(table['target'].sum()):,}")
        else:
            write_manifest(table, path)
            logger.info("%s: %s", name, describe(table))
    with written_whole(folder / "skipped.csv") as temporary:
        skipped.to_csv(temporary, index=False)
    if len(skipped):
        logger.warning("%d training files skipped; see %s", len(skipped), folder / "skipped.csv")
    speakers = int(parts.train["spk_id"].nunique())
    record = {**record, "num_speakers": speakers, "num_skipped": len(skipped), "files": files}
    write_json(record, folder / "prepared.json")
    return record
