#!/usr/bin/env bash
# Submits one workload to TPUs of a GKE cluster: a JobSet made by xpk, with all hosts of one or several slices.
#
# Needs:       xpk with gcloud, kubectl and docker, a cluster made by `xpk cluster create`, and an image with this
#              project and its TPU extra installed and the config file in its working directory:
#                FROM python:3.12 / WORKDIR /rfjax / COPY . . / RUN pip install -c constraints.txt -e '.[tpu,buckets]'
#              config.workdir: a bucket that the pods' service account may write (docs/buckets.md), as may be the data;
#              or a folder on an `xpk storage` of type gcpfilestore. This machine needs the project's Python to check
#              the config.
# Command:     CLUSTER=name TPU_TYPE=v5litepod-256 IMAGE=image launch/gke_xpk.sh [--dry-run] \
#                --config=configs/scaling.py:pod --config.workdir=gs://BUCKET/pod --config.only=d15 [...]
# Settings:    CLUSTER=, TPU_TYPE=, IMAGE=  xpk's names
#              WORKLOAD=name  name of the workload (rfjax): a new one per queued run, the same to submit a run again
#              SLICES=n       number of slices (1)
#              STORAGE=names  xpk storages to mount, separated by commas
#              PRIORITY=word  very-low, low, medium, high or very-high (medium)
#              RESTARTS=n     restarts of all pods after a preemption, a hang or a crash (100)
#              GRACE=n        seconds between SIGTERM and the end of a pod (120): longer than a step and a checkpoint
#              PROJECT=, ZONE=  (gcloud's defaults);  PYTHON=path  Python on this machine (.venv's)
# Preemption:  a pod receives SIGTERM, and all processes save a checkpoint at the same step and end with exit code 75.
#              xpk restarts on 70 (hung) and 75, and by default on 42 and 127 to 255: the JobSet starts all pods again,
#              and they continue from the last checkpoint. 1 and 2 end the workload. A workload that is evicted by one
#              of higher priority returns to the queue. `xpk workload delete` ends a workload.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
need CLUSTER "the name of the cluster"
need TPU_TYPE "the kind and number of TPUs"
need IMAGE "an image with this project"
word CLUSTER TPU_TYPE IMAGE STORAGE PROJECT ZONE
whole SLICES 1 9999
[[ ${PRIORITY:-medium} =~ ^(very-low|low|medium|high|very-high)$ ]] \
  || die "PRIORITY=$(quoted "$PRIORITY") must be very-low, low, medium, high or very-high"
workload=${WORKLOAD:-rfjax}
[[ $workload =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] \
  || die "WORKLOAD=$workload must have at most 40 small letters, digits and -, a letter first"
shared_folder pods
[[ "${arguments[*]}" != *$'\n'* ]] || die "arguments can't have line breaks: xpk writes them into one line of YAML"
names "${arguments[@]}" >/dev/null
recover

where=()
if [[ ${PROJECT:-} ]]; then where+=(--project="$PROJECT"); fi
if [[ ${ZONE:-} ]]; then where+=(--zone="$ZONE"); fi
IFS=, read -ra storages <<<"${STORAGE:-}"

# exec, so that the signal that xpk's wrapper forwards reaches Python instead of a shell
run xpk workload create --workload="$workload" --cluster="$CLUSTER" "${where[@]}" --tpu-type="$TPU_TYPE" \
  --num-slices="${SLICES:-1}" --docker-image="$IMAGE" "${storages[@]/#/--storage=}" --priority="${PRIORITY:-medium}" \
  --max-restarts="${RESTARTS:-100}" --restart-on-exit-codes=70,75 --termination-grace-period-seconds="${GRACE:-120}" \
  --command="exec python -m rfjax.main $(quoted "${arguments[@]}")"
