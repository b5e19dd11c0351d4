#!/usr/bin/env bash
# speechocean762: 125 speakers to train on.
# Usage: recipes/speechocean762/run.sh DATA_FOLDER [--stage N] [--stop_stage N] [--key value ...]
set -euo pipefail
data_folder=$(realpath "${1:?the folder of the corpus}")
shift
corpus=(--corpus speechocean762 --data_folder "$data_folder")
source "$(dirname "$0")/../stages.sh"
