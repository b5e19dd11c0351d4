#!/usr/bin/env bash
# VoxCeleb1: 1,211 speakers to train on, tested on VoxCeleb1-O.
# Usage: recipes/voxceleb1/run.sh DATA_FOLDER [--stage N] [--stop_stage N] [--key value ...]
set -euo pipefail
data_folder=$(realpath "${1:?the folder of the corpus}")
shift
corpus=(--corpus voxceleb --data_folder "$data_folder" --valid_speakers 40)
source "$(dirname "$0")/../stages.sh"
