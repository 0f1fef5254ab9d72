#!/usr/bin/env bash
USAGE="usage: launch/run.sh [--dry-run] EXPERIMENT [overrides]
Starts \`xgenmm train EXPERIMENT [overrides]\` on all workers of all slices, detached from this terminal:
  launch/run.sh experiments/stage1.py --optimizer.peak-lr 1e-4 --workdir runs/mine
EXPERIMENT is a path in the repository; other paths are taken from TPU_SHARED. The same command again changes nothing."
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=launch/workers.sh
source "$LAUNCH/workers.sh"
# shellcheck source=launch/code.sh
source "$LAUNCH/code.sh"

main() {
  while (($#)) && take_common_option "$1"; do shift; done
  (($#)) && [[ $1 != -* ]] || unknown_word "${1-}"
  require_pod
  require_code
  require_shared "$@"
  run_words "$@"
  require_active
  on_workers all start "${RUN[@]}"
}

main "$@"
