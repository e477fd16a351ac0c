#!/usr/bin/env bash
# One task of the job array of launch/slurm.sh, which submits this file with sbatch.
#
# Needs:       to run as a batch script of Slurm; srun, scontrol.
# Command:     sbatch --array=0-2 ... launch/slurm_task.sh [--dry-run] PYTHON d1,d2,d3 --config=FILE [--config.KEY=...]
#              The names are the study's runs, of which the array's index picks one; '': none, for a report.
# Settings:    RESTARTS=n  times that it requeues itself (100)
# Preemption:  where srun's exit code says "start again" (70 hung, 75 preempted, or a signal) it requeues itself, unless
#              Slurm has cancelled or requeued the job already. The run goes on from its last checkpoint.
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
(($# >= 3)) || die "say Python, the names of the runs and --config=FILE, as launch/slurm.sh does"
for name in SLURM_ARRAY_TASK_ID SLURM_JOB_ID SLURM_CPUS_PER_TASK SLURM_RESTART_COUNT RESTARTS; do
  [[ ${!name:-0} =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "$name=$(printf %q "${!name}") must be a whole number"
done
python=$1 names=$2
shift 2
if [[ $names ]]; then
  IFS=, read -ra names <<<"$names"
  [[ ${SLURM_ARRAY_TASK_ID:-} ]] \
    || die "there is no SLURM_ARRAY_TASK_ID, which says the run's number: launch/slurm.sh submits this file"
  ((SLURM_ARRAY_TASK_ID < ${#names[@]})) \
    || die "SLURM_ARRAY_TASK_ID=$SLURM_ARRAY_TASK_ID is none of the ${#names[@]} runs, 0 to $((${#names[@]} - 1))"
  if [[ " $* " != *" --config.only="* ]]; then set -- "$@" --config.only="${names[$SLURM_ARRAY_TASK_ID]}"; fi
fi

# Slurm signals the processes of the step itself. This shell has only to outlive the signal, should it get one too; it
# must not hand it on, for srun answers SIGTERM with SIGKILL to every process.
trap : TERM

# --wait, not --kill-on-bad-exit: those that still save their part of a checkpoint when the first has ended may finish.
code=0
"${run[@]}" srun --kill-on-bad-exit=0 --wait=300 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "$python" -m rfjax.main "$@" || code=$?
if [[ ${run[*]} ]]; then echo; fi

if ((code == 70 || code == 75 || (code > 128 && code != 130))) && ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-100})); then
  echo "slurm_task.sh: exit code $code; the job is requeued" >&2
  # Incomplete: not a job that scancel has ended, which would come back to life
  if [[ ${SLURM_JOB_ID:-} ]]; then scontrol requeue Incomplete "$SLURM_JOB_ID" || true; fi
fi
exit "$code"
