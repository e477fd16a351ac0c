#!/usr/bin/env bash
# Runs rfjax on all GPUs of one machine, in one process, as JAX recommends within a machine.
#
# Needs:       NVIDIA GPUs with their driver (nvidia-smi), and this project with CUDA: pip install -e '.[cuda]'.
# Command:     launch/gpus.sh [--dry-run] --config=configs/scaling.py [--config.KEY=VALUE ...]
#              config.mesh divides the work among the GPUs; CUDA_VISIBLE_DEVICES=0,1 selects some of them.
# Settings:    RESTARTS=n   restarts after a preemption, a hang or a crash (100)
#              PAUSE=n      seconds before the first restart (10); the pause doubles up to ten minutes
#              PYTHON=path  Python to use (.venv's)
# Preemption:  this script forwards SIGTERM and Ctrl-C to the process, which saves a checkpoint, and ends with its code
#              (75 or 130). If only the process was stopped (75), hangs (70) or was killed, the script starts it again,
#              and it continues from its last checkpoint. XLA and NCCL run with their defaults: no flag is set here.
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
