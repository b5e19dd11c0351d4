#!/usr/bin/env bash
# Your own voices: one folder per speaker.
# Usage: recipes/own_voices/run.sh DATA_FOLDER [--stage N] [--stop_stage N] [--key value ...]
set -euo pipefail
data_folder=$(realpath "${1:?the folder of the corpus}")
shift
corpus=(--corpus speaker_folders --data_folder "$data_folder")
source "$(dirname "$0")/../stages.sh"
