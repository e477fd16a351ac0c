#!/usr/bin/env bash
# Runs one task of the job array of launch/slurm.sh, which submits this file with sbatch.
#
# Needs:       Slurm, which runs this file as a batch script; srun, scontrol.
# Command:     sbatch --array=0-2 ... launch/slurm_task.sh [--dry-run] PYTHON d1,d2,d3 --config=FILE [--config.KEY=...]
#              The names are the study's runs; the array's index selects one. '' selects none, for a report.
# Settings:    RESTARTS=n  most requeues (100)
# Preemption:  the task requeues itself if srun's exit code is 70 (hung), 75 (preempted) or a signal, unless Slurm has
#              cancelled or requeued the job already. The run continues from its last checkpoint.
set -euo pipefail
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"; }
case ${1:-} in
  '') usage >&2 && exit 2 ;;
  --help | -h) usage && exit 0 ;;
esac
run=()
if [[ $1 == --dry-run ]]; then
  run=(printf '%q ')
  shift
fi
die() { echo "slurm_task.sh: $1" >&2 && exit 2; }
(($# >= 3)) \
  || die "the arguments must be Python, the names of the runs and --config=FILE, as launch/slurm.sh passes them"
for name in SLURM_ARRAY_TASK_ID SLURM_JOB_ID SLURM_CPUS_PER_TASK SLURM_RESTART_COUNT RESTARTS; do
  [[ ${!name:-0} =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "$name=$(printf %q "${!name}") must be a whole number"
done
python=$1 names=$2
shift 2
if [[ $names ]]; then
  IFS=, read -ra names <<<"$names"
  [[ ${SLURM_ARRAY_TASK_ID:-} ]] \
    || die "SLURM_ARRAY_TASK_ID, the run's index, is not set: submit this file by launch/slurm.sh"
  ((SLURM_ARRAY_TASK_ID < ${#names[@]})) \
    || die "SLURM_ARRAY_TASK_ID=$SLURM_ARRAY_TASK_ID is not one of the ${#names[@]} runs, 0 to $((${#names[@]} - 1))"
  if [[ " $* " != *" --config.only="* ]]; then set -- "$@" --config.only="${names[$SLURM_ARRAY_TASK_ID]}"; fi
fi

# Slurm signals the processes of the step itself. This shell must survive the signal if it receives one too, and must
# not forward it, because srun answers SIGTERM with SIGKILL to all processes.
trap : TERM

# --wait instead of --kill-on-bad-exit, so that processes can finish a checkpoint after the first of them has ended
code=0
"${run[@]}" srun --kill-on-bad-exit=0 --wait=300 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "$python" -m rfjax.main "$@" || code=$?
if [[ ${run[*]} ]]; then echo; fi

if ((code == 70 || code == 75 || (code > 128 && code != 130))) && ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-100})); then
  echo "slurm_task.sh: exit code $code; the job is requeued" >&2
  # Incomplete, because otherwise a job that scancel has ended would start again
  if [[ ${SLURM_JOB_ID:-} ]]; then scontrol requeue Incomplete "$SLURM_JOB_ID" || true; fi
fi
exit "$code"
