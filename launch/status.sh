#!/usr/bin/env bash
USAGE="usage: launch/status.sh
Shows the queued resource, its nodes, and a line for every worker: what it runs and the last line of its log."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=launch/workers.sh
source "$LAUNCH/workers.sh"

main() {
  local state slice node
  while (($#)); do
    take_common_option "$1" || unknown_word "$1"
    shift
  done
  require_pod
  state=$(pod_state)
  echo "$TPU_NAME ($TPU_TOPOLOGY, slices: $TPU_SLICES, $TPU_CAPACITY): $state"
  case $state in
    ACTIVE) ;;
    FAILED) echo "reason: $(failure_reason)" && return ;;
    *) return ;;
  esac
  for ((slice = 0; slice < TPU_SLICES; slice++)); do
    node=$(node_name "$slice")
    echo "node $node: $(node_state "$node")"
  done
  on_workers all status
}

main "$@"
