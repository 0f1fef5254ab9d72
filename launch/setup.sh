#!/usr/bin/env bash
USAGE="usage: launch/setup.sh [--dry-run]
Puts the code and its environment onto every worker, and mounts TPU_SHARED and TPU_DATA there. May be repeated."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=launch/workers.sh
source "$LAUNCH/workers.sh"
# shellcheck source=launch/code.sh
source "$LAUNCH/code.sh"

main() {
  while (($#)); do
    take_common_option "$1" || unknown_word "$1"
    shift
  done
  require_pod
  require_code
  require_data
  require_active
  set_up_workers
}

main "$@"
