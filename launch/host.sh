#!/usr/bin/env bash
# One host: all of its GPUs in one process, or its CPUs. Usage, with the flags
# of python -m emanet_jax.main:
#   launch/host.sh --config configs/voc.py --workdir runs/voc ...
# CUDA_VISIBLE_DEVICES=0,1 takes some of the GPUs, JAX_PLATFORMS=cpu none.
set -euo pipefail

PYTHON=${PYTHON:-python}

# Beside GPUs, JAX without its CUDA plugin would only warn, and use the CPUs.
if [[ $(nvidia-smi --list-gpus 2> /dev/null) == GPU* ]]; then
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
fi
exec "$PYTHON" -m emanet_jax.main "$@"
