#!/bin/sh
# A run on one Cloud TPU slice of any number of hosts, from a laptop with gcloud and this checkout.
#
#   sh launch/tpu_vm.sh create     ask for the slice, and wait until it is there
#   sh launch/tpu_vm.sh setup      this commit and its .venv, on every host
#   sh launch/tpu_vm.sh start      start training on every host; later: go on with it
#   sh launch/tpu_vm.sh watch      the progress line; Ctrl-C leaves the run alone
#   sh launch/tpu_vm.sh logs       the last lines of every host
#   sh launch/tpu_vm.sh stop       save, end, and wait for that
#   sh launch/tpu_vm.sh fetch DIR  copy the run out of the bucket
#   sh launch/tpu_vm.sh delete     give the slice back; what is in the bucket stays
#
# The run lives in the bucket, nothing on the hosts is needed again: after a pre-emption it goes on
# with delete, create, setup, start. docs/pods.md says more.
#
# Set these, here or in the environment:
: "${TPU:=podium}"                            # a name for the slice
: "${ZONE:=europe-west4-b}"
: "${TYPE:=v5litepod-32}"                     # 4 hosts of 8 chips
: "${IMAGE:=v2-alpha-tpuv5-lite}"             # what runs on the hosts; belongs to TYPE
: "${SPOT:=}"                                 # 1: cheaper, and may be taken away
: "${BUCKET:?a bucket near ZONE, without gs://}"
: "${RUN:=gs://$BUCKET/runs/$TPU}"            # --workdir
: "${CONFIG:=configs/python_stdlib.py}"        # needs no data: to see everything work once
: "${ARGS:=--config.train.batch_size=64 --config.evaluation.batch_size=64}"  # chips divide it
set -eu

everywhere() { # everywhere COMMAND: on all hosts at once; fails if it fails on one
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

first() { # first COMMAND: on the host of process 0, which tells
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=0 --command="$1"
}

create() {
  gcloud compute tpus queued-resources create "$TPU" --node-id="$TPU" --zone="$ZONE" \
    --accelerator-type="$TYPE" --runtime-version="$IMAGE" ${SPOT:+--spot}
  while true; do
    state=$(gcloud compute tpus queued-resources describe "$TPU" --zone="$ZONE" \
      --format="value(state.state)")
    echo "$(date +%T) $state"
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDED) exit 1 ;;
    esac
    sleep 30
  done
}

setup() { # the images have Python 3.10: uv brings a newer one
  code=$(mktemp)
  git archive --format=tar.gz -o "$code" HEAD
  gcloud compute tpus tpu-vm scp "$code" "$TPU:podium.tar.gz" --zone="$ZONE" --worker=all
  rm "$code"
  everywhere 'set -e
    python3 -m pip install --user --quiet uv
    export PATH="$HOME/.local/bin:$PATH"
    uv python install --quiet 3.12
    python=$(uv python find --system 3.12)
    mkdir -p podium
    tar xzf podium.tar.gz -C podium
    cd podium
    EXTRA=tpu PYTHON="$python" sh requirements/setup.sh'
}

start() {
  everywhere "cd podium
    touch ../podium.pid
    if kill -0 \$(cat ../podium.pid) 2> /dev/null; then echo 'it runs already'; exit 1; fi
    # JAX_PLATFORMS: a TPU that is not found is an error, not a run on the CPU.
    export JAX_PLATFORMS=tpu,cpu PODIUM_CACHE=gs://$BUCKET/cache
    nohup .venv/bin/python train.py --distributed --config=$CONFIG --workdir=$RUN $ARGS \
      > ../podium.log 2>&1 < /dev/null &
    echo \$! > ../podium.pid"
}

watch() {
  first 'tail -n 20 -f podium.log'
}

logs() {
  everywhere 'echo "== $(hostname)"; tail -n 5 podium.log'
}

stop() { # a signal to one process stops all of them after the same step
  first 'kill -TERM $(cat podium.pid)'
  everywhere 'while kill -0 $(cat podium.pid) 2>/dev/null; do sleep 1; done; tail -n 1 podium.log'
}

fetch() {
  mkdir -p "$1"
  gcloud storage rsync --recursive "$RUN" "$1"
}

delete() {
  gcloud compute tpus queued-resources delete "$TPU" --zone="$ZONE" --force --quiet
}

case ${1:-} in
  create | setup | start | watch | logs | stop | delete) "$1" ;;
  fetch) fetch "${2:?a directory}" ;;
  *) sed -n '2,/^set -eu/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2; exit 2 ;;
esac
