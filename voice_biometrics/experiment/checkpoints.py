"""Atomic checkpoints, and recovery that skips broken ones.

SpeechBrain's Checkpointer writes its files one by one into the final folder. A kill or a full disk meanwhile leaves a
folder that looks like a checkpoint and cannot be loaded. Here the folder is renamed when it is complete.
"""

import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from speechbrain.utils.checkpoints import METAFNAME, Checkpoint, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from voice_biometrics.common.errors import InputError

logger = logging.getLogger(__name__)

UNFINISHED = "unfinished-"
BROKEN = "broken-"


class WholeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, with atomic folders and a check before loading."""

    def _new_checkpoint_dirpath(self) -> Path:
        """Return the folder to write to; ``save_checkpoint`` renames it."""
        final = super()._new_checkpoint_dirpath()
        return final.with_name(UNFINISHED + final.name)

    @staticmethod
    def _construct_checkpoint_objects(checkpoint_dirs: Iterable[Path]) -> list[Checkpoint]:
        """Return the checkpoints of folders, without those whose ``CKPT.yaml`` cannot be read."""
        readable = [folder for folder in checkpoint_dirs if not _meta_fault(folder)]
        return Checkpointer._construct_checkpoint_objects(readable)

    def save_checkpoint(self, meta: Mapping[str, Any] = MappingProxyType({}), **kwargs) -> Checkpoint | None:
        """Save a checkpoint under a temporary name and rename its folder.

        It is the newest, also if the clock was set back: its time is after that of all others. Raises InputError if it
        cannot be written; earlier checkpoints are unchanged.
        """
        if if_main_process():
            for leftover in self.checkpoints_dir.glob(UNFINISHED + "*"):
                shutil.rmtree(leftover)
        ddp_barrier()
        try:
            times = [checkpoint.meta["unixtime"] + 1e-3 for checkpoint in self.list_checkpoints()]
            meta = {"unixtime": max([time.time(), *times]), **meta}
            checkpoint = super().save_checkpoint(**kwargs | {"meta": meta, "verbosity": logging.DEBUG})
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise InputError(
                f"{self.checkpoints_dir}: the checkpoint could not be written ({error}); free disk space and "
                "repeat the command: training resumes from the previous checkpoint"
            ) from error
        ddp_barrier()
        if checkpoint is not None:
            final = checkpoint.path.with_name(checkpoint.path.name.removeprefix(UNFINISHED))
            checkpoint.path.rename(final)
            checkpoint = self._construct_checkpoint_objects([final])[0]
        ddp_barrier()  # all processes see the same folders before they choose which to delete
        return checkpoint

    def save_and_keep_only(self, *args, **kwargs) -> None:
        """Save a checkpoint and delete those that need not be kept.

        SpeechBrain's default of ``importance_keys`` grows by one with each call, and the time of a call with it.
        """
        super().save_and_keep_only(*args, **{"importance_keys": [], **kwargs})

    def recover_if_possible(self, *args, **kwargs) -> Checkpoint | None:
        """Load the best readable checkpoint by the given criterion (the newest by default), if there is one.

        Unreadable checkpoints are renamed, with a warning. Raises InputError if a readable one does not fit the network
        of the hparams.
        """
        if if_main_process():
            for folder in self._list_checkpoint_dirs():
                if fault := _meta_fault(folder):
                    _set_aside(folder, fault)
            for checkpoint in self.list_checkpoints():
                self._set_aside_if_broken(checkpoint)
        ddp_barrier()
        checkpoint = self.find_checkpoint(*args, **kwargs)
        if checkpoint is not None:
            self._load_or_explain(checkpoint)
        return checkpoint

    def find_best(self) -> Checkpoint | None:
        """Return the checkpoint that ``load_best`` loads, or None."""
        return self.find_checkpoint(min_key="EER") or self.find_checkpoint()

    def load_best(self) -> Checkpoint:
        """Load the checkpoint with the lowest EER on held-out speakers, or the newest without held-out speakers.

        Raises InputError if there is none, or it cannot be loaded.
        """
        return self._load_for_use(self.find_best())

    def load_newest(self) -> Checkpoint:
        """Load the newest checkpoint; InputError if there is none, or it cannot be loaded."""
        return self._load_for_use(self.find_checkpoint())

    def _load_for_use(self, checkpoint: Checkpoint | None) -> Checkpoint:
        """Load a checkpoint, leaving a broken one in place."""
        if checkpoint is None:
            raise InputError(f"{self.checkpoints_dir}: no checkpoint; train first: python train.py, same arguments")
        faults = [_fault(path) for name, path in checkpoint.paramfiles.items() if name in self.recoverables]
        if any(faults):
            found = " ".join(faults).strip()
            raise InputError(f"{checkpoint.path}: damaged ({found}); resume training, or remove this folder")
        self._load_or_explain(checkpoint)
        return checkpoint

    def _set_aside_if_broken(self, checkpoint: Checkpoint) -> None:
        """Rename the folder of a checkpoint with a missing or unreadable file."""
        missing = [name for name in self.recoverables if name not in checkpoint.paramfiles and "dataloader" not in name]
        faults = [f"{name}.ckpt is missing" for name in missing]
        faults += [fault for path in checkpoint.paramfiles.values() if (fault := _fault(path))]
        if faults:
            _set_aside(checkpoint.path, faults[0])

    def _load_or_explain(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint; InputError if it does not fit."""
        try:
            self.load_checkpoint(checkpoint)
        except (RuntimeError, ValueError, KeyError) as error:
            first_lines = " ".join(str(error).split())[:300]
            raise InputError(
                f"{checkpoint.path}: does not fit the network of these hparams and speakers: {first_lines}; give the "
                "arguments of its training, or train into another folder (--output_folder)"
            ) from error


def _set_aside(folder: Path, fault: str) -> None:
    """Rename the folder of a broken checkpoint."""
    aside = folder.with_name(BROKEN + folder.name)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    logger.warning("Checkpoint %s is broken (%s): set aside as %s", folder, fault, aside.name)


def _meta_fault(folder: Path) -> str:
    """Return why the ``CKPT.yaml`` of a checkpoint cannot be read, or an empty string."""
    try:
        meta = yaml.safe_load((folder / METAFNAME).read_text(encoding="utf-8"))
        return "" if isinstance(meta["unixtime"], float) else f"{METAFNAME} has no time"
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        return f"{METAFNAME}: {type(error).__name__}"


def _fault(path: Path) -> str:
    """Return why a checkpoint file cannot be read, or an empty string.

    Networks, optimisers and schedulers are torch archives; SpeechBrain's small states are text.
    """
    try:
        with open(path, "rb") as file:
            is_archive = file.read(2) == b"PK"
        if is_archive:
            torch.load(path, map_location="cpu", weights_only=True)
        elif not path.read_text(encoding="utf-8").strip():
            return f"{path.name} is empty"
    except Exception as error:  # whatever a damaged archive makes torch raise
        return f"{path.name}: {type(error).__name__}"
    return ""
