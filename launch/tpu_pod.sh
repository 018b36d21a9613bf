#!/usr/bin/env bash
# A Cloud TPU slice: the same command on every host of it. Usage:
#   launch/tpu_pod.sh TPU_NAME ZONE configs/voc.py /mnt/shared/runs/voc ...
# The repository lies in ~/emanet_jax of every host, requirements and
# 'jax[tpu]' installed; workdir and data.data_dir are on a file system mounted
# on all of them.
set -euo pipefail
name=$1 zone=$2 config=$3 workdir=$4
shift 4
quoted=$(printf '%q ' --config "$config" --workdir "$workdir" "$@")
exec gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all \
  --command "cd ~/emanet_jax && python3 -m emanet_jax.main $quoted"
