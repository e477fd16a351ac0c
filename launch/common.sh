# shellcheck shell=bash
# Functions and settings that the scripts in this folder share by sourcing this file.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
if [[ ! ${PYTHON:-} ]] && ! command -v -- "$python" >/dev/null; then python=python3; fi
dry=''         # set by --dry-run
stop_signal='' # the signal that requested this script to stop
arguments=()   # arguments of the command line, without --dry-run
pids=()        # processes that `start` started

die() { # die SENTENCE: prints it and exits with code 2, a mistake of the user
  echo "${0##*/}: $1" >&2
  exit 2
}

usage() { # prints the comment at the top of the script
  awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
}

options() { # options ARGUMENT...: handles --dry-run and --help, and checks the settings of this file
  if (($# == 0)); then
    usage >&2
    exit 2
  fi
  local argument
  for argument; do
    case $argument in
      --help | -h) usage && exit 0 ;;
      --dry-run) dry=1 ;;
      *) arguments+=("$argument") ;;
    esac
  done
  whole RESTARTS 0 999999999
  whole PAUSE 0 86400
  whole GRACE 0 86400
}

need() { # need NAME MEANING: dies if a setting without a default is missing
  [[ ${!1:-} ]] || die "set $1, $2: $1=... ${0##*/} ... ('${0##*/} --help' lists the settings)"
}

# whole NAME LOW HIGH: dies if a setting is given and is not a whole number of this range. Call it before any
# arithmetic, where bash treats a word as the name of a variable and executes a command in its index.
whole() {
  local value=${!1:-}
  if [[ $value ]] && ! { [[ $value =~ ^(0|[1-9][0-9]{0,8})$ ]] && ((value >= $2 && value <= $3)); }; then
    die "$1=$(quoted "$value") must be a whole number from $2 to $3"
  fi
}

word() { # word NAME...: dies if a setting is given and is not one word that no command treats as an option
  local key value
  for key; do
    value=${!key:-}
    [[ ! $value || $value =~ ^[[:alnum:]][[:graph:]]*$ ]] \
      || die "$key=$(quoted "$value") must be one word that begins with a letter or a digit"
  done
}

# shared_folder: dies unless config.workdir is an absolute path or a bucket, which machines of their own can share
shared_folder() {
  [[ " ${arguments[*]}" =~ \ --config\.workdir=(/|gs:/|s3:/) ]] \
    || die "name a bucket or a folder that all $1 see: --config.workdir=gs://BUCKET/FOLDER, s3://... or /..."
}

# names ARGUMENT...: prints the names of the study's runs for these flags, separated by commas. Exits with code 2 if
# rfjax refuses the flags, before anything is started, queued or paid for. Needs no JAX.
names() {
  command -v -- "$python" >/dev/null \
    || die "PYTHON=$(quoted "$python") does not exist: set PYTHON=... to this project's Python"
  "$python" -c '
import sys
try:
    from rfjax import config, errors, main
except ImportError as error:
    print(f"rfjax: {sys.executable} lacks this project or a package of it ({error}): run make setup, or set another "
          "Python by PYTHON=...", file=sys.stderr)
    sys.exit(2)
try:
    study = main.read_flags(sys.argv[1:])
    names = [name for name, _ in config.runs(study)]
    if study.only and study.only not in names:
        raise errors.UserError(f"config.only: there is no run {study.only!r}{errors.nearest(study.only, names)}")
    print(study.only or ",".join(names))
except errors.UserError as error:
    print(f"rfjax: {error}", file=sys.stderr)
    sys.exit(2)
' "$@"
}

recover() { # makes a run that hangs end, so that it can be started again
  [[ " ${arguments[*]} " == *" --config.recovery.hang_exits="* ]] || arguments+=(--config.recovery.hang_exits=True)
}

quoted() { # quoted WORD...: prints words with the quotes that a shell needs
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

run() { # run COMMAND...: runs it, or prints it in a dry run
  if [[ $dry ]]; then quoted "$@"; else "$@"; fi
}

again() { # again CODE: whether to start a run again that ended with this code (rfjax.errors.Exit)
  (($1 == 70 || $1 == 75 || ($1 > 128 && $1 != 130)))
}

# restart COMMAND...: starts the command again while its exit code requires it (`again`), at most RESTARTS times. The
# pause between two starts doubles from PAUSE seconds to ten minutes; it is short again after an hour of work.
restart() {
  local starts=0 pause=${PAUSE:-10} code began
  while true; do
    began=$SECONDS code=0
    "$@" || code=$?
    if [[ $dry || $stop_signal ]] || ! again "$code" || ((starts >= ${RESTARTS:-100})); then return "$code"; fi
    if ((SECONDS - began > 3600)); then pause=${PAUSE:-10}; fi
    starts=$((starts + 1))
    echo "${0##*/}: exit code $code; start $starts of ${RESTARTS:-100} again in $pause seconds" >&2
    rest "$pause"
    if [[ $stop_signal ]]; then return "$code"; fi
    pause=$((pause < 300 ? 2 * pause : 600))
  done
}

rest() { # rest SECONDS: sleeps until the time is over or a signal arrives
  local end=$((SECONDS + $1))
  while ((SECONDS < end)) && [[ ! $stop_signal ]]; do sleep 0.1; done
}

# A terminal's Ctrl-C reaches all processes of its group. `set -m` gives each child its own group, so that a signal
# reaches the child once, from `forward`, and `finish` can end it together with its children.
start() { # start COMMAND...: runs it in the background without input, because reading from a terminal would stop it
  set -m
  "$@" </dev/null &
  pids+=($!)
  set +m
}

forward() { # forward SIGNAL: sends it to all started processes
  ((${#pids[@]} == 0)) || kill -s "$1" "${pids[@]}" 2>/dev/null || true
}

# listen: forwards SIGTERM and SIGINT, and lets this script wait on. If a shell script starts this one with `&`, this
# one ignores SIGINT, and bash can't undo that: send SIGTERM instead.
listen() {
  trap 'stop_signal=TERM; forward TERM' TERM
  trap 'stop_signal=INT; forward INT' INT
}

# finish: waits for all started processes. If one fails, the others have GRACE seconds to end and are killed then,
# because a process without its partners may wait for ever. Returns the code of the first that failed, else 130 or 75 if
# any stopped, else 0.
finish() {
  local left=("${pids[@]}") running pid code bad='' stopped=0 deadline=''
  while ((${#left[@]})); do
    running=()
    for pid in "${left[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        running+=("$pid")
        continue
      fi
      code=0
      wait "$pid" || code=$?
      case $code in
        0) ;;
        75 | 130) stopped=$code ;;
        *)
          bad=${bad:-$code}
          kill -s KILL -- "-$pid" 2>/dev/null || true # its children
          ;;
      esac
    done
    left=("${running[@]}")
    if [[ $bad ]] && ((${#left[@]})); then
      deadline=${deadline:-$((SECONDS + ${GRACE:-10}))}
      if ((SECONDS >= deadline)); then kill -s KILL -- "${left[@]/#/-}" 2>/dev/null || true; fi
    fi
    if ((${#left[@]})); then sleep 0.1; fi
  done
  pids=()
  return "${bad:-$stopped}"
}
