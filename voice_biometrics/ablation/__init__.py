"""A study: variants times seeds, trained, judged by the same held-out speakers and compared; see run_ablations.py."""
