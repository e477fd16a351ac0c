#!/usr/bin/env bash
# Submits a study to a Slurm cluster: a job array with one run per task, then a job that writes the report.
#
# Needs:       sbatch; this project, installed with CUDA (pip install -e '.[cuda]') in a folder that all nodes see,
#              and config.workdir in such a folder. sbatch copies launch/slurm_task.sh.
# Command:     launch/slurm.sh [--dry-run] --config=configs/scaling.py:pod --config.workdir=SHARED [--config.KEY=...]
# Settings:    NODES=n           nodes of each run (1)
#              GPUS=n            GPUs of each node (8); 0 runs one process per node on CPUs
#              CPUS=n            cores of each process (8)
#              TIME=hh:mm:ss     time limit of each start of a run (24:00:00); a longer run is requeued
#              PARTITION=name    (Slurm's default)
#              AT_ONCE=n         most runs at a time (all)
#              WARNING=seconds   between SIGTERM and the end of TIME (180): longer than a step and a checkpoint
#              RESTARTS=n        most requeues of a run (100)
#              PYTHON=path       Python to use (.venv's)
#              sbatch's own variables set all else: SBATCH_ACCOUNT, SBATCH_QOS, SBATCH_CONSTRAINT ...
# Processes:   one per GPU. JAX gives each process of a Slurm step the GPU of its number on the node, so all processes
#              must see all GPUs of their node: don't bind GPUs to processes, as --gpus-per-task does.
# Preemption:  Slurm sends SIGTERM to the processes: WARNING seconds before the end of TIME, and at a preemption with
#              GraceTime. They save a checkpoint and end with exit code 75; launch/slurm_task.sh then requeues the run,
#              also after a hang (70) or a crash. Output is appended to slurm-JOB_TASK.out. scancel ends all.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "$@"
whole NODES 1 99999
whole GPUS 0 64
whole CPUS 1 4096
whole AT_ONCE 1 999999999
whole WARNING 1 65535
word PARTITION
time=${TIME:-24:00:00}
[[ $time =~ ^([0-9]{1,6}|[0-9]{1,6}:[0-9]{2}(:[0-9]{2})?|[0-9]{1,4}-[0-9]{1,2}(:[0-9]{2}){0,2})$ ]] \
  || die "TIME=$(quoted "$time") must be a time as Slurm writes it, such as 24:00:00 or 2-00"
runs=$(names "${arguments[@]}")
count=$(tr ',' '\n' <<<"$runs" | wc -l)
only=''
if [[ " ${arguments[*]} " == *" --config.only="* ]]; then only=1; fi
plain=("${arguments[@]}")
recover
gpus=${GPUS:-8}

where=(--chdir="$PWD" --open-mode=append)
if [[ ${PARTITION:-} ]]; then where+=(--partition="$PARTITION"); fi

each=(--job-name=rfjax --array="0-$((count - 1))${AT_ONCE:+%$AT_ONCE}" --output=slurm-%A_%a.out --nodes="${NODES:-1}")
if ((gpus)); then each+=(--ntasks-per-node="$gpus" --gpus-per-node="$gpus"); else each+=(--ntasks-per-node=1); fi
each+=(--cpus-per-task="${CPUS:-8}" --time="$time" --requeue --signal="TERM@${WARNING:-180}")

# sbatch prints JOB, or JOB;CLUSTER on a federation
job=$(run sbatch --parsable "${where[@]}" "${each[@]}" "$root/launch/slurm_task.sh" "$python" "$runs" "${arguments[@]}")
echo "$job"
if [[ $only ]]; then exit 0; fi # a single run has no report
if [[ $dry ]]; then job=JOB; fi
run sbatch --parsable "${where[@]}" --job-name=rfjax-report --dependency="afterany:${job%%;*}" --output=slurm-%j.out \
  --ntasks=1 --time=01:00:00 "$root/launch/slurm_task.sh" "$python" '' "${plain[@]}" --config.job=report
