# shellcheck shell=bash
# What the scripts in this folder share; they source it.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
if [[ ! ${PYTHON:-} ]] && ! command -v -- "$python" >/dev/null; then python=python3; fi
dry=''       # set by --dry-run
told=''      # the signal that asked this script to stop
arguments=() # of the command line, without --dry-run
pids=()      # of the processes that `start` started

die() { # die SENTENCE: exit code 2, a mistake
  echo "${0##*/}: $1" >&2
  exit 2
}

usage() { # the script's first lines of comment
  awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
}

options() { # options ARGUMENT...: takes --dry-run and --help out of them, and checks the settings of this file
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

need() { # need NAME MEANING: a setting without a default
  [[ ${!1:-} ]] || die "say $2: $1=... ${0##*/} ... ('${0##*/} --help' lists the settings)"
}

# whole NAME LOW HIGH: dies where a setting is said and is no whole number of this range. To be called before any
# arithmetic: bash takes a word there for the name of a variable, and runs what stands in its brackets.
whole() {
  local value=${!1:-}
  if [[ $value ]] && ! { [[ $value =~ ^(0|[1-9][0-9]{0,8})$ ]] && ((value >= $2 && value <= $3)); }; then
    die "$1=$(quoted "$value") must be a whole number from $2 to $3"
  fi
}

word() { # word NAME...: dies where a setting is said and is not one word that a command can't take for an option
  local key value
  for key; do
    value=${!key:-}
    [[ ! $value || $value =~ ^[[:alnum:]][[:graph:]]*$ ]] \
      || die "$key=$(quoted "$value") must be one word that begins with a letter or a digit"
  done
}

# names ARGUMENT...: the runs of the study that rfjax would make of these flags, separated by commas. Exit code 2 where
# it would refuse them, before anything is started, queued or paid for. Needs no JAX.
names() {
  command -v -- "$python" >/dev/null || die "PYTHON=$(quoted "$python") is not there: say where Python of this project is by PYTHON=..."
  "$python" -c '
import sys
try:
    from rfjax import config, errors, main
except ImportError as error:
    print(f"rfjax: {sys.executable} lacks this project or a package of it ({error}): run make setup, or say another "
          "by PYTHON=...", file=sys.stderr)
    sys.exit(2)
try:
    asked = main.read_flags(sys.argv[1:])
    found = [name for name, _ in config.runs(asked)]
    if asked.only and asked.only not in found:
        raise errors.UserError(f"config.only: there is no run {asked.only!r}{errors.nearest(asked.only, found)}")
    print(asked.only or ",".join(found))
except errors.UserError as error:
    print(f"rfjax: {error}", file=sys.stderr)
    sys.exit(2)
' "$@"
}

recover() { # a run that hangs must end, so that it can be started again
  [[ " ${arguments[*]} " == *" --config.recovery.hang_exits="* ]] || arguments+=(--config.recovery.hang_exits=True)
}

quoted() { # quoted WORD...: as a shell reads them
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

run() { # run COMMAND...: in a dry run only prints it
  if [[ $dry ]]; then quoted "$@"; else "$@"; fi
}

again() { # again CODE: whether a run that ended with this code is to be started again (rfjax.errors.Exit)
  (($1 == 70 || $1 == 75 || ($1 > 128 && $1 != 130)))
}

# restart COMMAND...: starts it again for as long as its exit code asks for it, RESTARTS times at most. The pause
# between two starts doubles from PAUSE seconds to ten minutes; after an hour of work it is short again.
restart() {
  local starts=0 pause=${PAUSE:-10} code began
  while true; do
    began=$SECONDS code=0
    "$@" || code=$?
    if [[ $dry || $told ]] || ! again "$code" || ((starts >= ${RESTARTS:-100})); then return "$code"; fi
    if ((SECONDS - began > 3600)); then pause=${PAUSE:-10}; fi
    starts=$((starts + 1))
    echo "${0##*/}: exit code $code; start $starts of ${RESTARTS:-100} again in $pause seconds" >&2
    rest "$pause"
    if [[ $told ]]; then return "$code"; fi
    pause=$((pause < 300 ? 2 * pause : 600))
  done
}

rest() { # rest SECONDS: a sleep that a signal cuts short
  local end=$((SECONDS + $1))
  while ((SECONDS < end)) && [[ ! $told ]]; do sleep 0.1; done
}

# A terminal's Ctrl-C reaches every process of its group. `set -m` gives each child a group of its own, so that a signal
# reaches it once, from `forward`; and so that `finish` can end it with all that it has started.
start() { # start COMMAND...: in the background, where reading from the terminal would stop it
  set -m
  "$@" </dev/null &
  pids+=($!)
  set +m
}

forward() { # forward SIGNAL: to what was started
  ((${#pids[@]} == 0)) || kill -s "$1" "${pids[@]}" 2>/dev/null || true
}

# listen: SIGTERM and SIGINT are handed on, and this script goes on to wait. A shell script that starts this one with `&`
# has it ignore SIGINT, which bash can't undo: send SIGTERM there.
listen() {
  trap 'told=TERM; forward TERM' TERM
  trap 'told=INT; forward INT' INT
}

# finish: waits for all that was started. If one process dies badly, the others get GRACE seconds to notice, and are
# killed then: a process without its partners may wait for ever. Returns the code of the first that died badly, else 130
# or 75 if any stopped, else 0.
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
          kill -s KILL -- "-$pid" 2>/dev/null || true # what it has left behind
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
