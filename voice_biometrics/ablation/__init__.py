"""Plan, run and compare variants: the parts of run_ablations.py."""
