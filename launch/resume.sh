#!/usr/bin/env bash
USAGE="usage: launch/resume.sh EXPERIMENT [overrides]
Keeps a run alive until it is finished: creates the pod, sets it up, starts the run, and looks at it every TPU_POLL_S.
A preempted pod (SUSPENDED, FAILED, or a node gone) is deleted and made anew; training goes on from the run folder's
newest checkpoint. Ends with 0 when the run is finished or stop.sh stopped it, else with the code of what failed
TPU_MAX_FAILURES times in a row. It may be interrupted and called again: a run that is under way goes on."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=launch/workers.sh
source "$LAUNCH/workers.sh"
# shellcheck source=launch/code.sh
source "$LAUNCH/code.sh"

failures=0  # in a row
started_at= # in $SECONDS; empty until this script has started the run or found it running
seen=       # the last state of the pod

tell() { say "$(date -u +%FT%TZ)" "$@"; }

# failed CODE WHAT: counts it, and ends with CODE when there were too many.
failed() {
  failures=$((failures + 1))
  tell "$2 (exit code $1), failure $failures in a row"
  if ((failures >= TPU_MAX_FAILURES)); then
    tell "giving up; the pod stays as it is: launch/status.sh, launch/logs.sh, launch/delete.sh $TPU_NAME"
    exit "$1"
  fi
}

# renew WHY: deletes the pod, whose workers are gone; the next look creates it.
renew() {
  tell "$1; deleting '$TPU_NAME', which is created again"
  started_at=
  delete_pod
}

# lost_node: the first node of an active pod that will not come back, with its state; nothing where all are well.
lost_node() {
  local slice node state
  for ((slice = 0; slice < TPU_SLICES; slice++)); do
    node=$(node_name "$slice")
    state=$(node_state "$node")
    case $state in PREEMPTED | TERMINATED | STOPPED | NONE) echo "node $node is $state" && return ;; esac
  done
}

# tend: looks at the workers of an active pod and does what they need.
tend() {
  local lost answers code=0 states
  lost=$(lost_node)
  if [[ -n $lost ]]; then
    renew "$lost" || failed "$?" "the pod was not deleted"
    return
  fi
  answers=$(on_workers all status 2>"$MESSAGES") || code=$?
  states=$(sed -n 's/^\[[0-9.]*\] \([a-z]*\).*/\1/p' <<<"$answers" | sort -u | tr '\n' ' ')
  ((code == 0)) || cat "$MESSAGES" >&2
  case "$code $states" in
    127* | "0 "*absent*) set_up_and_start "$states" ;; # 127: worker.sh is not there yet
    "0 running ") keep_running ;;
    "0 ready ") start_run start ;;
    "0 finished ") finish ;;
    "0 "*stopped*) tell "stopped by hand" && exit 0 ;;
    "0 "*failed* | "0 "*ready*) start_again "$answers" ;;
    "0 finished running ") tell "some workers have finished, waiting for the others" ;;
    *) failed "$code" "the workers do not answer" ;;
  esac
}

# What was finished before this script started anything was another run, or this one: its checkpoint says.
finish() {
  if [[ -z $started_at ]]; then
    start_run start
  else
    tell "finished"
    exit 0
  fi
}

# set_up_and_start STATES: of which one says that a worker is new.
set_up_and_start() {
  local code=0
  tell "setting up"
  [[ $1 != *running* ]] || on_workers all stop 0 || true
  "$LAUNCH/setup.sh" || code=$?
  if ((code)); then failed "$code" "setting up failed"; else start_run restart; fi
}

# start_run start|restart
start_run() {
  local code=0
  on_workers all "$1" "${RUN[@]}" || code=$?
  if ((code)); then failed "$code" "the run did not start"; else started_at=$SECONDS; fi
}

# A run that this script did not start must be the one that it was given: worker.sh's start refuses another.
keep_running() {
  if [[ -z $started_at ]]; then
    on_workers all start "${RUN[@]}" || exit
    started_at=$SECONDS
  fi
  if ((SECONDS - started_at >= TPU_STEADY_S)); then failures=0; fi
}

# start_again ANSWERS: when one host fails, the others hang or fail too, so all are started again.
start_again() {
  local code
  code=$(sed -n 's/^\[[0-9.]*\] failed \([0-9]*\).*/\1/p' <<<"$1" | head -n 1)
  grep -E '^\[[0-9.]*\] failed' <<<"$1" >&2 || true
  failed "${code:-1}" "the run failed"
  start_run restart
}

# look: one look at the pod, and what follows from it. Fails where Cloud did not answer.
look() {
  local state
  state=$(pod_state) || return
  [[ $state == "$seen" ]] || tell "'$TPU_NAME' is $state"
  seen=$state
  case $state in
    NONE) "$LAUNCH/create.sh" --no-wait || exit ;;
    SUSPENDED) renew "it was preempted" ;;
    FAILED)
      failed 1 "it failed: $(failure_reason)"
      renew "it will not become active"
      ;;
    ACTIVE) tend ;;
  esac
}

main() {
  while (($#)) && take_common_option "$1"; do shift; done
  [[ -z $DRY_RUN ]] || refuse "--dry-run: what resume.sh does depends on the answers; try create.sh, setup.sh and run.sh"
  (($#)) && [[ $1 != -* ]] || unknown_word "${1-}"
  require_pod
  require_code
  require_shared "$@"
  [[ -n $TPU_SHARED ]] || refuse "TPU_SHARED is not set; a preempted worker's disk is lost, so give a place that outlives it"
  run_words "$@"
  MESSAGES=$(mktemp)
  trap 'rm -f "$MESSAGES"' EXIT
  while true; do
    look || failed "$?" "the pod could not be looked at"
    sleep "$TPU_POLL_S"
  done
}

main "$@"
