#!/usr/bin/env bash
USAGE="usage: launch/run.sh [--dry-run] EXPERIMENT [overrides]
       launch/run.sh [--dry-run] COMMAND [words]
Starts \`xgenmm train EXPERIMENT --for TOPOLOGY [overrides]\`, or \`xgenmm COMMAND [words]\`, on all workers of all slices,
detached from this terminal:
  launch/run.sh experiments/stage1.py --optimizer.peak-lr 1e-4 --workdir runs/mine
  launch/run.sh evaluate runs/mine
TOPOLOGY is that of launch/config.sh; --for none takes the experiment's own settings. Python files are paths in the
repository; other paths are taken from TPU_SHARED. The same command again changes nothing."
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
  command_words "$@"
  require_shared "${COMMAND[@]}"
  run_words
  require_active
  on_workers all start "${RUN[@]}"
}

main "$@"
