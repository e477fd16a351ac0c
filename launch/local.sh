#!/usr/bin/env bash
# Several processes on this machine, joined as a cluster's are: to try multi-process training without a cluster.
#
# Needs:       this project, installed (make setup); each process computes on CPUs.
# Command:     launch/local.sh [--dry-run] PROCESSES --config=configs/scaling.py [--config.KEY=VALUE ...]
# Settings:    DEVICES_PER_PROCESS=n  CPU devices of each process (1, or what XLA_FLAGS says)
#              PORT=n                 where process 0 listens, on 127.0.0.1 alone (one that is free)
#              RESTARTS=n             starts after a preemption, a hang or a crash (0, so that you see the code)
#              GRACE=n                seconds that the others have when one process dies (10); then they are killed
#              PYTHON=path            .venv's
# Preemption:  SIGTERM and SIGINT go to every process. They save a checkpoint at one and the same step and end with exit
#              code 75 (SIGTERM) or 130 (Ctrl-C); the same command goes on. Other codes: python -m rfjax.main --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
processes=${arguments[0]:-}
[[ $processes =~ ^[1-9][0-9]{0,2}$ ]] \
  || die "the first argument says how many processes there are, such as 2 (999 at most)"
whole DEVICES_PER_PROCESS 1 4096
whole PORT 1 65535
arguments=("${arguments[@]:1}")
names "${arguments[@]}" >/dev/null

free_port() { # below the ports that systems give to outgoing connections
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
    if [[ ${DEVICES_PER_PROCESS:-} ]]; then # XLA heeds the last of two flags
      settings+=(XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$DEVICES_PER_PROCESS")
    fi
    set -- env "${settings[@]}" "$python" -m rfjax.main "${arguments[@]}"
    if [[ $dry ]]; then run "$@"; else start "$@"; fi
  done
  finish
}

listen
RESTARTS=${RESTARTS:-0} restart together
