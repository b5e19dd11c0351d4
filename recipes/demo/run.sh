#!/usr/bin/env bash
# Demo voices: synthesised, so that nothing needs to be downloaded.
# Usage: recipes/demo/run.sh [--stage N] [--stop_stage N] [--key value ...]
set -euo pipefail
corpus=(--corpus demo_voices --batch_size 32 --number_of_epochs 10 --sentence_len 2.0)
source "$(dirname "$0")/../stages.sh"
