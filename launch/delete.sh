#!/usr/bin/env bash
USAGE="usage: launch/delete.sh [--dry-run] NAME
Deletes the queued resource NAME and its nodes. NAME must be said, and be the TPU_NAME of launch/config.sh."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
  local name='' state
  while (($#)); do
    if ! take_common_option "$1"; then
      [[ -z $name && $1 != -* ]] || unknown_word "$1"
      name=$1
    fi
    shift
  done
  require_pod
  [[ $name == "$TPU_NAME" ]] || refuse "got the name '$name', TPU_NAME is '$TPU_NAME'; say the one that shall go: launch/delete.sh $TPU_NAME"
  if [[ -z $DRY_RUN ]]; then
    state=$(pod_state)
    if [[ $state == NONE ]]; then
      say "there is no '$TPU_NAME' in $TPU_ZONE; nothing is deleted"
      return
    fi
  fi
  delete_pod
}

main "$@"
