#!/usr/bin/env bash
# Several processes on this machine, as a cluster would run them; each needs its own devices, so this is for CPUs.
#   launch/local.sh PROCESSES --config=configs/scaling.py [--config.KEY=VALUE ...]
set -euo pipefail
if [[ ! "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  sed -n '2,3s/^# *//p' "$0" >&2
  exit 2
fi
count=$1; shift
python=${PYTHON:-$(dirname "$0")/../.venv/bin/python}
export JAX_PLATFORMS=cpu RFJAX_PROCESSES=$count RFJAX_COORDINATOR=127.0.0.1:${PORT:-9876}
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM EXIT
for ((i = 0; i < count; i++)); do
  RFJAX_PROCESS=$i "$python" -m rfjax.main "$@" --config.distributed=True &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
