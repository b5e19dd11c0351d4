"""SpeakerBrain: features, embedding, loss; per epoch the EER on held-out speakers, figures, curves and a checkpoint."""

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, main_process_only
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from voice_biometrics.augmentation.augment import masked
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_utterances
from voice_biometrics.common.trial_lists import read_trials
from voice_biometrics.experiment.run_folder import record_epoch
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.embeddings import FRONT_TO_EMBEDDING, embed_manifest
from voice_biometrics.training.curves import plot_curves
from voice_biometrics.training.dataio import CropReader
from voice_biometrics.training.losses import tell_progress
from voice_biometrics.training.optimisation import LearningRate, WeightAverage


@dataclass
class HeldOut:
    """The held-out speakers: their utterances and trials."""

    manifest: pd.DataFrame
    trials: pd.DataFrame

    @classmethod
    def read(cls, manifest_folder: Path, replacements: dict[str, str]) -> "HeldOut | None":
        """Read ``valid.csv`` and ``valid_trials.csv``; None when nobody is held out."""
        if not (manifest_folder / "valid.csv").is_file():
            return None
        manifest = read_utterances(manifest_folder / "valid.csv", replacements)
        return cls(manifest, read_trials(manifest_folder / "valid_trials.csv"))


class SpeakerBrain(sb.Brain):
    """Trains a speaker-embedding network.

    Further arguments than SpeechBrain's: ``crops``, told the epoch at its start, and ``held_out``, whose EER chooses
    the best checkpoint (None: nobody is held out, and the last checkpoint counts).
    """

    def __init__(self, *args, crops: CropReader, held_out: HeldOut | None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.crops = crops
        self.held_out = held_out
        self.output_folder = Path(self.hparams.output_folder)
        self.loggers = [self.hparams.train_logger]
        if self.hparams.tensorboard and if_main_process():
            self.loggers.append(sb.utils.train_logger.TensorboardLogger(str(self.output_folder / "tensorboard")))

    def make_dataloader(self, *args, **kwargs) -> DataLoader:
        """Make the loader as SpeechBrain does, and count its batches."""
        loader = super().make_dataloader(*args, **kwargs)
        self.batches_per_epoch = len(loader)
        return loader

    def compute_forward(self, batch, stage: sb.Stage) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embeddings (utterances, 1, dims) and the head's output (utterances, 1, speakers)."""
        batch = batch.to(self.device)
        waves, lengths = batch.sig  # (utterances, samples), (utterances,) in (0, 1]
        features = self.modules.compute_features(waves)  # (utterances, frames, features)
        features = self.modules.mean_var_norm(features, lengths)
        features = masked(features, self.hparams.feature_masks, f"{self.hparams.seed}/{self.crops.epoch}/{batch.id[0]}")
        with torch.set_grad_enabled(not self._is_frozen()):
            embeddings = self.modules.embedding_model(features, lengths)  # (utterances, 1, dims)
        with torch.autocast(self.device_type, enabled=False):  # bf16 cosines times 30 would be off by 0.07
            return embeddings.float(), self.modules.classifier(embeddings.float())

    def compute_objectives(self, predictions: tuple, batch, stage: sb.Stage) -> torch.Tensor:
        """Return the mean loss of a batch: of the head's output and, if asked for, of the embeddings themselves."""
        embeddings, outputs = predictions
        speakers, _ = batch.spk_id_encoded  # (utterances, 1)
        with torch.autocast(self.device_type, enabled=False):
            loss = self.hparams.compute_cost(outputs, speakers)
            if self.hparams.embedding_cost is not None:
                loss = loss + self.hparams.embedding_cost(embeddings, speakers)
        return loss

    def on_fit_batch_start(self, batch, should_step: bool) -> None:
        """Tell the loss how far training is, and keep a frozen network's BatchNorm statistics."""
        tell_progress(self.hparams.compute_cost, self.crops.epoch - 1 + (self.step - 1) / self.batches_per_epoch)
        self.modules.embedding_model.train(not self._is_frozen())

    def on_fit_batch_end(self, batch, outputs, loss: torch.Tensor, should_step: bool) -> None:
        """Let the learning rate and the average of the weights follow a step."""
        if should_step:
            self.learning_rate.after_step()
            if self.weight_average:
                self.weight_average.after_step(self.optimizer_step)

    def _is_frozen(self) -> bool:
        """Tell whether only the head is trained in this epoch."""
        return self.crops.epoch <= self.hparams.frozen_epochs

    def check_loss_isfinite(self, loss: torch.Tensor) -> None:
        """Raise InputError on the first loss that is not finite, before it spoils the weights."""
        if not torch.isfinite(loss):
            raise InputError(
                f"epoch {self.crops.epoch}, step {self.step}: the training loss is {loss.item()}; expected a finite "
                f"one: lower --lr (now {self.optimizer.param_groups[0]['lr']:g}); the checkpoints in "
                f"{self.checkpointer.checkpoints_dir} are from before"
            )

    def init_optimizers(self) -> None:
        """Make the optimiser, the scheduler and the average of the weights, all of which are saved and restored."""
        super().init_optimizers()
        steps_per_epoch = max(1, self.batches_per_epoch // self.grad_accumulation_factor)
        self.learning_rate = LearningRate(self.hparams.lr_annealing, self.optimizer, steps_per_epoch)
        self.checkpointer.add_recoverable("lr_annealing", self.learning_rate.scheduler)
        self.weight_average = None
        if self.hparams.average_epochs:
            num_steps = self.hparams.average_epochs * steps_per_epoch
            self.weight_average = WeightAverage(self.hparams.embedding_model, num_steps)
            self.weight_average.save_with(self.checkpointer, "embedding_model")

    def _wrap_distributed(self) -> None:
        """On CPU leave BatchNorm to each process: SpeechBrain's synchronised one works on GPUs only."""
        if not self.distributed_launch or self.device_type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(parameter.requires_grad for parameter in module.parameters()):
                self.modules[name] = DistributedDataParallel(module, find_unused_parameters=self.find_unused_parameters)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Tell the crops the epoch and start the clock."""
        self.crops.epoch = epoch
        self.steps_before = self.step  # not 0 when an epoch goes on after a stop
        self.started = time.monotonic()

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Validate, report and save on the main process; step the learning rate on all."""
        seconds = time.monotonic() - self.started
        num_utterances = (self.step - self.steps_before) * self.hparams.batch_size * self._num_processes()
        row = {
            "epoch": epoch,
            "train_loss": self._mean_over_processes(stage_loss),
            "lr": self.optimizer.param_groups[0]["lr"],
            "utterances_per_s": num_utterances / seconds,
            "train_seconds": seconds,
        }
        row = self._validate_and_report(row)
        self.learning_rate.after_epoch()
        self.step, self.avg_train_loss = 0, 0.0  # saved too: the next epoch begins with them
        meta = {"epoch": epoch} | ({"EER": row["eer"]} if self.held_out else {})
        self.checkpointer.save_and_keep_only(meta=meta, min_keys=list(meta.keys() & {"EER"}))

    @main_process_only
    def _validate_and_report(self, row: dict) -> dict:
        """Add the EER on held-out speakers to an epoch's figures, write them down and return them to all processes."""
        row = {**row, "eer": self._valid_eer()}
        self._log(row)
        plot_curves(record_epoch(row, self.output_folder), self.output_folder / "curves.png")
        return row

    def _log(self, row: dict) -> None:
        """Write one epoch's figures to the text log and, if asked for, for TensorBoard."""
        train = {"loss": row["train_loss"], "utterances/s": row["utterances_per_s"]}
        valid = {"EER in %": 100 * row["eer"]} if self.held_out else {}
        for train_logger in self.loggers:
            train_logger.log_stats({"epoch": row["epoch"], "lr": row["lr"]}, train_stats=train, valid_stats=valid)

    def _valid_eer(self) -> float | None:
        """Return the EER, a fraction, on the held-out speakers; None when there are none."""
        if not self.held_out:
            return None
        modules = torch.nn.ModuleDict({name: getattr(self.hparams, name) for name in FRONT_TO_EMBEDDING})
        if self.weight_average:
            modules["embedding_model"] = self.weight_average.average
        embeddings = embed_manifest(
            modules, self.held_out.manifest, self.hparams.sample_rate, self.device, self.hparams.num_workers
        )
        scores = score_trials(embeddings, pd.Index(self.held_out.manifest["ID"]), self.held_out.trials)
        return equal_error_rate(scores["score"].to_numpy(), scores["target"].to_numpy() == 1)[0]

    def _num_processes(self) -> int:
        return torch.distributed.get_world_size() if self.distributed_launch else 1

    def _mean_over_processes(self, value: float) -> float:
        """Average a figure over the processes of a distributed run."""
        if not self.distributed_launch:
            return float(value)
        total = torch.tensor(float(value), device=self.device)
        torch.distributed.all_reduce(total)
        return total.item() / self._num_processes()
