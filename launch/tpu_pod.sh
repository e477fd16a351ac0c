#!/usr/bin/env bash
# A TPU VM of one or many hosts, made by gcloud: creates it, installs this tree on all its workers, runs rfjax on all of
# them, and makes it anew when it was preempted.
#
# Needs:       gcloud, logged in, with quota for TPUs; python of this project here, to check the config. The VM's image
#              must have Python 3.11 or newer (Ubuntu 24.04's has), or else INSTALL must bring one.
#              config.workdir: a folder that every worker sees and that outlives the VM, which SETUP mounts: Filestore
#              or any NFS; a bucket by gcsfuse if it has a hierarchical namespace, for checkpoints are renamed folders.
# Command:     NAME=pod ZONE=zone TYPE=v6e-64 VERSION=v6e-ubuntu-2404 SETUP='sudo mount ADDRESS:/share /mnt' \
#                launch/tpu_pod.sh [--dry-run] --config=configs/scaling.py:pod --config.workdir=/mnt/pod [...]
# Settings:    NAME=, ZONE=, TYPE=, VERSION=  of the VM: its name, place, accelerator type and software version
#              PROJECT=name   gcloud's default
#              SPOT=0         a VM on demand (1: a spot VM)
#              SETUP=command  on every worker of a new VM, before the installation: mounts
#              INSTALL=command  in the tree (python3 -m venv .venv && .venv/bin/pip install ... -e '.[tpu]')
#              RESTARTS=n     starts after a preemption, a hang or a crash (100); PAUSE=n seconds before the first (10)
#              PYTHON=path    here: .venv's
# Preemption:  a spot VM is taken away with seconds' notice at most: what is lost is what came after the last checkpoint
#              (config.training.checkpoint_every). The script then deletes the VM, makes a new one as soon as it gets
#              one, and starts the same command, which goes on. Codes 70 and 75, and death by a signal, start it again;
#              with 0, 1, 2 or 130 the script ends. SIGTERM and Ctrl-C reach the workers, which save and end. The VM
#              stays, and costs, until you delete it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
need NAME "what the VM is called"
need ZONE "where the VM is"
need TYPE "the accelerator type"
need VERSION "the VM's software version"
word NAME ZONE TYPE VERSION PROJECT
whole SPOT 0 1
[[ " ${arguments[*]}" == *" --config.workdir=/"* ]] || die "say a folder that every worker sees: --config.workdir=/..."
names "${arguments[@]}" >/dev/null
recover
arguments+=(--config.cluster.join=always) # JAX asks the metadata server for the other workers

where=(--zone="$ZONE")
if [[ ${PROJECT:-} ]]; then where+=(--project="$PROJECT"); fi
spot=()
if [[ ${SPOT:-1} == 1 ]]; then spot=(--spot); fi
install=${INSTALL:-"python3 -m venv .venv && .venv/bin/pip install --quiet -c constraints.txt -e '.[tpu]'"}
tree=rfjax.tgz
if [[ ! $dry ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"; echo "tpu_pod.sh: the VM stays, and costs, until you delete it: $(dry=1 vm delete)" >&2' EXIT
  tree=$folder/rfjax.tgz
fi
# gcloud starts a command again when its connection breaks: the lock makes it wait for what is left of the first, which
# ends when it misses its partners.
train="cd rfjax && flock --timeout 600 --conflict-exit-code 75 run.lock"
train+=" .venv/bin/python -m rfjax.main $(quoted "${arguments[@]}")"

vm() { # vm VERB ARGUMENT...
  run gcloud compute tpus tpu-vm "$1" "$NAME" "${where[@]}" "${@:2}"
}

on_all() { # on_all COMMAND: on every worker; the exit code is that of the first worker whose code is not 0
  vm ssh --worker=all --command="$1"
}

state() { # empty where there is no such VM
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

ready='' # once the VM is prepared

provide() { # a VM that is there and has this tree
  local now
  while [[ ! $told ]]; do
    now=$(state)
    case $now in
      READY) break ;;
      '') ready='' && { make || return; } ;;
      PREEMPTED | TERMINATED | UNKNOWN) ready='' && { vm delete --quiet || return; } ;;
      STOPPED | HIDDEN) die "the VM $NAME is $now: start it or delete it" ;;
      *) rest "${PAUSE:-10}" ;;
    esac
  done
  if [[ $told ]]; then return 1; fi
  if [[ ! $ready ]]; then prepare || return; fi
  ready=1
}

attempt() {
  local code=0
  if [[ $dry ]]; then # with a VM that is not there
    vm describe --format='value(state)'
    make
    prepare
    on_all "$train"
    return
  fi
  provide || return 75 # no capacity, or a VM that was taken away at once
  start on_all "$train"
  finish || code=$?
  if ((code == 0)) || [[ $told ]]; then return "$code"; fi
  if [[ $(state) != READY ]]; then return 75; fi
  if ((code == 255)) && ! on_all true; then vm delete --quiet || true; fi # no worker answers
  return "$code"
}

listen
restart attempt
