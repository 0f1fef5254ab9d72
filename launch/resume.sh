#!/usr/bin/env bash
USAGE="usage: launch/resume.sh EXPERIMENT [overrides]
Keeps a run alive until it is finished: creates the pod, sets it up, starts the run, and looks at it every TPU_POLL_S.
A preempted pod (SUSPENDED, FAILED, or a node gone) is deleted and made anew; training goes on from the run folder's
newest checkpoint. Where Cloud or a worker does not answer, or a node is repaired, it waits. Ends with 0 when the run is
finished or stop.sh stopped it, else with the code of what failed TPU_MAX_FAILURES times in a row, or did not answer for
TPU_SILENCE_S. It may be interrupted and called again: a run that is under way goes on. Settings are those for the pod of
launch/config.sh, unless --for none is among the overrides."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=launch/workers.sh
source "$LAUNCH/workers.sh"
# shellcheck source=launch/code.sh
source "$LAUNCH/code.sh"

# States of a node in the TPU API. One that is lost does not come back; one that is READY, or in a state not named here,
# is asked; the others pass by themselves.
LOST='PREEMPTED|TERMINATED|STOPPED|NONE'
PASSING='CREATING|STARTING|RESTARTING|REIMAGING|REPAIRING|STOPPING|DELETING|HIDING|UNHIDING'

failures=0    # in a row
started_at=   # in $SECONDS; empty until this script has started the run or found it running
silent_since= # in $SECONDS; empty while Cloud and all workers answer
answered=     # whether they did in this look
seen=         # the last state of the pod
seen_nodes=   # the last state of a node that passes

tell() { say "$(date -u +%FT%TZ)" "$@"; }

# give_up CODE
give_up() {
  tell "giving up; the pod stays as it is: launch/status.sh, launch/logs.sh, launch/delete.sh $TPU_NAME"
  exit "$1"
}

# failed CODE WHAT: counts it, and ends with CODE when there were too many.
failed() {
  failures=$((failures + 1))
  tell "$2 (exit code $1), failure $failures in a row"
  ((failures < TPU_MAX_FAILURES)) || give_up "$1"
}

# unanswered CODE WHAT: says nothing about the run, so it is waited for; ends with CODE after TPU_SILENCE_S of it.
unanswered() {
  answered=
  silent_since=${silent_since:-$SECONDS}
  tell "$2 (exit code $1), waiting for $((SECONDS - silent_since)) s so far; a run there goes on"
  ((SECONDS - silent_since < TPU_SILENCE_S)) || give_up "$1"
}

# refused CODE WHAT: what another try would not change.
refused() {
  tell "$2 (exit code $1)"
  exit "$1"
}

# attempt REACTION WHAT COMMAND...: whether the command succeeds. A failure of the network is unanswered, for any other
# the function REACTION is called: failed, unanswered or refused.
attempt() {
  local code=0
  "${@:3}" 2>"$MESSAGES" || code=$?
  cat "$MESSAGES" >&2
  ((code)) || return 0
  if is_transient "$code" "$MESSAGES"; then unanswered "$code" "$2"; else "$1" "$code" "$2"; fi
  return 1
}

# renew WHY: deletes the pod, whose workers are gone; the next look creates it.
renew() {
  tell "$1; deleting '$TPU_NAME', which is created again"
  started_at=
  attempt failed "the pod was not deleted" delete_pod || true
}

# node_states: a line "node NAME is STATE" a slice.
node_states() {
  local slice node state
  for ((slice = 0; slice < TPU_SLICES; slice++)); do
    node=$(node_name "$slice")
    state=$(node_state "$node") || return
    echo "node $node is $state"
  done
}

# first_in STATES: the first line of $ANSWER about a node in one of them; nothing where there is none.
first_in() { grep -m 1 -E " ($1)\$" "$ANSWER" || true; }

# tend: looks at the workers of an active pod and does what they need.
tend() {
  local lost passing answers code=0 states
  attempt unanswered "the nodes could not be looked at" node_states >"$ANSWER" || return 0
  lost=$(first_in "$LOST")
  if [[ -n $lost ]]; then
    renew "$lost"
    return
  fi
  passing=$(first_in "$PASSING")
  [[ -z $passing || $passing == "$seen_nodes" ]] || tell "$passing, waiting"
  seen_nodes=$passing
  [[ -z $passing ]] || return 0
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
    *) unanswered "$code" "the workers do not answer" ;;
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
  tell "setting up"
  [[ $1 != *running* ]] || on_workers all stop 0 || true
  if attempt failed "setting up failed" "$LAUNCH/setup.sh"; then start_run restart; fi
}

# start_run start|restart
start_run() {
  if attempt failed "the run did not start" on_workers all "$1" "${RUN[@]}"; then started_at=$SECONDS; fi
}

# A run that this script did not start must be the one that it was given: worker.sh's start refuses another.
keep_running() {
  if [[ -z $started_at ]]; then
    attempt refused "the run could not be joined" on_workers all start "${RUN[@]}" || return 0
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

# look: one look at the pod, and what follows from it.
look() {
  local state reaction=unanswered
  [[ -n $seen ]] || reaction=refused # mistyped, or not logged in
  attempt "$reaction" "the pod could not be looked at" pod_state >"$ANSWER" || return 0
  state=$(<"$ANSWER")
  [[ $state == "$seen" ]] || tell "'$TPU_NAME' is $state"
  seen=$state
  case $state in
    NONE) attempt refused "the pod was not created" "$LAUNCH/create.sh" --no-wait || true ;;
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
  command_words "$@"
  [[ ${COMMAND[0]} == train ]] || refuse "got '$1': resume.sh keeps training alive; launch/run.sh starts other commands"
  require_shared "${COMMAND[@]}"
  [[ -n $TPU_SHARED || " ${COMMAND[*]} " == *" --workdir"[\ =]"gs://"* ]] ||
    refuse "TPU_SHARED is not set; a preempted worker's disk is lost, so give a place that outlives it"
  run_words
  MESSAGES=$(mktemp) ANSWER=$(mktemp)
  trap 'rm -f "$MESSAGES" "$ANSWER"' EXIT
  while true; do
    answered=1
    look || unanswered "$?" "the look was cut short"
    [[ -z $answered ]] || silent_since=
    sleep "$TPU_POLL_S"
  done
}

main "$@"
