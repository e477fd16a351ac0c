#!/usr/bin/env bash
# Creates a TPU VM of one or many hosts by gcloud, installs this tree on all workers, runs rfjax on all of them, and
# creates the VM again after a preemption.
#
# Needs:       gcloud, logged in, with quota for TPUs; the project's Python on this machine, to check the config. The
#              VM's image needs Python 3.11 or newer (Ubuntu 24.04 has it), or else INSTALL must install it.
#              config.workdir: a bucket that the VM's service account may write (docs/buckets.md), as may be the data;
#              or a folder on Filestore or another NFS that all workers see, which SETUP mounts.
# Command:     NAME=pod ZONE=zone TYPE=v6e-64 VERSION=v6e-ubuntu-2404 \
#                launch/tpu_pod.sh [--dry-run] --config=configs/scaling.py:pod --config.workdir=gs://BUCKET/pod [...]
# Settings:    NAME=, ZONE=, TYPE=, VERSION=  the VM's name, zone, accelerator type and software version
#              PROJECT=name   (gcloud's default)
#              SPOT=0|1       a VM on demand, or a spot VM (1)
#              SETUP=command  to run on all workers of a new VM before the installation, such as mounts
#              INSTALL=command  to run in the tree (python3 -m venv .venv && .venv/bin/pip install ... '.[tpu,buckets]')
#              RESTARTS=n     restarts after a preemption, a hang or a crash (100); PAUSE=n  seconds before them (10)
#              PYTHON=path    Python on this machine (.venv's)
# Preemption:  a spot VM disappears within seconds, and the steps after the last checkpoint are lost
#              (config.training.checkpoint_every). The script then deletes the VM, creates a new one when there is
#              capacity, and starts the same command, which continues. It starts the command again on codes 70 and 75
#              and signals, and ends on 0, 1, 2 and 130. SIGTERM and Ctrl-C reach the workers, which save a checkpoint
#              and end. The VM stays, and costs money, until you delete it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
need NAME "the name of the VM"
need ZONE "the zone of the VM"
need TYPE "the accelerator type"
need VERSION "the VM's software version"
word NAME ZONE TYPE VERSION PROJECT
whole SPOT 0 1
shared_folder workers
names "${arguments[@]}" >/dev/null
recover
arguments+=(--config.cluster.join=always) # JAX finds the other workers by the metadata server

where=(--zone="$ZONE")
if [[ ${PROJECT:-} ]]; then where+=(--project="$PROJECT"); fi
spot=()
if [[ ${SPOT:-1} == 1 ]]; then spot=(--spot); fi
install=${INSTALL:-"python3 -m venv .venv && .venv/bin/pip install --quiet -c constraints.txt -e '.[tpu,buckets]'"}
tree=rfjax.tgz
if [[ ! $dry ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"; echo "tpu_pod.sh: the VM costs money until you delete it: $(dry=1 vm delete)" >&2' EXIT
  tree=$folder/rfjax.tgz
fi
# gcloud starts a command again if its connection breaks. The lock makes the second command wait for the first, which
# ends when it loses its partners.
train="cd rfjax && flock --timeout 600 --conflict-exit-code 75 run.lock"
train+=" .venv/bin/python -m rfjax.main $(quoted "${arguments[@]}")"

vm() { # vm VERB ARGUMENT...: a gcloud command on the VM
  run gcloud compute tpus tpu-vm "$1" "$NAME" "${where[@]}" "${@:2}"
}

on_all() { # on_all COMMAND: runs it on all workers; returns the first exit code that is not 0
  vm ssh --worker=all --command="$1"
}

state() { # prints the VM's state, or nothing if there is no such VM
  vm describe --format='value(state)' 2>/dev/null || true
}

forward() {
  if ((${#pids[@]})); then on_all "pkill --signal $1 --oldest --full '^[^ ]*python -m rfjax[.]main'" || true; fi
}

make() {
  vm create --accelerator-type="$TYPE" --version="$VERSION" "${spot[@]}"
}

prepare() {
  if [[ ${SETUP:-} ]]; then on_all "$SETUP" || return; fi
  run tar -czf "$tree" -C "$root" --exclude=__pycache__ README.md setup.py pyproject.toml constraints.txt \
    configs rfjax || return
  run gcloud compute tpus tpu-vm scp "$tree" "$NAME:rfjax.tgz" "${where[@]}" --worker=all || return
  on_all "mkdir -p rfjax && tar -xzf rfjax.tgz -C rfjax && cd rfjax && $install"
}

ready='' # 1 after the VM is prepared

provide() { # makes sure that the VM exists and has this tree
  local now
  while [[ ! $stop_signal ]]; do
    now=$(state)
    case $now in
      READY) break ;;
      '') ready='' && { make || return; } ;;
      PREEMPTED | TERMINATED | UNKNOWN) ready='' && { vm delete --quiet || return; } ;;
      STOPPED | HIDDEN) die "the VM $NAME is $now: start it or delete it" ;;
      *) rest "${PAUSE:-10}" ;;
    esac
  done
  if [[ $stop_signal ]]; then return 1; fi
  if [[ ! $ready ]]; then prepare || return; fi
  ready=1
}

attempt() {
  local code=0
  if [[ $dry ]]; then # the commands for a VM that does not exist
    vm describe --format='value(state)'
    make
    prepare
    on_all "$train"
    return
  fi
  provide || return 75 # no capacity, or the VM was preempted at once
  start on_all "$train"
  finish || code=$?
  if ((code == 0)) || [[ $stop_signal ]]; then return "$code"; fi
  if [[ $(state) != READY ]]; then return 75; fi
  if ((code == 255)) && ! on_all true; then vm delete --quiet || true; fi # no worker answers
  return "$code"
}

listen
restart attempt
