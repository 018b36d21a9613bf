#!/usr/bin/env bash
# A Cloud TPU slice: one container of launch/Dockerfile (JAX=tpu) on each of its
# hosts, which goes on when ssh ends. Workdir and data lie in a bucket. Usage:
#   launch/tpu_slice.sh create [--spot]   asks for the slice
#   launch/tpu_slice.sh state             ACTIVE when it is there
#   launch/tpu_slice.sh run FLAGS         of python -m emanet_jax.main
#   launch/tpu_slice.sh tail              follows the log of one host
#   launch/tpu_slice.sh stop              has all save, and end
#   launch/tpu_slice.sh delete            gives the slice back
set -euo pipefail

NAME=${NAME:-emanet}
ZONE=${ZONE:-us-central1-a}
TYPE=${TYPE:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
IMAGE=${IMAGE:-REGISTRY/emanet_jax:tpu}
WORKER=${WORKER:-0}  # whose log is followed

queue() {
  gcloud compute tpus queued-resources "$1" "$NAME" --zone="$ZONE" "${@:2}"
}

on() {  # WORKERS COMMAND, for their shell
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" \
    --command="$2"
}

case ${1:-} in
  create)
    queue create --node-id="$NAME" --accelerator-type="$TYPE" \
      --runtime-version="$RUNTIME" "${@:2}"
    ;;
  state) queue describe --format='value(state.state)' ;;
  run)
    # Privileged, on the host's network, as root: for the TPU's device files
    # and the metadata by which JAX finds the other hosts.
    options=(--detach --name=emanet --privileged --network=host --user=root)
    for name in $(compgen -e | grep -E '^(JAX|XLA|LIBTPU)_'); do
      options+=("--env=$name=${!name}")
    done
    registry=$(printf '%q' "${IMAGE%%/*}")
    command=$(printf '%q ' docker run "${options[@]}" "$IMAGE" "${@:2}")
    on all "sudo gcloud auth configure-docker $registry --quiet
      sudo docker rm emanet 2> /dev/null  # that has ended
      sudo $command"
    ;;
  tail) on "$WORKER" 'sudo docker logs --follow --tail=100 emanet' ;;
  stop) on all 'sudo docker stop -t 120 emanet' ;;
  delete) queue delete --force --quiet ;;
  *)
    sed -n '2,/^set/s/^# //p' "$0" >&2
    exit 1
    ;;
esac
