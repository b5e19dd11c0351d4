"""Hparams files, the run folder, checkpoints."""
