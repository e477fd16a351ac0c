#!/usr/bin/env bash
# Runs several joined processes on this machine, to try multi-process training without a cluster.
#
# Needs:       this project, installed (make setup); each process computes on CPUs.
# Command:     launch/local.sh [--dry-run] PROCESSES --config=configs/scaling.py [--config.KEY=VALUE ...]
# Settings:    DEVICES_PER_PROCESS=n  CPU devices of each process (1, or what XLA_FLAGS says)
#              PORT=n                 port of process 0 on 127.0.0.1 (a free one)
#              RESTARTS=n             restarts after a preemption, a hang or a crash (0, to show the exit code)
#              GRACE=n                seconds until the other processes are killed after one dies (10)
#              PYTHON=path            Python to use (.venv's)
# Preemption:  this script forwards SIGTERM and SIGINT to all processes, which save a checkpoint at the same step and
#              end with exit code 75 (SIGTERM) or 130 (Ctrl-C). The same command continues the study. Other codes:
#              python -m rfjax.main --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
processes=${arguments[0]:-}
[[ $processes =~ ^[1-9][0-9]{0,2}$ ]] \
  || die "the first argument must be the number of processes, such as 2 (at most 999)"
whole DEVICES_PER_PROCESS 1 4096
whole PORT 1 65535
arguments=("${arguments[@]:1}")
names "${arguments[@]}" >/dev/null

free_port() { # prints a free port below those that systems use for outgoing connections
  local port
  for ((;;)); do
    port=$((20000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
  done
  echo "$port"
}

together() {
  local address=127.0.0.1:${PORT:-$(free_port)} process settings
  for ((process = 0; process < processes; process++)); do
    settings=(JAX_PLATFORMS=cpu RFJAX_COORDINATOR="$address" RFJAX_PROCESSES="$processes" RFJAX_PROCESS="$process")
    if [[ ${DEVICES_PER_PROCESS:-} ]]; then # of two equal flags XLA uses the last
      settings+=(XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$DEVICES_PER_PROCESS")
    fi
    set -- env "${settings[@]}" "$python" -m rfjax.main "${arguments[@]}"
    if [[ $dry ]]; then run "$@"; else start "$@"; fi
  done
  finish
}

listen
RESTARTS=${RESTARTS:-0} restart together
