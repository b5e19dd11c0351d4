#!/usr/bin/env bash
# Common Voice: many languages, held-out speakers as trials.
# Usage: recipes/common_voice/run.sh DATA_FOLDER [--stage N] [--stop_stage N] [--key value ...]
set -euo pipefail
data_folder=$(realpath "${1:?the folder of the corpus}")
shift
corpus=(--corpus common_voice --data_folder "$data_folder")
source "$(dirname "$0")/../stages.sh"
