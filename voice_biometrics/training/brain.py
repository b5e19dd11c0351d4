"""SpeakerBrain: training of a speaker-embedding network, and its EER on held-out speakers as validation."""

import dataclasses
import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_init_group, if_main_process, main_process_only
from speechbrain.utils.run_opts import RunOptions
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from voice_biometrics.augmentation.augment import masked
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import read_trials
from voice_biometrics.experiment.run_folder import record_epoch
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.training.curves import plot_curves
from voice_biometrics.training.losses import set_progress
from voice_biometrics.training.optimisation import LearningRate, average_of_weights
from voice_biometrics.training.processes import gathered, process_number


class EqualErrorRate:
    """Equal error rate of a trial list, used like SpeechBrain's ``MetricStats``.

    Arguments
    ---------
    trials : trial list of the utterances that will be appended; without this file the EER is NaN.
    """

    def __init__(self, trials: str) -> None:
        self.trials = read_trials(Path(trials)) if Path(trials).is_file() else None
        self.embeddings: dict[str, np.ndarray] = {}

    def append(self, ids: list[str], embeddings: torch.Tensor) -> None:
        """Add a batch of embeddings (utterances, 1, dims); InputError for one that is not finite."""
        for utt_id, embedding in zip(ids, embeddings.squeeze(1).float().cpu().numpy(), strict=True):
            if not np.isfinite(embedding).all():
                raise InputError(f"utterance {utt_id}: its embedding is not finite")
            self.embeddings[utt_id] = embedding

    def summarize(self) -> float:
        """Return the EER, a fraction, of the utterances of all processes."""
        if self.trials is None:
            return float("nan")
        found = {utt_id: embedding for part in gathered(self.embeddings) for utt_id, embedding in part.items()}
        scores = score_trials(np.stack(list(found.values())), pd.Index(list(found)), self.trials)
        return equal_error_rate(scores["score"].to_numpy(), scores["target"].to_numpy() == 1)[0]


def init_processes(run_opts: RunOptions) -> RunOptions:
    """Join the other processes of ``torchrun``, through gloo on a CPU, and return the options; only the first logs."""
    if not torch.cuda.is_available() or run_opts.device == "cpu":
        run_opts = dataclasses.replace(run_opts, distributed_backend="gloo")
    if not torch.distributed.is_initialized():
        ddp_init_group(run_opts)
    if not if_main_process():
        logging.disable(logging.INFO)
    return run_opts


