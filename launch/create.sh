#!/usr/bin/env bash
USAGE="usage: launch/create.sh [--dry-run] [--no-wait]
Asks Google Cloud for the pod of launch/config.sh and waits until it is there."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

wait_until_active() {
  local state before=
  while true; do
    state=$(pod_state)
    [[ $state == "$before" ]] || say "'$TPU_NAME' is $state"
    before=$state
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDED | NONE)
        say "'$TPU_NAME' will not become ACTIVE: $(failure_reason). launch/delete.sh $TPU_NAME, then create it again"
        return 1
        ;;
    esac
    sleep "$TPU_POLL_S"
  done
}

main() {
  local wait_for_it=1 state
  while (($#)); do
    case $1 in
      --no-wait) wait_for_it= ;;
      *) take_common_option "$1" || unknown_word "$1" ;;
    esac
    shift
  done
  require_pod
  if [[ -n $DRY_RUN ]]; then
    create_pod
    return
  fi
  state=$(pod_state)
  case $state in
    NONE) create_pod ;;
    FAILED | SUSPENDED | SUSPENDING | DELETING)
      say "'$TPU_NAME' exists and is $state; launch/delete.sh $TPU_NAME first, or let launch/resume.sh do it all"
      return 1
      ;;
    *) say "'$TPU_NAME' exists and is $state; nothing is created" ;;
  esac
  [[ -z $wait_for_it ]] || wait_until_active
}

main "$@"
