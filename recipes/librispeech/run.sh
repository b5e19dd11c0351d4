#!/usr/bin/env bash
# LibriSpeech: 251 speakers or more to train on, tested on test-clean.
# Usage: recipes/librispeech/run.sh DATA_FOLDER [--stage N] [--stop_stage N] [--key value ...]
set -euo pipefail
data_folder=$(realpath "${1:?the folder of the corpus}")
shift
corpus=(--corpus librispeech --data_folder "$data_folder")
source "$(dirname "$0")/../stages.sh"
