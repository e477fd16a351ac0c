#!/usr/bin/env bash
# The GPUs of one machine: one process drives them all, which is how JAX wants it within a machine.
#
# Needs:       NVIDIA GPUs with their driver (nvidia-smi), and this project with CUDA: pip install -e '.[cuda]'.
# Command:     launch/gpus.sh [--dry-run] --config=configs/scaling.py [--config.KEY=VALUE ...]
#              config.mesh says how the GPUs share the work; CUDA_VISIBLE_DEVICES=0,1 takes some of them.
# Settings:    RESTARTS=n   starts after a preemption, a hang or a crash (100)
#              PAUSE=n      seconds before the first of them (10); it doubles up to ten minutes
#              PYTHON=path  .venv's
# Preemption:  SIGTERM and Ctrl-C go on to the process, which saves a checkpoint; this script then ends with its code
#              (75 or 130). If only the process was stopped (75), hangs (70) or was killed, it is started again and goes
#              on from its last checkpoint. XLA and NCCL run with their own defaults: no flag of theirs is set here.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
names "${arguments[@]}" >/dev/null
recover
[[ $dry ]] || command -v nvidia-smi >/dev/null || die "there is no nvidia-smi here: launch/local.sh runs on CPUs"

alone() {
  if [[ $dry ]]; then
    run "$python" -m rfjax.main "${arguments[@]}"
  else
    start "$python" -m rfjax.main "${arguments[@]}"
  fi
  finish
}

listen
restart alone
