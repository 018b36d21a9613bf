#!/usr/bin/env bash
# One host, all of its GPUs, one process. Usage:
#   launch/gpu_host.sh configs/voc.py runs/voc --config.data.manual_dir=MANUAL
set -euo pipefail
config=$1 workdir=$2
shift 2
exec python -m emanet_jax.main --config "$config" --workdir "$workdir" "$@"
