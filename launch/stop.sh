#!/usr/bin/env bash
USAGE="usage: launch/stop.sh [--dry-run] [--now]
Ends the run on all workers and waits for its checkpoint (TPU_STOP_WAIT_S); --now kills it. The pod stays."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=launch/workers.sh
source "$LAUNCH/workers.sh"

main() {
  local wait_s=$TPU_STOP_WAIT_S
  while (($#)); do
    case $1 in
      --now) wait_s=0 ;;
      *) take_common_option "$1" || unknown_word "$1" ;;
    esac
    shift
  done
  require_pod
  require_active
  on_workers all stop "$wait_s"
}

main "$@"