class SpeakerBrain(sb.Brain):
    """Trains a speaker-embedding network.

    Validation and ``evaluate`` compute the EER of whole utterances; give them a loader with batches of one utterance,
    since an embedding must not depend on its batch. An epoch ends, with a checkpoint, after its validation stage.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.output_folder = Path(self.hparams.output_folder)
        self.weight_average = None
        self.loggers = [self.hparams.train_logger]
        if self.hparams.tensorboard and if_main_process():
            self.loggers.append(sb.utils.train_logger.TensorboardLogger(str(self.output_folder / "tensorboard")))

    @property
    def epoch(self) -> int:
        """The current epoch, from 1."""
        return self.hparams.epoch_counter.current

    def make_dataloader(self, dataset, stage: sb.Stage, **options) -> DataLoader:
        """Make a loader as SpeechBrain does, but of this process's part of the utterances, also in validation.

        For training the given sampler yields this part already; see ``train_loader_options``.
        """
        if stage != sb.Stage.TRAIN:
            process, num_processes = process_number()
            part = range(process, len(dataset), num_processes)
            return super().make_dataloader(dataset, stage, sampler=part, **options)
        loader = sb.dataio.dataloader.make_dataloader(dataset, **options)
        self.checkpointer.add_recoverable(f"dataloader-{stage.name}", loader)
        self.batches_per_epoch = len(loader)
        self.train_sampler = options.get("batch_sampler") or options["sampler"]
        return loader

    def compute_forward(self, batch, stage: sb.Stage) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return embeddings (utterances, 1, dims) and, in training, the head's outputs (utterances, 1, classes)."""
        batch = batch.to(self.device)
        waves, lengths = batch.sig  # (utterances, samples), (utterances,) in (0, 1]
        features = self.modules.compute_features(waves)  # (utterances, frames, features)
        features = self.modules.mean_var_norm(features, lengths)
        if stage != sb.Stage.TRAIN:
            network = self.weight_average or self.hparams.embedding_model  # processes do not wait for each other here
            return network(features, lengths), None
        features = masked(features, self.hparams.feature_masks, f"{self.hparams.seed}/{self.epoch}/{batch.id[0]}")
        with torch.set_grad_enabled(not self._is_frozen()):
            embeddings = self.modules.embedding_model(features, lengths)
        with torch.autocast(self.device_type, enabled=False):  # bf16 cosines times 30 would be off by 0.07
            return embeddings.float(), self.modules.classifier(embeddings.float())

    def compute_objectives(self, predictions: tuple, batch, stage: sb.Stage) -> torch.Tensor:
        """Return the mean loss of a batch: of the head's outputs, plus all ``embedding_costs``.

        In validation, where the head does not know the speakers, the embeddings go to ``error_metrics`` instead.
        """
        embeddings, outputs = predictions
        if stage != sb.Stage.TRAIN:
            self.error_metrics.append(batch.id, embeddings)
            return torch.zeros(())
        speakers, _ = batch.spk_id_encoded  # (utterances, 1)
        with torch.autocast(self.device_type, enabled=False):
            weight, costs = self.hparams.head_weight, self.hparams.embedding_costs
            losses = [weight * self.hparams.compute_cost(outputs, speakers)] if weight else []
            return sum(losses + [cost(embeddings, speakers, batch.id) for cost in costs])

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time: float, steps_since_ckpt: int) -> bool:
        """Decide as SpeechBrain does, but by a clock that cannot be set back, which would put off the checkpoint."""
        if steps_since_ckpt == 1:
            self.saved_at = time.monotonic()
        seconds = time.monotonic() - self.saved_at
        return super()._should_save_intra_epoch_ckpt(time.time() - seconds, steps_since_ckpt)

    def fit_batch(self, batch) -> torch.Tensor:
        """Train with a batch, and return the mean loss of all processes."""
        return self._mean_over_processes(super().fit_batch(batch))

    def on_fit_batch_start(self, batch, should_step: bool) -> None:
        """Set the progress of the loss, and keep the BatchNorm statistics of a frozen network."""
        set_progress(self.hparams.compute_cost, self.epoch - 1 + (self.step - 1) / self.batches_per_epoch)
        self.modules.embedding_model.train(not self._is_frozen())

    def on_fit_batch_end(self, batch, outputs, loss: torch.Tensor, should_step: bool) -> None:
        """Update the learning rate and the average of the weights after a step."""
        if should_step:
            self.learning_rate.after_step()
            if self.weight_average:
                self.weight_average.update_parameters(self.hparams.embedding_model)

    def _is_frozen(self) -> bool:
        """In the first ``frozen_epochs`` only the head is trained."""
        return self.epoch <= self.hparams.frozen_epochs

    def check_loss_isfinite(self, loss: torch.Tensor) -> None:
        """Raise InputError for the first loss that is not finite, before it changes the weights."""
        if not torch.isfinite(loss):
            raise InputError(
                f"epoch {self.epoch}, step {self.step}: the training loss is {loss.item()}; expected a finite one: "
                f"lower --lr (now {self.optimizer.param_groups[0]['lr']:g}); the checkpoints in "
                f"{self.checkpointer.checkpoints_dir} were saved earlier"
            )

    def init_optimizers(self) -> None:
        """Create optimiser, learning-rate schedule and weight average, and add them to the checkpoints."""
        super().init_optimizers()
        steps_per_epoch = max(1, self.batches_per_epoch // self.grad_accumulation_factor)
        self.learning_rate = LearningRate(self.hparams.lr_annealing, self.optimizer, steps_per_epoch)
        self.checkpointer.add_recoverable("lr_annealing", self.learning_rate.scheduler)
        if self.hparams.average_epochs:
            network, num_steps = self.hparams.embedding_model, self.hparams.average_epochs * steps_per_epoch
            self.weight_average = average_of_weights(network, num_steps, lambda: self.optimizer_step)
            self.checkpointer.recoverables["embedding_model"] = self.weight_average.module  # the model to load
            self.checkpointer.add_recoverable("trained_embedding_model", network)

    def _wrap_distributed(self) -> None:
        """On a CPU leave BatchNorm to each process: SpeechBrain's synchronised one needs GPUs."""
        if not self.distributed_launch or self.device_type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(parameter.requires_grad for parameter in module.parameters()):
                wrapped = DistributedDataParallel(module, find_unused_parameters=self.find_unused_parameters)
                self.modules[name] = wrapped
                costs = self.hparams.embedding_costs
                self.hparams.embedding_costs = [wrapped if cost is module else cost for cost in costs]

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Start the clock, or the metric."""
        if stage == sb.Stage.TRAIN:
            self.steps_before = self.step  # not 0 in a resumed epoch
            self.started = time.monotonic()
        else:
            self.error_metrics = self.hparams.error_stats()
            self._share_statistics()

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Collect the figures of a stage; after validation, end the epoch."""
        if stage == sb.Stage.TRAIN:
            seconds = time.monotonic() - self.started
            num_utterances = (self.step - self.steps_before) * self.hparams.batch_size
            self.train_stats = {
                "epoch": epoch,
                "train_loss": float(stage_loss),
                "lr": self.optimizer.param_groups[0]["lr"],
                "utterances_per_s": num_utterances / seconds,
                "train_seconds": seconds,
            }
            return
        eer = self.error_metrics.summarize()
        if stage == sb.Stage.VALID:
            self._end_epoch(self.train_stats | {"eer": eer})
        else:
            self._log({"epoch": self.epoch}, test_stats={"EER in %": 100 * eer})

    def _end_epoch(self, row: dict) -> None:
        """Record the figures, step the learning rate and save a checkpoint."""
        valid = {} if np.isnan(row["eer"]) else {"EER": row["eer"]}
        self._log(
            {"epoch": row["epoch"], "lr": row["lr"]},
            train_stats={"loss": row["train_loss"], "utterances/s": row["utterances_per_s"]},
            valid_stats={f"{name} in %": 100 * value for name, value in valid.items()},
        )
        self._record(row)
        self.learning_rate.after_epoch()
        self.checkpointer.save_and_keep_only(meta={"epoch": row["epoch"], **valid}, min_keys=list(valid))

    @main_process_only
    def _record(self, row: dict) -> None:
        plot_curves(record_epoch(row, self.output_folder), self.output_folder / "curves.png")

    @main_process_only
    def _log(self, *args, **stats) -> None:
        """Write figures to the text log and, if asked for, to TensorBoard."""
        for train_logger in self.loggers:
            train_logger.log_stats(*args, **stats)

    def _mean_over_processes(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a figure over the processes of a distributed run."""
        if not self.distributed_launch:
            return value
        total = value.to(self.device)
        torch.distributed.all_reduce(total)
        return total.cpu() / process_number()[1]

    def _share_statistics(self) -> None:
        """Give all processes the BatchNorm statistics of the first, which saves the checkpoints."""
        if self.distributed_launch:
            for network in filter(None, (self.hparams.embedding_model, self.weight_average)):
                for statistics in network.buffers():
                    torch.distributed.broadcast(statistics, 0)
