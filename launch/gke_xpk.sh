#!/usr/bin/env bash
# One workload on TPUs of a GKE cluster: a JobSet that xpk makes, with all the hosts of one or several slices.
#
# Needs:       xpk and what it needs (gcloud, kubectl, docker), a cluster made by `xpk cluster create`, and an image
#              with this project and its TPU extra installed, in whose working directory the config file is:
#                FROM python:3.12 / WORKDIR /rfjax / COPY . . / RUN pip install -c constraints.txt -e '.[tpu]'
#              config.workdir: a folder that every pod sees, on an `xpk storage` of type gcpfilestore, or of type
#              gcsfuse if its bucket has a hierarchical namespace. Python of this project here, to check the config.
# Command:     CLUSTER=name TPU_TYPE=v5litepod-256 IMAGE=image STORAGE=name launch/gke_xpk.sh [--dry-run] \
#                --config=configs/scaling.py:pod --config.workdir=/MOUNT/pod --config.only=d15 [--config.KEY=VALUE ...]
# Settings:    CLUSTER=, TPU_TYPE=, IMAGE=  as xpk knows them
#              WORKLOAD=name  of the workload (rfjax): one for each run that is queued, and the same to submit it again
#              SLICES=n       (1)
#              STORAGE=names  xpk storages to mount, separated by commas
#              PRIORITY=word  very-low, low, medium, high or very-high (medium)
#              RESTARTS=n     of all pods, after a preemption, a hang or a crash (100)
#              GRACE=n        seconds between SIGTERM and the end of a pod (120): more than a step and a checkpoint take
#              PROJECT=, ZONE=  gcloud's defaults;  PYTHON=path  here: .venv's
# Preemption:  a pod gets SIGTERM, and all processes save a checkpoint at one step and end with exit code 75. xpk is
#              told to restart on 70 (hung) and 75, beside its own 42 and 127 to 255: the JobSet starts all pods again,
#              and they go on from the last checkpoint. 1 and 2 end the workload. A workload that one of higher priority
#              evicts goes back to the queue. `xpk workload delete` ends it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
need CLUSTER "which cluster"
need TPU_TYPE "the kind and number of TPUs"
need IMAGE "which image has this project"
word CLUSTER TPU_TYPE IMAGE STORAGE PROJECT ZONE
whole SLICES 1 9999
[[ ${PRIORITY:-medium} =~ ^(very-low|low|medium|high|very-high)$ ]] \
  || die "PRIORITY=$(quoted "$PRIORITY") must be very-low, low, medium, high or very-high"
workload=${WORKLOAD:-rfjax}
[[ $workload =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] \
  || die "WORKLOAD=$workload is no name for xpk: at most 40 small letters, digits and -, a letter first"
[[ " ${arguments[*]}" == *" --config.workdir=/"* ]] || die "say a folder that every pod sees: --config.workdir=/..."
[[ "${arguments[*]}" != *$'\n'* ]] || die "xpk writes the command into one line of YAML: no line breaks, please"
names "${arguments[@]}" >/dev/null
recover

where=()
if [[ ${PROJECT:-} ]]; then where+=(--project="$PROJECT"); fi
if [[ ${ZONE:-} ]]; then where+=(--zone="$ZONE"); fi
IFS=, read -ra storages <<<"${STORAGE:-}"

# exec: the signal that xpk's wrapper hands on must reach Python, not a shell around it
run xpk workload create --workload="$workload" --cluster="$CLUSTER" "${where[@]}" --tpu-type="$TPU_TYPE" \
  --num-slices="${SLICES:-1}" --docker-image="$IMAGE" "${storages[@]/#/--storage=}" --priority="${PRIORITY:-medium}" \
  --max-restarts="${RESTARTS:-100}" --restart-on-exit-codes=70,75 --termination-grace-period-seconds="${GRACE:-120}" \
  --command="exec python -m rfjax.main $(quoted "${arguments[@]}")"
