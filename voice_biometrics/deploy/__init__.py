"""From a trained run to a model folder, and from there to use without PyTorch."""
