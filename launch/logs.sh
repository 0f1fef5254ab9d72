#!/usr/bin/env bash
USAGE="usage: launch/logs.sh [--dry-run] [--slice N] [--worker N|all] [--lines N] [--no-follow]
Follows the log of one worker (slice 0, worker 0), or of all workers of all slices with --worker all."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=launch/workers.sh
source "$LAUNCH/workers.sh"

# number OPTION VALUE: the value, which must be one.
number() {
  [[ ${2-} =~ ^[0-9]+$ ]] || refuse "$1: got '${2-}', wanted a number"
  echo "$2"
}

main() {
  local slice=0 worker=0 lines=100 follow=follow
  while (($#)); do
    case $1 in
      --slice)
        slice=$(number "$@")
        shift
        ;;
      --lines)
        lines=$(number "$@")
        shift
        ;;
      --worker)
        worker=${2-}
        [[ $worker == all ]] || worker=$(number "$@")
        shift
        ;;
      --no-follow) follow= ;;
      *) take_common_option "$1" || unknown_word "$1" ;;
    esac
    shift
  done
  require_pod
  ((slice < TPU_SLICES)) || refuse "--slice: got $slice, '$TPU_NAME' has the slices 0 to $((TPU_SLICES - 1))"
  require_active
  if [[ $worker == all ]]; then
    on_workers all logs "$lines" "$follow"
  else
    on_slice "$slice" "$worker" logs "$lines" "$follow"
  fi
}

main "$@"
